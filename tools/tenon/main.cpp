// tenon: train, evaluate and inspect models described by recipes.
#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "core/base/nearest.h"
#include "tools/tenon/commands.h"
#include "tools/tenon/spin.h"

namespace tenon::cli {

int exit_code(const Status& status) {
  switch (status.code()) {
    case Code::ok: return 0;
    case Code::invalid:
    case Code::not_found:
    case Code::unsupported: return 2;
    case Code::state:
    case Code::internal:
    case Code::cancelled: break;
  }
  return 1;
}

int report(const Status& status) {
  if (!status.is_ok()) std::fprintf(stderr, "tenon: %s\n", status.message().c_str());
  return exit_code(status);
}

// What is wrong with a command line, in one sentence.
std::string explain(const CLI::App& app, const CLI::ParseError& e, const std::string& first) {
  const auto chosen = app.get_subcommands();
  if (chosen.empty()) {
    std::vector<std::string> commands;
    for (const CLI::App* c : app.get_subcommands({})) commands.push_back(c->get_name());
    return (first.empty() ? "a command is missing" : "no command '" + first + "'") + did_you_mean(first, commands);
  }
  const std::vector<std::string> extras = chosen[0]->remaining();
  if (!chosen[0]->get_subcommands({}).empty()) return explain(*chosen[0], e, extras.empty() ? "" : extras[0]);
  for (const std::string& extra : extras) {
    if (!extra.starts_with("-")) continue;
    std::vector<std::string> options;
    for (const CLI::Option* o : chosen[0]->get_options())
      for (const std::string& name : o->get_lnames()) options.push_back("--" + name);
    return chosen[0]->get_name() + ": no option '" + extra + "'" + did_you_mean(extra, options);
  }
  std::string what = e.what();
  while (what.ends_with('\n') || what.ends_with('.')) what.pop_back();
  std::replace(what.begin(), what.end(), '\n', ' ');
  return chosen[0]->get_name() + ": " + what;
}

CLI::Validator at_least(double least) {
  return {[least](const std::string& text) {
            char* end = nullptr;
            const double value = std::strtod(text.c_str(), &end);
            if (!text.empty() && *end == '\0' && value >= least) return std::string();
            char limit[32];
            std::snprintf(limit, sizeof limit, "%g", least);
            return "must be a number of at least " + std::string(limit) + ", not '" + text + "'";
          },
          "NUMBER", "at least"};
}

}  // namespace tenon::cli

int main(int argc, char** argv) {
  using namespace tenon::cli;
  spin_briefly(argv);
  CLI::App app{"Tenon: train models from recipes, with plugins"};
  app.require_subcommand(1);
  Command run;
  add_train(app, run);
  add_eval(app, run);
  add_predict(app, run);
  add_generate(app, run);
  add_plugins(app, run);
  add_describe(app, run);
  add_golden(app, run);
  add_validate(app, run);
  add_new(app, run);
  add_dump(app, run);
  add_bench(app, run);
  add_profile(app, run);
  add_zoo(app, run);
  add_version(app, run);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) return app.exit(e);  // --help
    std::fprintf(stderr, "tenon: %s; see tenon --help\n", explain(app, e, argc > 1 ? argv[1] : "").c_str());
    return 2;
  }
  try {
    const int code = run();
    if ((std::fflush(stdout) != 0 || std::ferror(stdout)) && code == 0)
      return report(tenon::bad_state("the output can't be written (is the disk full?)"));
    return code;
  } catch (const std::exception& e) {  // out of memory and the like, from a library
    std::fprintf(stderr, "tenon: %s\n", e.what());
    return 1;
  }
}
