#include "tools/bench/precisions.h"

#include <array>
#include <nlohmann/json.hpp>

#include "tools/bench/measure.h"
#include "tools/bench/process.h"

namespace tenon::bench {
namespace {

Result<double> measure(Child& child, double seconds) {
  TN_ASSIGN(const std::string answer, child.ask("measure " + std::to_string(seconds)));
  const nlohmann::json j = nlohmann::json::parse(answer, nullptr, /*allow_exceptions=*/false);
  if (j.is_object() && j.contains("ms")) return j["ms"].get<double>();
  return bad_state(j.is_object() && j.contains("error")
                       ? j["error"].get<std::string>()
                       : "an answer that is no measurement: " + answer.substr(0, 80));
}

Result<std::string> row(const PrecisionsOptions& o, const WorkloadInfo& w) {
  std::array<std::unique_ptr<Child>, 2> children;
  for (size_t i = 0; i < 2; ++i) {
    std::vector<std::string> command = i == 0 ? o.f32 : o.bf16;
    command.emplace_back(w.name);
    TN_ASSIGN(children[i], Child::start(command));
    TN_RETURN_IF_ERROR(measure(*children[i], 0).status());
  }
  std::array<std::vector<double>, 2> ms;
  std::vector<double> ratios;
  for (int round = 0; round < o.rounds; ++round) {
    for (size_t i = 0; i < 2; ++i) {
      TN_ASSIGN(const double t, measure(*children[i], o.seconds));
      ms[i].push_back(t);
    }
    ratios.push_back(ms[0].back() / ms[1].back());
  }
  char text[96];
  std::snprintf(text, sizeof text, " %.3g | %.3g | %.2f |", median(ms[0]), median(ms[1]), median(ratios));
  return std::string(text);
}

}  // namespace

Result<std::string> compare_precisions(const PrecisionsOptions& o) {
  std::string table = "| workload | f32, ms | bf16, ms | f32 / bf16 |\n|---|---:|---:|---:|\n";
  for (const WorkloadInfo* w : o.workloads) {
    const auto r = row(o, *w);
    if (!r && o.workloads.size() == 1) return r.status();
    table += "| " + std::string(w->name) + " |" + (r ? *r : " | | " + r.status().message() + " |") + "\n";
  }
  return table;
}

}  // namespace tenon::bench
