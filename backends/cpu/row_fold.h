// Folding one contiguous row to one number. The result depends on the row's elements and length alone, so
// that a fold inside a fused piece has the bits of the reduction on its own.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "backends/cpu/row_ops.h"

namespace tenon::cpu {

enum class RowFold : uint8_t { sum, mean, max, min, logsumexp };

// Rows are folded in runs of this length, which keeps the rounding error of a sum small.
inline constexpr int64_t kFoldRun = 2048;

// What a fold of nothing gives.
inline float idle(RowFold how) {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  return how == RowFold::max ? -infinity : how == RowFold::min ? infinity : 0.0f;
}
inline float join(RowFold how, float a, float b) {
  if (how == RowFold::max) return a != a || a > b ? a : b;
  if (how == RowFold::min) return a != a || a < b ? a : b;
  return a + b;
}
// One run; mean as sum.
inline float fold_run(RowFold how, const float* x, size_t n) {
  const RowOps& ops = row_ops();
  if (how == RowFold::max) return ops.max(x, n);
  if (how == RowFold::min) return ops.min(x, n);
  return ops.sum(x, n);
}
inline float mean_scale(double count) { return static_cast<float>(1 / count); }

// logsumexp of runs: each_run(f) calls f(x, n) for all of them in order, each time it is called.
template <class EachRun>
float logsumexp_runs(EachRun&& each_run) {
  float max = idle(RowFold::max), sum = 0;
  each_run([&](const float* x, size_t n) { max = join(RowFold::max, max, row_ops().max(x, n)); });
  if (std::isinf(max) || max != max) return max;
  each_run([&](const float* x, size_t n) { sum += row_ops().exp_sum(x, n, max, nullptr); });
  return max + std::log(sum);
}

// A whole row; of a row of no elements, the neutral element.
float fold_row(RowFold how, const float* x, int64_t n);

}  // namespace tenon::cpu
