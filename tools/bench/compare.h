// Tenon beside its peers: the same workloads in PyTorch (eager and compiled) and JAX, measured in turns on
// one machine.
//
// For each workload every contender is a process of its own that stays alive; round after round each measures
// its steps for a moment while the others wait. So a disturbance meets all of them, and ratios within a round
// mean something where milliseconds of different times don't.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "tools/bench/workload.h"

namespace tenon::bench {

struct CompareOptions {
  std::vector<const WorkloadInfo*> workloads;
  std::vector<std::string> tenon;  // command that serves a workload when its name is appended
  std::string python;              // "" = python3 of PATH
  int threads = 2;
  int rounds = 5;
  double seconds = 1;  // of each contender in each round
  std::string folder;  // gets bench.md, bench.json, bench.svg, memory.svg, bench_peers.py and peers.log
  std::function<void(const std::string&)> progress;
};
// Returns the Markdown. Errors: Tenon fails (a wrong loss is one), the folder can't be written. A peer that
// is not installed, or fails, is left out and said to be.
Result<std::string> compare(const CompareOptions& options);

}  // namespace tenon::bench
