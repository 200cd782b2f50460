// tenon: train, evaluate and inspect models described by recipes.
#include <cstdio>

#include "tools/tenon/commands.h"

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

}  // namespace tenon::cli

int main(int argc, char** argv) {
  using namespace tenon::cli;
  CLI::App app{"Tenon: train models from recipes, with plugins"};
  app.require_subcommand(1);
  Command run;
  add_train(app, run);
  add_eval(app, run);
  add_predict(app, run);
  add_generate(app, run);
  add_plugins(app, run);
  add_describe(app, run);
  add_dump(app, run);
  add_version(app, run);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  try {
    return run();
  } catch (const std::exception& e) {  // out of memory and the like, from a library
    std::fprintf(stderr, "tenon: %s\n", e.what());
    return 1;
  }
}
