// tenon bench: how long the steps of its workloads take.
#include <cstdlib>
#include <iostream>
#include <nlohmann/json.hpp>
#include <utility>

#include "tools/bench/check.h"
#include "tools/bench/compare.h"
#include "tools/bench/measure.h"
#include "tools/bench/precisions.h"
#include "tools/bench/process.h"
#include "tools/bench/profile_report.h"
#include "tools/bench/scaling.h"
#include "tools/tenon/commands.h"
#include "tools/tenon/session.h"

namespace tenon::cli {
namespace {

struct BenchFlags : RecipeFlags {
  std::vector<std::string> workloads;
  bool json = false, profile = false, compare = false, scaling = false, precisions = false, brief = false,
       serve = false;
  double seconds = 3;
  int rounds = 5;
  std::string out = "runs/bench", precision = "f32";
  BenchFlags() { threads = 2; }

  // The command line that asks another process for the same.
  std::vector<std::string> command(std::initializer_list<std::string> more) const {
    std::vector<std::string> c{bench::this_program(),   "bench",       "--threads",
                               std::to_string(threads), "--precision", precision};
    for (const std::string& f : plugins) c.insert(c.end(), {"--plugin", f});
    for (const std::string& d : plugin_paths) c.insert(c.end(), {"--plugin-path", d});
    c.insert(c.end(), more);
    return c;
  }
};

// A workload, and what it stands on.
struct Ready {
  std::unique_ptr<Catalog> catalog;
  std::unique_ptr<Runtime> runtime;
  std::unique_ptr<bench::Workload> workload;
};

Result<Ready> make_ready(const BenchFlags& flags, const bench::WorkloadInfo& info,
                         const WrapBackend& wrap = {}) {
  Ready r;
  TN_ASSIGN(r.catalog, open_catalog(flags));
  TN_ASSIGN(r.runtime, make_runtime("cpu", flags.threads, wrap));
  auto workload = info.make({*r.runtime, *r.catalog, flags.precision});
  if (!workload) return std::move(workload).status().at(info.name);
  r.workload = std::move(workload).value();
  return r;
}

nlohmann::ordered_json to_json(const bench::WorkloadInfo& info, const bench::Measured& m,
                               const BenchFlags& flags) {
  return {{"peer", "tenon"},
          {"workload", info.name},
          {"ms", m.ms},
          {"steps", m.steps},
          {"peak_mb", m.peak_mb},
          {"arena_mb", m.arena_mb},
          {"kernels", m.kernels},
          {"plan_misses", m.plan_misses},
          {"threads", flags.threads},
          {"precision", flags.precision}};
}

int run_one(const BenchFlags& flags, const bench::WorkloadInfo& info) {
  const auto measured = [&]() -> Result<bench::Measured> {
    TN_ASSIGN(const Ready r, make_ready(flags, info));
    TN_RETURN_IF_ERROR(check_against_torch(info, *r.workload, flags.precision));
    return measure(*r.runtime, *r.workload, flags.seconds);
  }();
  if (!measured) return report(measured.status());
  if (flags.json)
    std::printf("%s\n", to_json(info, *measured, flags).dump().c_str());
  else
    std::printf("%-14s %10.3f ms %8.0f MB  %s\n", std::string(info.name).c_str(), measured->ms,
                measured->peak_mb, std::string(info.what).c_str());
  return 0;
}

// Where the time of a workload's steps goes.
Result<std::string> profile(const BenchFlags& flags, const bench::WorkloadInfo& info) {
  bench::Profile profile;
  const auto wrap = [&](std::unique_ptr<Backend> backend) { return profiled(std::move(backend), profile); };
  TN_ASSIGN(const Ready r, make_ready(flags, info, wrap));
  TN_ASSIGN(const auto steps,
            profile_steps(*r.runtime, profile, 20, [&](int64_t) { return r.workload->step(); }));
  if (!flags.json)
    return std::string(info.name) + ": " + std::string(info.what) + "\n\n" + table_of(profile, steps);
  nlohmann::ordered_json line = {{"workload", info.name}};
  line.update(json_of(profile, steps));
  return line.dump() + "\n";
}

// Answers the requests of --compare: "step" takes one, "measure SECONDS" times some, after a check of the
// first three.
int serve(const BenchFlags& flags, const bench::WorkloadInfo& info) {
  auto ready = make_ready(flags, info);
  bool checked = false;
  for (std::string request; std::getline(std::cin, request);) {
    const auto answer = [&]() -> Result<nlohmann::ordered_json> {
      if (!ready) return ready.status();
      if (request == "step") {
        TN_RETURN_IF_ERROR(ready->workload->step());
        return nlohmann::ordered_json::object();
      }
      if (!std::exchange(checked, true))
        TN_RETURN_IF_ERROR(check_against_torch(info, *ready->workload, flags.precision));
      const double seconds = std::strtod(request.substr(request.find(' ') + 1).c_str(), nullptr);
      TN_ASSIGN(const bench::Measured m, measure(*ready->runtime, *ready->workload, seconds));
      return to_json(info, m, flags);
    }();
    const auto line = answer ? *answer : nlohmann::ordered_json{{"error", answer.status().message()}};
    std::printf("%s\n", line.dump().c_str());
    std::fflush(stdout);
  }
  return 0;
}

using Chosen = std::vector<const bench::WorkloadInfo*>;

// Each in a process of its own, so that its peak memory is its own.
int run_in_children(const BenchFlags& flags, const Chosen& chosen) {
  int worst = 0;
  for (const bench::WorkloadInfo* w : chosen) {
    auto command = flags.command({std::string(w->name), "--seconds", std::to_string(flags.seconds)});
    if (flags.json) command.push_back("--json");
    if (flags.profile) command.push_back("--profile");
    const auto child = bench::Child::start(command);
    if (!child) return report(child.status());
    std::fputs((*child)->read_all().c_str(), stdout);
    std::fflush(stdout);
    worst = std::max(worst, (*child)->wait());
  }
  return worst;
}

void show_progress(const std::string& what) { std::fprintf(stderr, "%s\n", what.c_str()); }

int print(const Result<std::string>& text) {
  if (!text) return report(text.status());
  std::fputs(text->c_str(), stdout);
  return 0;
}

int run_compare(const BenchFlags& flags, const Chosen& chosen) {
  const char* python = std::getenv("TENON_PEERS_PYTHON");
  return print(bench::compare({.workloads = chosen,
                               .tenon = flags.command({"--serve"}),
                               .python = python ? python : "",
                               .threads = flags.threads,
                               .rounds = flags.rounds,
                               .seconds = flags.seconds,
                               .folder = flags.out,
                               .progress = show_progress}));
}

int run_precisions(const BenchFlags& flags, const Chosen& chosen) {
  BenchFlags full = flags, mixed = flags;
  full.precision = "f32";
  mixed.precision = "bf16";
  return print(bench::compare_precisions({.workloads = chosen,
                                          .f32 = full.command({"--serve"}),
                                          .bf16 = mixed.command({"--serve"}),
                                          .rounds = flags.rounds,
                                          .seconds = flags.seconds}));
}

int run_scaling(const BenchFlags& flags) {
  const auto catalog = open_catalog(flags);
  if (!catalog) return report(catalog.status());
  return print(bench::scaling(**catalog, {.threads = flags.threads,
                                          .seconds = flags.seconds,
                                          .brief = flags.brief,
                                          .folder = flags.out,
                                          .progress = show_progress}));
}

int run_bench(const BenchFlags& flags) {
  Chosen chosen;
  for (const std::string& name : flags.workloads) {
    const auto w = bench::find_workload(name);
    if (!w) return report(w.status());
    chosen.push_back(*w);
  }
  if (chosen.empty())
    for (const bench::WorkloadInfo& w : bench::workloads()) chosen.push_back(&w);
  if (flags.serve) return serve(flags, *chosen[0]);
  if (flags.compare) return run_compare(flags, chosen);
  if (flags.scaling) return run_scaling(flags);
  if (flags.precisions) return run_precisions(flags, chosen);
  if (chosen.size() > 1) return run_in_children(flags, chosen);
  return flags.profile ? print(profile(flags, *chosen[0])) : run_one(flags, *chosen[0]);
}

}  // namespace

void add_bench(CLI::App& app, Command& run) {
  auto flags = std::make_shared<BenchFlags>();
  CLI::App* c = app.add_subcommand("bench", "Time whole training steps");
  c->add_option("workload", flags->workloads, "Which (default: all)");
  c->add_flag("--json", flags->json, "One JSON object a workload, a line each");
  c->add_option("--threads", flags->threads, "Threads")->capture_default_str()->check(at_least(1));
  c->add_option("--precision", flags->precision, "f32, or bf16 (matrix products and convolutions in bf16)")
      ->capture_default_str()
      ->check(CLI::IsMember({"f32", "bf16"}));
  c->add_option("--seconds", flags->seconds, "How long each is measured (in each round)")
      ->capture_default_str()
      ->check(at_least(0));
  const auto modes = {
      c->add_flag("--profile", flags->profile, "Show where the time of each goes instead"),
      c->add_flag(
          "--compare", flags->compare,
          "Measure PyTorch and JAX in turns with Tenon; TENON_PEERS_PYTHON names a Python that has them"),
      c->add_flag("--scaling", flags->scaling,
                  "Show how steps grow with batch, width, depth, vocabulary and experts"),
      c->add_flag("--precisions", flags->precisions,
                  "Measure f32 and bf16 in turns, and how much faster bf16 is")};
  for (CLI::Option* a : modes)
    for (CLI::Option* b : modes)
      if (a != b) a->excludes(b);
  c->add_flag("--brief", flags->brief, "Only the two smallest sizes of each series of --scaling");
  c->add_option("--rounds", flags->rounds, "Turns that each takes in a comparison")
      ->capture_default_str()
      ->check(at_least(1));
  c->add_option("--out", flags->out, "Folder for tables and plots")->capture_default_str();
  c->add_flag("--serve", flags->serve)->group("");  // for --compare's own processes
  flags->add_plugins_to(*c);
  c->callback([flags, &run] { run = [flags] { return run_bench(*flags); }; });
}

}  // namespace tenon::cli
