// One check in a process of its own: this program again, with a time limit, in an empty folder that is removed afterwards.
#pragma once

#include <string>
#include <vector>

#include "core/base/status.h"

namespace tenon::validate {

inline constexpr int kReportFile = 3;  // where the child writes its report

struct ChildResult {
  std::string report;   // lines
  std::string printed;  // to stdout and stderr
  int code = 0;         // exit code
  int signal = 0;       // that ended it
  bool timed_out = false;
};
// `arguments` follow the program's name. Error: the process or its folder can't be made.
Result<ChildResult> run_child(const std::vector<std::string>& arguments, double seconds);

}  // namespace tenon::validate
