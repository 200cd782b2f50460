// tenon bench --precisions: f32 and bf16 in turns.
#pragma once

#include <string>
#include <vector>

#include "core/base/status.h"
#include "tools/bench/workload.h"

namespace tenon::bench {

struct PrecisionsOptions {
  std::vector<const WorkloadInfo*> workloads;
  std::vector<std::string> f32, bf16;  // commands that serve a workload, which is appended
  int rounds = 5;
  double seconds = 3;  // of each in each round
};

// A Markdown table: medians over the rounds, and the median of how many times faster bf16 was in a round.
// What exists in f32 only is said to. Each is a process that stays alive, so that whatever else the machine
// does meets both.
Result<std::string> compare_precisions(const PrecisionsOptions& options);

}  // namespace tenon::bench
