// How long a step takes, and what it needs.
#pragma once

#include "tools/bench/workload.h"

namespace tenon::bench {

struct Measured {
  double ms = 0;            // median over steps
  int64_t steps = 0;        // measured, after warm-up
  double peak_mb = 0;       // resident memory of the process, highest so far
  double arena_mb = 0;      // working memory of a step
  int64_t kernels = 0;      // a step
  int64_t plan_misses = 0;  // in the measured steps: 0 unless plans are made again
};

// Steps for `seconds` after 5 of warm-up, at least 5.
Result<Measured> measure(Runtime& runtime, Workload& workload, double seconds);

double median(std::vector<double> values);
// Highest resident memory of this process. Not getrusage's, which begins with that of the program that started this one.
double peak_megabytes();

}  // namespace tenon::bench
