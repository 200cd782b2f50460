// What every command that touches a recipe needs: flags, backend, plugins, experiment.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/train/experiment.h"

namespace tenon::cli {

struct RecipeFlags {
  std::string recipe;
  std::vector<std::string> sets, plugins, plugin_paths;
  int threads = 0;
  std::string device;

  // RECIPE, --set, --plugin, --plugin-path, --threads, --device.
  void add_to(CLI::App& app);
  // Only --plugin and --plugin-path.
  void add_plugins_to(CLI::App& app);
};

// An experiment with everything it stands on, in the order of construction.
struct Session {
  std::unique_ptr<Catalog> catalog;
  std::unique_ptr<Runtime> runtime;
  std::unique_ptr<Experiment> experiment;
};

// The catalogue of explicit files and folders, then TENON_PLUGIN_PATH (unless the process is privileged), the
// installation's folder and the one beside the program.
Result<std::unique_ptr<Catalog>> open_catalog(const RecipeFlags& flags, HostHooks hooks = {});
// "cpu" or "reference". Error: another name, a device that this build or machine lacks.
Result<std::unique_ptr<Backend>> make_backend(const std::string& device, const RuntimeOptions& options = {});
// Puts something around a backend, as the profile does.
using WrapBackend = std::function<std::unique_ptr<Backend>(std::unique_ptr<Backend>)>;
// A runtime on that device, eager when TENON_EAGER is 1. `threads` 0: all cores.
Result<std::unique_ptr<Runtime>> make_runtime(const std::string& device, int threads, const WrapBackend& wrap = {});
// Loads the recipe and opens the experiment. `steps` > 0 ends it earlier.
Result<Session> open_session(const RecipeFlags& flags, int64_t steps = 0, HostHooks hooks = {},
                             const WrapBackend& wrap = {});

}  // namespace tenon::cli
