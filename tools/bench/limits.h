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

// AdamW as a plain loop, one pass over parameter, gradient and both moments: what adamw_25m has to compare
// with.
struct AdamWLoop {
  double ms = 0;     // median
  double bytes = 0;  // that a step moves: 28 an element
};
// As adamw_25m: five tensors of 5,000,000, for `seconds`.
Result<AdamWLoop> measure_adamw_loop(int threads, double seconds);

}  // namespace tenon::bench
