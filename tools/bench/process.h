// A program run to its end, its standard output taken.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "core/base/status.h"

namespace tenon::bench {

struct Finished {
  int code = 0;  // exit code; 128 + n when signal n ended it
  std::string out;
};
// `arguments[0]` is looked up in PATH; `environment` is added to this process's own. What the program writes
// to stderr passes through unless `quiet`. Error: it can't be started.
Result<Finished> run_program(const std::vector<std::string>& arguments,
                             const std::vector<std::pair<std::string, std::string>>& environment = {},
                             bool quiet = false);
// The path of the running program.
std::string this_program();

}  // namespace tenon::bench
