// tenon profile: where the time of a recipe's training steps goes.
#include <nlohmann/json.hpp>

#include "core/train/step.h"
#include "tools/bench/profile_report.h"
#include "tools/tenon/commands.h"
#include "tools/tenon/session.h"

namespace tenon::cli {
namespace {

struct ProfileFlags : RecipeFlags {
  int64_t steps = 20;
  std::string trace;
  bool json = false;
};

int run_profile(const ProfileFlags& flags) {
  bench::Profile profile;
  const auto wrap = [&](std::unique_ptr<Backend> backend) { return profiled(std::move(backend), profile); };
  auto session = open_session(flags, 0, {}, wrap);
  if (!session) return report(session.status());
  Experiment& e = *session->experiment;
  Graph graph(e.runtime());
  const auto steps = profile_steps(e.runtime(), profile, flags.steps, [&](int64_t i) -> Status {
    auto r = training_step(e, graph, i);
    return r ? Status::ok() : std::move(r).status().at("step " + std::to_string(i + 1));
  });
  if (!steps) return report(steps.status());
  if (!flags.trace.empty())
    if (const Status s = profile.write_trace(flags.trace); !s.is_ok()) return report(s);
  const std::string text = flags.json ? json_of(profile, *steps).dump() + "\n" : table_of(profile, *steps);
  std::fputs(text.c_str(), stdout);
  return 0;
}

}  // namespace

void add_profile(CLI::App& app, Command& run) {
  auto flags = std::make_shared<ProfileFlags>();
  CLI::App* c = app.add_subcommand("profile", "Show where the time of training steps goes");
  flags->add_to(*c);
  c->add_option("--steps", flags->steps, "Steps that are measured")
      ->capture_default_str()
      ->check(at_least(1));
  c->add_option("--trace", flags->trace, "Write a trace for Perfetto or chrome://tracing to this file");
  c->add_flag("--json", flags->json, "One JSON object on stdout in place of the table");
  c->callback([flags, &run] { run = [flags] { return run_profile(*flags); }; });
}

}  // namespace tenon::cli
