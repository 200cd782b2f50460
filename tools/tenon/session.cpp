#include "tools/tenon/session.h"

#include <sys/auxv.h>

#include <cstdlib>
#include <filesystem>
#include <sstream>
#include <thread>

#include "backends/cpu/cpu.h"
#include "backends/reference/reference.h"
#include "core/base/nearest.h"
#include "core/data/files.h"
#include "core/plan/passes.h"
#include "tools/tenon/commands.h"

namespace tenon::cli {

namespace fs = std::filesystem;

namespace {

const char* environment(const char* name) {
  return getauxval(AT_SECURE) != 0 ? nullptr : std::getenv(name);
}

}  // namespace

void RecipeFlags::add_plugins_to(CLI::App& app) {
  app.add_option("--plugin", plugins, "Load this plugin file (may be repeated)")->allow_extra_args(false);
  app.add_option("--plugin-path", plugin_paths, "Look for plugins in this folder (may be repeated)")->allow_extra_args(false);
}

void RecipeFlags::add_to(CLI::App& app) {
  app.add_option("recipe", recipe, "Recipe file (.txtpb), or a folder that holds recipe.txtpb")->required();
  app.add_option("--set", sets, "Override a field: --set train.epochs=5 (may be repeated)")->allow_extra_args(false);
  app.add_option("--threads", threads, "Threads (default: the recipe's, else all cores)")->check(at_least(1));
  app.add_option("--device", device, "cpu or reference (default: the recipe's)");
  add_plugins_to(app);
}

Result<std::unique_ptr<Catalog>> open_catalog(const RecipeFlags& flags, HostHooks hooks) {
  auto catalog = std::make_unique<Catalog>(std::move(hooks));
  for (const std::string& f : flags.plugins) TN_RETURN_IF_ERROR(catalog->add_file(f));
  for (const std::string& d : flags.plugin_paths) TN_RETURN_IF_ERROR(catalog->add_folder(d));
  if (const char* path = environment("TENON_PLUGIN_PATH")) {
    std::istringstream folders(path);
    for (std::string d; std::getline(folders, d, ':');)
      if (!d.empty()) TN_RETURN_IF_ERROR(catalog->add_folder(d));
  }
  std::error_code ec;
  const fs::path program = fs::read_symlink("/proc/self/exe", ec);
  for (const char* place : {"plugins", "../lib/tenon/plugins"}) {
    const fs::path folder = program.parent_path() / place;
    if (fs::is_directory(folder, ec)) TN_RETURN_IF_ERROR(catalog->add_folder(folder.lexically_normal().string()));
  }
  return catalog;
}

Result<std::unique_ptr<Backend>> make_backend(const std::string& device, const RuntimeOptions& options) {
  if (device == "cpu") return make_cpu_backend(options.pass_native);
  if (device == "reference") return make_reference_backend();
  if (device == "cuda") return unsupported("device 'cuda': this build has no CUDA backend (there are: cpu, reference)");
  return invalid("unknown device '" + device + "'" + did_you_mean(device, std::vector<std::string>{"cpu", "reference", "cuda"}));
}

Result<std::unique_ptr<Runtime>> make_runtime(const std::string& device, int threads, const WrapBackend& wrap) {
  RuntimeOptions options;
  if (const char* eager = environment("TENON_EAGER")) options.eager = std::string_view(eager) == "1";
  if (const char* passes = environment("TENON_PASSES"))
    if (Status st = set_passes(options, passes); !st.is_ok()) return std::move(st).at("TENON_PASSES");
  TN_ASSIGN(auto backend, make_backend(device, options));
  if (wrap) backend = wrap(std::move(backend));
  const auto cores = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  backend->set_threads(threads > 0 ? threads : cores);
  return std::make_unique<Runtime>(std::move(backend), options);
}

Result<Session> open_session(const RecipeFlags& flags, int64_t steps, HostHooks hooks, const WrapBackend& wrap) {
  Session s;
  TN_ASSIGN(Recipe recipe, load_recipe(flags.recipe, flags.sets));
  if (!flags.device.empty()) recipe.proto.set_device(flags.device);
  if (flags.threads > 0) recipe.proto.set_threads(flags.threads);
  auto runtime = make_runtime(recipe.proto.device(), static_cast<int>(recipe.proto.threads()), wrap);
  if (!runtime) return std::move(runtime).status().at(recipe.where("device"));
  s.runtime = std::move(runtime).value();
  TN_ASSIGN(s.catalog, open_catalog(flags, std::move(hooks)));
  TN_ASSIGN(s.experiment, Experiment::open(*s.runtime, *s.catalog, std::move(recipe), data_root_from_environment()));
  if (steps > 0) s.experiment->limit_steps(steps);
  return s;
}

}  // namespace tenon::cli
