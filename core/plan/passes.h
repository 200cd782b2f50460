// The planner's passes by name, each with a switch: TENON_PASSES=-fuse,-rows turns two off. Turning one off
// changes speed and memory, never results.
#pragma once

#include <span>
#include <string_view>

#include "core/base/status.h"
#include "core/runtime.h"

namespace tenon {

struct PassInfo {
  std::string_view name;
  bool RuntimeOptions::*enabled;
  std::string_view what;
};
std::span<const PassInfo> planner_passes();

// `text` names passes separated by commas; each is turned on, or off where a '-' stands in front; "all" is
// every one:
// "-all,cse" leaves only cse. Error: no such pass, with the nearest.
Status set_passes(RuntimeOptions& options, std::string_view text);

}  // namespace tenon
