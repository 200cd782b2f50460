// What this machine can do, measured: the rates that steps are compared with.
#pragma once

#include "core/base/status.h"

namespace tenon::bench {

struct Limits {
  double flops_per_second = 0;  // f32 product of two 1024x1024 matrices on the CPU backend, the best of many
  double bytes_per_second =
      0;  // a[i] = b[i] + 3 c[i] over 3 x 64 MB: two arrays read, one written, the best of many
};
// Takes about a second and, while it runs, 200 MB.
Result<Limits> measure_limits(int threads);

// AdamW as a plain loop, one pass over parameter, gradient and both moments, on the tensors of adamw_25m:
// what that workload has to compare with. Median milliseconds of a step, over `seconds`.
Result<double> measure_adamw_loop(int threads, double seconds);
inline constexpr double kAdamWLoopBytes =
    28.0 * 25'000'000;  // that a step moves: four arrays read, three written

}  // namespace tenon::bench
