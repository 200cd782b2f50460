// tenon train: from a recipe to a trained model and its run folder.
#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/train/fit.h"
#include "core/train/run_folder.h"
#include "tools/bench/measure.h"
#include "tools/tenon/commands.h"
#include "tools/tenon/progress.h"
#include "tools/tenon/session.h"

namespace tenon::cli {
namespace {

namespace fs = std::filesystem;

struct TrainFlags : RecipeFlags {
  std::string out;
  bool resume = false, json = false;
  int64_t steps = 0;
};

// runs/<name>, or the first of <name>-2, <name>-3, .. that holds no run yet; when resuming, the last that does.
std::string default_folder(const Recipe& recipe, bool resume) {
  std::string name = recipe.proto.name();
  if (name.empty()) name = fs::weakly_canonical(fs::path(recipe.dir.empty() ? "." : recipe.dir)).filename().string();
  const std::string base = "runs/" + (name.empty() ? "run" : name);
  const auto numbered = [&](int i) { return i == 1 ? base : base + "-" + std::to_string(i); };
  int i = 1;
  while (fs::exists(numbered(i) + "/metrics.jsonl")) ++i;
  return numbered(resume && i > 1 ? i - 1 : i);
}

int print(const Summary& s, bool json) {
  if (json) {
    const nlohmann::json j = {{"metrics", s.metrics}, {"steps", s.steps},  {"seconds", s.seconds},
                              {"step_ms", s.step_ms}, {"peak_mb", bench::peak_megabytes()}, {"checkpoint", s.checkpoint}};
    std::printf("%s\n", j.dump().c_str());
  } else if (!s.cancelled) {
    for (const auto& [name, value] : s.metrics) {
      const size_t slash = name.find('/');
      std::printf("%s %s: %.4g\n", name.substr(0, slash).c_str(), name.substr(slash + 1).c_str(), value);
    }
  }
  if (s.cancelled)
    std::fprintf(stderr, "tenon: stopped after step %lld; continue with --resume\n", static_cast<long long>(s.steps));
  return s.cancelled ? 1 : 0;
}

int train(const TrainFlags& flags) {
  Progress progress(flags.json ? stderr : stdout);
  HostHooks hooks{.log = [&](int32_t level, const std::string& text) { if (level >= TN_LOG_INFO) progress.on_message(text); },
                  .cancelled = [&] { return progress.cancelled(); }};
  auto session = open_session(flags, flags.steps, std::move(hooks));
  if (!session) return report(session.status());
  Experiment& e = *session->experiment;
  const std::string out = flags.out.empty() ? default_folder(e.recipe(), flags.resume) : flags.out;
  auto folder = RunFolder::open(out, flags.resume, e.recipe());
  if (!folder) return report(folder.status());
  int64_t first = 0;
  if (flags.resume) {
    auto step = folder->restore(e);
    if (!step) return report(step.status());
    first = *step;
    progress.on_message("continuing from " + folder->last_checkpoint() + " (step " + std::to_string(first) + ")");
  }
  Progress::catch_interrupts();
  auto summary = run_recipe(e, &*folder, progress, first);
  progress.finish();
  if (!summary) {
    folder->discard_if_unused();
    return report(summary.status());
  }
  return print(*summary, flags.json);
}

}  // namespace

void add_train(CLI::App& app, Command& run) {
  auto flags = std::make_shared<TrainFlags>();
  CLI::App* c = app.add_subcommand("train", "Train the model of a recipe");
  flags->add_to(*c);
  c->add_option("--out", flags->out, "Run folder (default: runs/<recipe's name>)");
  c->add_flag("--resume", flags->resume, "Continue from the run folder's last checkpoint");
  c->add_option("--steps", flags->steps, "Stop after this many steps")->check(at_least(1));
  c->add_flag("--json", flags->json, "End with one JSON object on stdout");
  c->callback([flags, &run] { run = [flags] { return train(*flags); }; });
}

}  // namespace tenon::cli
