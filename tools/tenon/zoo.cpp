// tenon zoo: runs the experiments of a zoo folder and says whether their claims were reproduced.
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <deque>
#include <numeric>

#include "core/data/files.h"
#include "core/train/fit.h"
#include "tools/tenon/commands.h"
#include "tools/tenon/progress.h"
#include "tools/tenon/session.h"
#include "tools/zoo/journal.h"
#include "tools/zoo/report.h"

namespace tenon::cli {
namespace {

struct ZooFlags : RecipeFlags {
  std::string zoo = "models", slug, out, results = "runs/zoo";
  std::vector<int64_t> seeds;
};

// Watches one of many runs: a redrawn line on a terminal, and what the plugins report, for the claims.
class RunWatch : public Progress {
 public:
  RunWatch(std::string what, MetricValues& metrics) : Progress(stderr), what_(std::move(what)), metrics_(metrics) {}

  void on_step(const StepInfo& s) override {
    for (const auto& [name, value] : s.parts) {
      const auto last = metrics_.find("step/" + name);
      if (last != metrics_.end()) {
        const auto [rise, first] = metrics_.emplace("rise/" + name, value - last->second);
        if (!first) rise->second = std::max(rise->second, value - last->second);
      }
      metrics_["step/" + name] = value;
      double& mean = metrics_["mean/" + name];
      mean += (value - mean) / static_cast<double>(++seen_[name]);
      std::deque<double>& last_values = last_[name];
      last_values.push_back(value);
      if (last_values.size() > 100) last_values.pop_front();
    }
    if (isatty(fileno(stderr)) == 0) return;
    if (s.step == 1) Progress::on_message(what_);
    Progress::on_step(s);
  }
  // Adds what is known only after the last step.
  void finish_metrics() {
    for (const auto& [name, values] : last_)
      metrics_["last_100/" + name] = std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
  }
  void on_evaluation(int64_t, const MetricValues&) override {}
  void on_message(const std::string&) override {}

 private:
  std::string what_;
  MetricValues& metrics_;
  std::map<std::string, int64_t> seen_;            // steps that reported it
  std::map<std::string, std::deque<double>> last_;  // at most 100 values of it
};

Result<MetricValues> run_job(const ZooFlags& flags, Catalog& catalog, zoo::Job& job, const std::string& what) {
  proto::Recipe& recipe = job.recipe.proto;
  if (!flags.device.empty()) recipe.set_device(flags.device);
  if (flags.threads > 0) recipe.set_threads(flags.threads);
  TN_ASSIGN(const auto runtime, make_runtime(recipe.device(), static_cast<int>(recipe.threads())));
  TN_ASSIGN(const auto experiment, Experiment::open(*runtime, catalog, job.recipe, data_root_from_environment()));
  MetricValues metrics;
  RunWatch watch(what, metrics);
  TN_ASSIGN(const Summary summary, run_recipe(*experiment, nullptr, watch));
  watch.finish();
  watch.finish_metrics();
  if (summary.cancelled) return cancelled("stopped; the same command goes on with the runs that are left");
  metrics.insert(summary.metrics.begin(), summary.metrics.end());
  metrics["seconds"] = summary.seconds;
  metrics["step_ms"] = summary.step_ms;
  std::erase_if(metrics, [](const auto& m) { return !std::isfinite(m.second); });
  return metrics;
}

// The claims' metrics of one run, in a line.
std::string figures(const zoo::Description& d, const zoo::Job& job, const MetricValues& metrics) {
  std::string s;
  for (const proto::ZooClaim& c : d.proto.claim()) {
    const std::string& run = d.proto.run(job.run).name();
    if ((c.run() != run && c.minus() != run && c.over() != run) || s.find(" " + c.metric() + " ") != std::string::npos) continue;
    char text[32];
    std::snprintf(text, sizeof text, "%.6g", metrics.at(c.metric()));
    s += "  " + c.metric() + " " + text;
  }
  return s;
}

Result<zoo::Outcome> run_all(const ZooFlags& flags, const std::string& out) {
  TN_ASSIGN(const zoo::Description d, zoo::load_description(flags.zoo, flags.slug));
  TN_ASSIGN(auto jobs, zoo::jobs_of(d, flags.seeds));
  TN_ASSIGN(const auto catalog, open_catalog(flags));
  TN_ASSIGN(auto journal, zoo::Journal::open(out));
  Progress::catch_interrupts();
  std::vector<MetricValues> all;
  size_t kept = 0;
  for (zoo::Job& job : jobs) {
    const MetricValues* done = journal.find(job);
    if (done) {
      ++kept;
    } else {
      const std::string what = "[" + std::to_string(all.size() + 1) + "/" + std::to_string(jobs.size()) + "] " + job.name(d);
      auto metrics = run_job(flags, *catalog, job, what);
      if (!metrics) {
        if (metrics.status().code() == Code::cancelled) return metrics.status();
        return std::move(metrics).status().at(d.where_run(job.run) + ": run '" + job.name(d) + "'");
      }
      TN_RETURN_IF_ERROR(zoo::check_metrics(d, job, *metrics));
      TN_RETURN_IF_ERROR(journal.add(d, job, *metrics));
      done = journal.find(job);
      std::fprintf(stderr, "%s:%s  (%s)\n", what.c_str(), figures(d, job, *done).c_str(), duration(done->at("seconds")).c_str());
    }
    all.push_back(*done);
  }
  if (kept > 0) std::fprintf(stderr, "%zu of %zu runs were done already (%s/runs.jsonl)\n", kept, jobs.size(), out.c_str());
  return zoo::outcome_of(d, jobs, all);
}

int run_zoo(const ZooFlags& flags) {
  const std::string out = flags.out.empty() ? flags.results + "/" + flags.slug : flags.out;
  const auto outcome = run_all(flags, out);
  if (!outcome) return report(outcome.status());
  if (const Status s = zoo::write(*outcome, out); !s.is_ok()) return report(s);
  std::printf("%s\nWritten to %s: result.md, result.json, plots.\n", zoo::table(*outcome).c_str(), out.c_str());
  return 0;
}

Result<std::vector<zoo::Description>> all_of(const ZooFlags& flags) {
  TN_ASSIGN(const auto names, zoo::slugs(flags.zoo));
  std::vector<zoo::Description> all;
  for (const std::string& name : names) {
    TN_ASSIGN(auto d, zoo::load_description(flags.zoo, name));
    all.push_back(std::move(d));
  }
  return all;
}

int list_zoo(const ZooFlags& flags) {
  const auto all = all_of(flags);
  if (!all) return report(all.status());
  for (const zoo::Description& d : *all) {
    const auto jobs = zoo::jobs_of(d, {});
    if (!jobs) return report(jobs.status());
    std::printf("%-20s %-40s %4zu runs  %2d claims\n", d.slug.c_str(), d.proto.name().c_str(), jobs->size(), d.proto.claim_size());
  }
  return 0;
}

int report_zoo(const ZooFlags& flags) {
  const auto all = all_of(flags);
  if (!all) return report(all.status());
  const auto text = zoo::overview(*all, flags.results);
  if (!text) return report(text.status());
  std::fputs(text->c_str(), stdout);
  return 0;
}

}  // namespace

void add_zoo(CLI::App& app, Command& run) {
  auto flags = std::make_shared<ZooFlags>();
  CLI::App* c = app.add_subcommand("zoo", "Run the experiments of a zoo folder: are their claims reproduced?");
  c->require_subcommand(1);
  const auto with_folder = [&](CLI::App* sub) {
    sub->add_option("--zoo", flags->zoo, "Folder of the zoo")->capture_default_str();
    return sub;
  };
  CLI::App* list = with_folder(c->add_subcommand("list", "What there is"));
  list->callback([flags, &run] { run = [flags] { return list_zoo(*flags); }; });

  CLI::App* one = with_folder(c->add_subcommand("run", "Run all, and write table, plots and verdicts; what is done already is kept"));
  one->add_option("slug", flags->slug, "Which")->required();
  one->add_option("--seeds", flags->seeds, "In place of the description's: --seeds 0,1,2")->delimiter(',');
  one->add_option("--out", flags->out, "Folder for the results (default: runs/zoo/<slug>)");
  one->add_option("--threads", flags->threads, "Threads (default: the recipe's, else all cores)")->check(at_least(1));
  one->add_option("--device", flags->device, "cpu or reference (default: the recipe's)");
  flags->add_plugins_to(*one);
  one->callback([flags, &run] { run = [flags] { return run_zoo(*flags); }; });

  CLI::App* all = with_folder(c->add_subcommand("report", "The verdicts on all methods, from the results that are there"));
  all->add_option("--results", flags->results, "Folder with results, before those kept in the zoo")->capture_default_str();
  all->callback([flags, &run] { run = [flags] { return report_zoo(*flags); }; });
}

}  // namespace tenon::cli
