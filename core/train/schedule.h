// Schedules: a factor of the learning rate (or of a loss weight) in each step. A factor is a changing number,
// so following a schedule never changes the plan of a step.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include "core/base/status.h"
#include "core/data/options.h"

namespace tenon {

// id          options (default)                        factor, with u = (step - warmup) / (total - warmup) in
// [0, 1] constant                                             1 linear      min_factor (0) 1 - (1 -
// min_factor) u cosine      min_factor (0)                           min_factor + (1 - min_factor) (1 + cos
// pi u) / 2 step        gamma (0.1); every, or milestones        gamma ^ (how many multiples of `every`, or
// milestones, passed) one_cycle   pct_start (0.3), div_factor (25), final_div_factor (1e4): PyTorch's
// OneCycleLR with cosine annealing,
//             as a factor of max_lr (Smith & Topin 2019)
// All but one_cycle: warmup_steps (0), in which the factor rises as (step + 1) / (warmup_steps + 1). All but
// constant and step: total_steps (0 = the run's). step's `every` and milestones count from the beginning of
// the run.
class Schedule {
 public:
  Schedule() = default;  // constant
  // Errors: no such id or option (with the nearest), an option out of its range.
  static Result<Schedule> make(std::string_view id, const Options& options);
  // step: 0 .. total-1, the step about to be made; total: steps of the run. Later steps keep the last factor.
  double factor(int64_t step, int64_t total) const;

 private:
  int64_t warmup_ = 0, total_ = 0;
  std::function<double(int64_t step, int64_t warmup, int64_t total)> after_warmup_;
};

// The ids, for messages and listings.
std::vector<std::string_view> schedule_ids();

}  // namespace tenon
