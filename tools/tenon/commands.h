// The program's commands. Each registers its flags with CLI11 and returns the process's exit code.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>
#include <vector>

#include "core/base/status.h"

namespace tenon::cli {

// Exit codes: 0 done, 1 failed, 2 bad input.
int exit_code(const Status& status);
// Prints "tenon: <message>" to stderr and returns the exit code.
int report(const Status& status);

// A check of a number on the command line.
CLI::Validator at_least(double least);

using Command = std::function<int()>;
// Each adds its subcommand to `app`; the chosen one stores itself in `run`.
void add_train(CLI::App& app, Command& run);
void add_eval(CLI::App& app, Command& run);
void add_predict(CLI::App& app, Command& run);
void add_generate(CLI::App& app, Command& run);
void add_plugins(CLI::App& app, Command& run);
void add_describe(CLI::App& app, Command& run);
void add_golden(CLI::App& app, Command& run);
void add_validate(CLI::App& app, Command& run);
void add_new(CLI::App& app, Command& run);
void add_dump(CLI::App& app, Command& run);
void add_bench(CLI::App& app, Command& run);
void add_profile(CLI::App& app, Command& run);
void add_zoo(CLI::App& app, Command& run);
void add_version(CLI::App& app, Command& run);

}  // namespace tenon::cli
