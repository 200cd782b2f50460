// Loading a file, before anything else is done with it.
#pragma once

#include <string>
#include <vector>

#include "core/plugin/host.h"
#include "tools/validate/check.h"

namespace tenon::validate {

inline constexpr const char* kLoad = "load";
inline constexpr const char* kLoadSays = "the file loads, says what it holds, and leaves the process as it was";

struct Loaded {
  Verdict verdict;
  std::vector<std::pair<std::string, std::string>> plugins;  // kind and id of each; empty: it can't be used
};
Loaded check_load(const std::string& file, const tn_host& host);

}  // namespace tenon::validate
