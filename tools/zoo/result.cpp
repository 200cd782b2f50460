#include "tools/zoo/result.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "core/base/nearest.h"

namespace tenon::zoo {
namespace {

using Json = nlohmann::ordered_json;
using Claim = proto::ZooClaim;

std::string number(double v) {
  char text[32];
  std::snprintf(text, sizeof text, "%.10g", v);
  return text;
}

std::string statistic_name(const Claim& c) { return Claim::Statistic_Name(c.statistic()); }

double geometric_mean(const Sample& s) {
  Sample logs = s;
  for (double& v : logs.values) v = std::log(v);
  return std::exp(logs.mean());
}

double apply(Claim::Statistic statistic, const Sample& s) {
  switch (statistic) {
    case Claim::geometric_mean: return geometric_mean(s);
    case Claim::median: return s.median();
    case Claim::min: return s.min();
    case Claim::max: return s.max();
    case Claim::mean:
    case Claim::wins: break;
  }
  return s.mean();
}

// Over the differences, or ratios, of the runs that belong together; where the numbers of runs differ, between the statistics.
template <class Op>
double compare(Claim::Statistic statistic, const Sample& a, const Sample& b, Op op) {
  if (a.values.size() != b.values.size()) return op(apply(statistic, a), apply(statistic, b));
  Sample compared = a;
  for (size_t i = 0; i < b.values.size(); ++i) compared.values[i] = op(a.values[i], b.values[i]);
  return apply(statistic, compared);
}

double ratio(Claim::Statistic statistic, const Sample& a, const Sample& b) {
  if (statistic == Claim::mean) return a.mean() / b.mean();
  return compare(statistic, a, b, std::divides<>());
}

// Mean of each setting; jobs of a setting follow one another.
std::vector<double> setting_means(const Sample& s, int settings) {
  const size_t each = s.values.size() / static_cast<size_t>(settings);
  std::vector<double> means;
  for (size_t at = 0; at < s.values.size(); at += each)
    means.push_back(std::accumulate(s.values.begin() + static_cast<std::ptrdiff_t>(at), s.values.begin() + static_cast<std::ptrdiff_t>(at + each), 0.0) /
                    static_cast<double>(each));
  return means;
}

// What a claim is about: its metric of a run, in its setting if it names one.
Sample sample_of(const Description& d, const Claim& c, const Outcome& o, const std::string& run) {
  const Sample& all = o.run(run).metrics.at(c.metric());
  if (!c.has_setting()) return all;
  const auto& settings = d.proto.setting();
  const auto each = static_cast<std::ptrdiff_t>(all.values.size()) / settings.size();
  const auto first = all.values.begin() + each * (std::find(settings.begin(), settings.end(), c.setting()) - settings.begin());
  return {.values = {first, first + each}};
}

ClaimResult judge(const Description& d, const Claim& c, const Outcome& o) {
  ClaimResult r{.claim = c};
  const Sample a = sample_of(d, c, o, c.run());
  r.measured = apply(c.statistic(), a);
  if (c.has_minus()) {
    const Sample b = sample_of(d, c, o, c.minus());
    r.measured = compare(c.statistic(), a, b, std::minus<>());
    const int settings = c.has_setting() ? 0 : d.proto.setting_size();
    if (settings > 0 || a.values.size() == b.values.size()) {
      const auto x = settings > 0 ? setting_means(a, settings) : a.values, y = settings > 0 ? setting_means(b, settings) : b.values;
      for (size_t i = 0; i < x.size(); ++i) {
        // Means of the same numbers in another order may differ in the last digit.
        const bool tie = std::abs(x[i] - y[i]) <= 1e-12 * std::max({1.0, std::abs(x[i]), std::abs(y[i])});
        ++(tie ? r.ties : x[i] > y[i] ? r.wins : r.losses);
      }
    }
  }
  if (c.has_over()) r.measured = ratio(c.statistic(), a, sample_of(d, c, o, c.over()));
  if (c.statistic() == Claim::wins) r.measured = r.wins;
  r.reproduced = (!c.has_at_least() || r.measured >= c.at_least()) && (!c.has_at_most() || r.measured <= c.at_most());
  return r;
}

Json json_of(const ClaimResult& r) {
  const Claim& c = r.claim;
  Json j = {{"claim", c.text()}, {"statistic", statistic_name(c)}, {"metric", c.metric()}, {"run", c.run()}};
  if (c.has_minus()) j["minus"] = c.minus();
  if (c.has_over()) j["over"] = c.over();
  if (c.has_setting()) j["setting"] = c.setting();
  if (c.has_at_least()) j["at_least"] = c.at_least();
  if (c.has_at_most()) j["at_most"] = c.at_most();
  j["measured"] = r.measured;
  if (r.wins + r.ties + r.losses > 0) j["wins_ties_losses"] = {r.wins, r.ties, r.losses};
  j["verdict"] = r.reproduced ? "reproduced" : "not reproduced";
  return j;
}

}  // namespace

double Sample::mean() const { return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size()); }
double Sample::min() const { return *std::min_element(values.begin(), values.end()); }
double Sample::max() const { return *std::max_element(values.begin(), values.end()); }

double Sample::median() const {
  std::vector<double> v = values;
  std::sort(v.begin(), v.end());
  const size_t half = v.size() / 2;
  return v.size() % 2 == 1 ? v[half] : (v[half - 1] + v[half]) / 2;
}

double Sample::deviation() const {
  if (values.size() < 2) return 0;
  const double m = mean();
  double sum = 0;
  for (const double v : values) sum += (v - m) * (v - m);
  return std::sqrt(sum / static_cast<double>(values.size() - 1));
}

bool Outcome::reproduced() const {
  return std::all_of(claims.begin(), claims.end(), [](const ClaimResult& c) { return c.reproduced; });
}

const RunResult& Outcome::run(const std::string& wanted) const {
  return *std::find_if(runs.begin(), runs.end(), [&](const RunResult& r) { return r.name == wanted; });
}

Json Outcome::json() const {
  Json j = {{"slug", slug}, {"name", name}, {"statement", statement}, {"source", source}};
  j["verdict"] = reproduced() ? "reproduced" : "not reproduced";
  j["claims"] = Json::array();
  for (const ClaimResult& c : claims) j["claims"].push_back(json_of(c));
  j["runs"] = Json::array();
  for (const RunResult& r : runs) {
    Json metrics = Json::object();
    for (const auto& [metric, s] : r.metrics)
      metrics[metric] = {{"mean", s.mean()}, {"median", s.median()}, {"deviation", s.deviation()}, {"values", s.values}};
    j["runs"].push_back({{"run", r.name}, {"of", r.jobs}, {"metrics", metrics}});
  }
  return j;
}

Status check_metrics(const Description& d, const Job& job, const MetricValues& metrics) {
  const std::string& run = d.proto.run(job.run).name();
  const auto check = [&](const std::string& metric) -> Status {
    if (metrics.contains(metric)) return Status::ok();
    std::vector<std::string> names;
    for (const auto& [name, value] : metrics) names.push_back(name);
    return invalid("run '" + job.name(d) + "' has no metric '" + metric + "'" + did_you_mean(metric, names));
  };
  for (int i = 0; i < d.proto.claim_size(); ++i) {
    const Claim& c = d.proto.claim(i);
    if (c.run() == run || c.minus() == run || c.over() == run) TN_RETURN_IF_ERROR(check(c.metric()).at(d.where_claim(i)));
  }
  for (int i = 0; i < d.proto.curve_size(); ++i)
    for (const auto& line : d.proto.curve(i).line())
      if (std::find(line.run().begin(), line.run().end(), run) != line.run().end())
        TN_RETURN_IF_ERROR(check(d.proto.curve(i).metric()).at(d.where_curve(i)));
  return Status::ok();
}

Result<Outcome> outcome_of(const Description& d, const std::vector<Job>& jobs, const std::vector<MetricValues>& metrics) {
  const proto::Zoo& z = d.proto;
  Outcome o{.slug = d.slug, .name = z.name(), .statement = z.statement(), .source = z.source(), .runs = {}, .claims = {}, .curves = {z.curve().begin(), z.curve().end()}};
  for (const proto::ZooRun& run : z.run()) o.runs.push_back({.name = run.name(), .jobs = {}, .metrics = {}});
  for (size_t i = 0; i < jobs.size(); ++i) {
    TN_RETURN_IF_ERROR(check_metrics(d, jobs[i], metrics[i]));
    RunResult& run = o.runs[static_cast<size_t>(jobs[i].run)];
    const std::string job = jobs[i].name(d);
    run.jobs.push_back(job.size() > run.name.size() ? job.substr(run.name.size() + 2) : "");
    for (const auto& [name, value] : metrics[i]) run.metrics[name].values.push_back(value);
  }
  // Timings differ from machine to machine; what no claim or curve is about is not kept.
  for (RunResult& run : o.runs) {
    std::erase_if(run.metrics, [&](const auto& m) {
      const auto about_it = [&](const auto& c) { return c.metric() == m.first; };
      const bool wanted = std::any_of(z.claim().begin(), z.claim().end(), about_it) || std::any_of(z.curve().begin(), z.curve().end(), about_it);
      return m.second.values.size() != run.jobs.size() || !(wanted || m.first.starts_with("test/") || m.first.starts_with("val/"));
    });
  }
  for (const Claim& c : z.claim()) o.claims.push_back(judge(d, c, o));
  return o;
}

std::string condition(const Claim& c) {
  const std::string who = c.run() + (c.has_minus() ? " - " + c.minus() : c.has_over() ? " / " + c.over() : "");
  std::string s = c.statistic() == Claim::wins ? "wins of " + c.run() + " over " + c.minus() + " in " + c.metric()
                                               : (c.statistic() == Claim::mean ? "" : statistic_name(c) + " ") + c.metric() + " of " + who;
  if (c.has_setting()) s += ", " + c.setting() + ",";
  if (c.has_at_least()) s += " ≥ " + number(c.at_least());
  if (c.has_at_most()) s += std::string(c.has_at_least() ? ", " : " ") + "≤ " + number(c.at_most());
  return s;
}

}  // namespace tenon::zoo
