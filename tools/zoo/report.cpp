#include "tools/zoo/report.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <set>

#include "core/io/file.h"
#include "tools/plot/chart.h"

namespace tenon::zoo {
namespace {

namespace fs = std::filesystem;

std::string number(double v) {
  char text[32];
  std::snprintf(text, sizeof text, v != 0 && std::abs(v) < 1e-3 ? "%.3g" : "%.4f", v);
  return v == std::floor(v) && std::abs(v) < 1e6 ? std::to_string(static_cast<long long>(v)) : text;
}

// Characters that a Markdown table would take for its own.
std::string cell(const std::string& text) {
  std::string out;
  for (const char c : text) out += c == '|' ? std::string("\\|") : c == '\n' ? std::string(" ") : std::string(1, c);
  return out;
}

std::vector<std::string> claimed_metrics(const Outcome& o) {
  std::vector<std::string> names;
  for (const ClaimResult& c : o.claims)
    if (std::find(names.begin(), names.end(), c.claim.metric()) == names.end()) names.push_back(c.claim.metric());
  return names;
}

std::string claims_table(const Outcome& o) {
  std::string s = "| claim | asked | measured | verdict |\n|---|---|---:|---|\n";
  for (const ClaimResult& c : o.claims) {
    std::string measured = number(c.measured);
    if (c.claim.statistic() == proto::ZooClaim::wins) measured += " (" + std::to_string(c.ties) + " ties, " + std::to_string(c.losses) + " losses)";
    s += "| " + cell(c.claim.text()) + " | " + cell(condition(c.claim)) + " | " + measured + " | " +
         (c.reproduced ? "reproduced" : "**not reproduced**") + " |\n";
  }
  return s;
}

std::string runs_table(const Outcome& o) {
  const auto metrics = claimed_metrics(o);
  std::string s = "| run |", rule = "|---|";
  for (const std::string& m : metrics) s += " " + cell(m) + " |", rule += "---:|";
  s += " runs |\n" + rule + "---:|\n";
  for (const RunResult& r : o.runs) {
    s += "| " + cell(r.name) + " |";
    for (const std::string& m : metrics) {
      const auto it = r.metrics.find(m);
      s += " " + (it == r.metrics.end() ? "" : number(it->second.mean()) + (r.jobs.size() > 1 ? " ± " + number(it->second.deviation()) : "")) + " |";
    }
    s += " " + std::to_string(r.jobs.size()) + " |\n";
  }
  return s;
}

}  // namespace

std::string table(const Outcome& o) {
  std::string s = "# " + o.name + ": " + (o.reproduced() ? "reproduced" : "not reproduced") + "\n\n";
  if (!o.statement.empty()) s += o.statement + "\n\n";
  if (!o.source.empty()) s += "Source: " + o.source + "\n\n";
  return s + claims_table(o) + "\nMean ± standard deviation over the runs:\n\n" + runs_table(o);
}

std::map<std::string, std::string> plots(const Outcome& o) {
  std::map<std::string, std::string> files;
  for (const std::string& metric : claimed_metrics(o)) {
    plot::BarChart chart{.title = o.name, .subtitle = "mean of all runs", .axis = metric, .categories = {}, .series = {{metric, {}}}};
    for (const RunResult& r : o.runs) {
      const auto it = r.metrics.find(metric);
      if (it == r.metrics.end()) continue;
      chart.categories.push_back(r.name);
      chart.series[0].values.push_back(it->second.mean());
    }
    for (const ClaimResult& c : o.claims)  // the bound, where it is one on the bars themselves
      if (c.claim.metric() == metric && !c.claim.has_minus() && !c.claim.has_over() && !c.claim.has_setting())
        chart.mark = c.claim.has_at_least() ? c.claim.at_least() : c.claim.at_most();
    std::string file = metric;
    for (char& c : file)
      if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
    files[file + ".svg"] = chart.svg();
  }
  for (const proto::ZooCurve& curve : o.curves) {
    plot::LineChart chart{.title = curve.title().empty() ? o.name : curve.title(), .subtitle = "mean of all runs", .x_axis = curve.x_axis(),
                          .y_axis = curve.metric(), .log_x = true, .log_y = true, .series = {}};
    for (const auto& line : curve.line()) {
      plot::LineChart::Series series{.name = line.name(), .points = {}};
      for (int i = 0; i < line.x_size(); ++i) series.points.emplace_back(line.x(i), o.run(line.run(i)).metrics.at(curve.metric()).mean());
      chart.series.push_back(std::move(series));
    }
    files[curve.name() + ".svg"] = chart.svg();
  }
  return files;
}

Status write(const Outcome& o, const std::string& folder) {
  const auto in = [&](const std::string& file) { return (fs::path(folder) / file).string(); };
  TN_RETURN_IF_ERROR(write_atomically(in("result.json"), o.json().dump(1) + "\n"));
  TN_RETURN_IF_ERROR(write_atomically(in("result.md"), table(o)));
  for (const auto& [file, svg] : plots(o)) TN_RETURN_IF_ERROR(write_atomically(in(file), svg));
  return Status::ok();
}

Result<std::string> overview(const std::vector<Description>& zoo, const std::string& results) {
  std::string s = "| method | verdict | claims reproduced | not reproduced | result |\n|---|---|---:|---|---|\n";
  for (const Description& d : zoo) {
    s += "| " + cell(d.slug) + " | ";
    std::string file = (fs::path(results) / d.slug / "result.json").string();
    if (!fs::exists(file)) file = (fs::path(d.dir) / "result.json").string();
    if (!fs::exists(file)) {
      s += "not run | 0 of " + std::to_string(d.proto.claim_size()) + " | | |\n";
      continue;
    }
    TN_ASSIGN(const std::string text, read_bytes(file));
    const auto j = nlohmann::json::parse(text, nullptr, false);
    int good = 0, all = 0;
    std::string missed;
    if (j.is_object() && j.contains("claims") && j["claims"].is_array())
      for (const auto& c : j["claims"]) {
        if (!c.is_object()) continue;
        ++all;
        if (c.value("verdict", "") == "reproduced")
          ++good;
        else
          missed += (missed.empty() ? "" : "; ") + c.value("claim", "");
      }
    if (all == 0) return invalid("'" + file + "' is not a result of tenon zoo run");
    s += std::string(good == all ? "reproduced" : "not reproduced") + " | " + std::to_string(good) + " of " + std::to_string(all) + " | " +
         cell(missed) + " | " + file + " |\n";
  }
  return s;
}

}  // namespace tenon::zoo
