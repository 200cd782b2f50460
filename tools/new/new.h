// tenon new: a plugin of a kind to start from, in one file, with the header that it needs beside it.
#pragma once

#include <string>
#include <vector>

#include "core/base/status.h"

namespace tenon::scaffold {

// "loss", "reweighter", ..: the kinds that there are templates of.
std::vector<std::string> kinds();

struct NewPlugin {
  std::vector<std::string> files;  // that were written; headers that lay there already are not among them
  std::string build;               // the command that compiles it, in its folder
};
// Writes <folder>/<name>.cpp, and tenon_plugin.h and tenon_plugin.hpp where they are missing; makes the folder. Errors: an
// unknown kind (with the nearest), a name that is no identifier in lower case, files that are there with another content.
Result<NewPlugin> make_plugin(const std::string& kind, const std::string& name, const std::string& folder);

}  // namespace tenon::scaffold
