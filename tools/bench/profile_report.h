// Profiled steps, as a table for people and as JSON.
#pragma once

#include <functional>
#include <nlohmann/json_fwd.hpp>

#include "core/runtime.h"
#include "tools/bench/limits.h"
#include "tools/bench/profile.h"

namespace tenon::bench {

struct ProfiledSteps {
  int64_t steps = 0;
  double step_ms = 0;    // mean
  double kernel_ms = 0;  // of it, in kernels
  double peak_mb = 0;    // resident memory of the process
  RuntimeStats stats;    // of all these steps; arena_bytes is the highest so far
  Limits limits;
};
// Calls step(0), step(1), ..: the first three make plans and fill caches and do not count, the next `steps`
// do. `profile` is what the runtime's backend was wrapped with. The limits of the machine are measured at the
// end.
Result<ProfiledSteps> profile_steps(Runtime& runtime, Profile& profile, int64_t steps,
                                    const std::function<Status(int64_t)>& step);

// A row for each kind of kernel, most time first, then sums, counts and the machine's limits.
std::string table_of(const Profile& profile, const ProfiledSteps& s);
nlohmann::ordered_json json_of(const Profile& profile, const ProfiledSteps& s);

}  // namespace tenon::bench
