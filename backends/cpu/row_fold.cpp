#include "backends/cpu/row_fold.h"

#include <algorithm>

namespace tenon::cpu {

float fold_row(RowFold how, const float* x, int64_t n) {
  const auto each_run = [&](auto&& f) {
    for (int64_t c = 0; c < n; c += kFoldRun) f(x + c, static_cast<size_t>(std::min(kFoldRun, n - c)));
  };
  if (how == RowFold::logsumexp) return logsumexp_runs(each_run);
  if (how == RowFold::sum || how == RowFold::mean) {
    double sum = 0;
    each_run([&](const float* run, size_t count) { sum += static_cast<double>(fold_run(how, run, count)); });
    return how == RowFold::sum ? static_cast<float>(sum)
                               : static_cast<float>(sum) * mean_scale(static_cast<double>(n));
  }
  float acc = idle(how);
  each_run([&](const float* run, size_t count) { acc = join(how, acc, fold_run(how, run, count)); });
  return acc;
}

}  // namespace tenon::cpu
