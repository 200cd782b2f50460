// tenon validate: all checks of a plugin file, one process each.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tools/validate/check.h"

namespace tenon::validate {

struct Line {
  std::string plugin;  // "loss 'focal'"; of the file as a whole: ""
  std::string check;
  Verdict verdict;
};

struct Settings {
  std::string file;
  std::string device = "cpu";
  uint64_t seed = 0;
  double seconds = 60;  // for each check
  std::string only;     // checks whose name contains this
};

// Runs the checks of `settings.file`, each as this program with the arguments that `child_of` makes of its name, the kind
// and the id of the plugin. Each line is given to `show` as it comes. Error: no such file, no process can be made.
struct ChildCheck {
  std::string check, kind, id;
};
Result<std::vector<Line>> validate(const Settings& settings, const std::function<std::vector<std::string>(const ChildCheck&)>& child_of,
                                   const std::function<void(const Line&)>& show);

// In the child: carries out one check and writes the report.
struct ChildHost {
  std::function<Result<std::unique_ptr<Runtime>>()> runtime;
  // With the file under check and, for procedures, those plugins that their recipe needs.
  std::function<Result<std::unique_ptr<Catalog>>(bool shipped)> catalog;
};
void run_in_child(const Settings& settings, const ChildCheck& check, const ChildHost& host);

}  // namespace tenon::validate
