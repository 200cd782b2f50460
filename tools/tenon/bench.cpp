// tenon bench: how long the steps of eight workloads take.
#include <nlohmann/json.hpp>

#include "tools/bench/check.h"
#include "tools/bench/measure.h"
#include "tools/bench/process.h"
#include "tools/bench/profile_report.h"
#include "tools/tenon/commands.h"
#include "tools/tenon/session.h"

namespace tenon::cli {
namespace {

struct BenchFlags : RecipeFlags {
  std::vector<std::string> workloads;
  bool json = false, profile = false;
  double seconds = 3;
  BenchFlags() { threads = 2; }
};

Result<bench::Measured> run_here(const BenchFlags& flags, const bench::WorkloadInfo& info) {
  TN_ASSIGN(auto catalog, open_catalog(flags));
  TN_ASSIGN(auto runtime, make_runtime("cpu", flags.threads));
  auto workload = info.make(*runtime, *catalog);
  if (!workload) return std::move(workload).status().at(info.name);
  TN_RETURN_IF_ERROR(check_against_torch(info, **workload));
  return measure(*runtime, **workload, flags.seconds);
}

void print(const bench::WorkloadInfo& info, const bench::Measured& m, const BenchFlags& flags) {
  if (flags.json) {
    const nlohmann::ordered_json line = {
        {"peer", "tenon"},      {"workload", info.name},        {"ms", m.ms},
        {"steps", m.steps},     {"peak_mb", m.peak_mb},         {"arena_mb", m.arena_mb},
        {"kernels", m.kernels}, {"plan_misses", m.plan_misses}, {"threads", flags.threads}};
    std::printf("%s\n", line.dump().c_str());
  } else {
    std::printf("%-14s %10.3f ms %8.0f MB  %s\n", std::string(info.name).c_str(), m.ms, m.peak_mb,
                std::string(info.what).c_str());
  }
  std::fflush(stdout);
}

// Where the time of a workload's steps goes.
int run_profile(const BenchFlags& flags, const bench::WorkloadInfo& info) {
  bench::Profile profile;
  const auto table = [&]() -> Result<std::string> {
    TN_ASSIGN(auto catalog, open_catalog(flags));
    TN_ASSIGN(auto runtime, make_runtime("cpu", flags.threads, [&](std::unique_ptr<Backend> backend) {
                return profiled(std::move(backend), profile);
              }));
    TN_ASSIGN(auto workload, info.make(*runtime, *catalog));
    TN_ASSIGN(const auto steps,
              profile_steps(*runtime, profile, 20, [&](int64_t) { return workload->step(); }));
    return flags.json ? json_of(profile, steps).dump() + "\n" : table_of(profile, steps);
  }();
  if (!table) return report(table.status());
  std::fputs(table->c_str(), stdout);
  return 0;
}

// Each in a process of its own, so that its peak memory is its own.
int run_in_children(const BenchFlags& flags, const std::vector<const bench::WorkloadInfo*>& chosen) {
  int worst = 0;
  for (const bench::WorkloadInfo* w : chosen) {
    std::vector<std::string> command{
        bench::this_program(),         "bench",     std::string(w->name),         "--threads",
        std::to_string(flags.threads), "--seconds", std::to_string(flags.seconds)};
    if (flags.json) command.push_back("--json");
    if (flags.profile) command.push_back("--profile");
    for (const std::string& f : flags.plugins) command.insert(command.end(), {"--plugin", f});
    for (const std::string& d : flags.plugin_paths) command.insert(command.end(), {"--plugin-path", d});
    const auto child = bench::run_program(command);
    if (!child) return report(child.status());
    std::fputs(child->out.c_str(), stdout);
    std::fflush(stdout);
    worst = std::max(worst, child->code);
  }
  return worst;
}

int run_bench(const BenchFlags& flags) {
  std::vector<const bench::WorkloadInfo*> chosen;
  for (const std::string& name : flags.workloads) {
    const auto w = bench::find_workload(name);
    if (!w) return report(w.status());
    chosen.push_back(*w);
  }
  if (chosen.empty())
    for (const bench::WorkloadInfo& w : bench::workloads()) chosen.push_back(&w);
  if (chosen.size() > 1) return run_in_children(flags, chosen);
  if (flags.profile) return run_profile(flags, *chosen[0]);
  const auto measured = run_here(flags, *chosen[0]);
  if (!measured) return report(measured.status());
  print(*chosen[0], *measured, flags);
  return 0;
}

}  // namespace

void add_bench(CLI::App& app, Command& run) {
  auto flags = std::make_shared<BenchFlags>();
  CLI::App* c = app.add_subcommand("bench", "Time the training steps of eight workloads");
  c->add_option("workload", flags->workloads, "Which (default: all)");
  c->add_flag("--json", flags->json, "One JSON object a workload, a line each");
  c->add_option("--threads", flags->threads, "Threads")->capture_default_str()->check(at_least(1));
  c->add_option("--seconds", flags->seconds, "How long each is measured")
      ->capture_default_str()
      ->check(at_least(0));
  c->add_flag("--profile", flags->profile, "Show where the time of each goes instead");
  flags->add_plugins_to(*c);
  c->callback([flags, &run] { run = [flags] { return run_bench(*flags); }; });
}

}  // namespace tenon::cli
