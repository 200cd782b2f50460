#include "tools/bench/check.h"

#include <cmath>
#include <cstdio>

#include "tools/bench/torch_values.h"

namespace tenon::bench {
namespace {

// What differs between two right f32 programs that sum in other orders; ten times what was seen between them.
// And what products of operands rounded to 1 in 256 make of it.
constexpr double kRelative = 1e-5, kRelativeBf16 = 1e-2;

}  // namespace

Status check_against_torch(const WorkloadInfo& info, Workload& workload, std::string_view precision) {
  const double relative = precision == "bf16" ? kRelativeBf16 : kRelative;
  std::vector<double> got;
  for (int step = 0; step < 3; ++step) {
    if (Status s = workload.step(); !s.is_ok()) return std::move(s).at(info.name);
    TN_ASSIGN(const std::vector<double> outcome, workload.outcome());
    got.insert(got.end(), outcome.begin(), outcome.end());
  }
  for (const TorchValues& expected : kTorchValues) {
    if (expected.workload != info.name) continue;
    if (got.size() != expected.values.size()) break;
    for (size_t i = 0; i < got.size(); ++i) {
      if (std::abs(got[i] - expected.values[i]) <= relative * std::abs(expected.values[i])) continue;
      char text[160];
      std::snprintf(text, sizeof text, "step %zu gives %.9g where PyTorch gives %.9g", i * 3 / got.size() + 1,
                    got[i], expected.values[i]);
      return bad_state(text).at(info.name);
    }
    return Status::ok();
  }
  return internal_error("tools/bench/torch_values.h has no fitting entry for '" + std::string(info.name) +
                        "'");
}

}  // namespace tenon::bench
