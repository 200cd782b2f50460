#include "tools/bench/compare.h"

#include <chrono>
#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <optional>

#include "core/io/file.h"
#include "tools/bench/limits.h"
#include "tools/bench/machine.h"
#include "tools/bench/measure.h"
#include "tools/bench/peers_script.h"
#include "tools/bench/process.h"
#include "tools/plot/chart.h"

namespace tenon::bench {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

// Tenon or a peer, as columns of the tables.
struct Contender {
  std::string id, title;
};

// A contender's figures for one workload.
struct Figures {
  std::vector<double> ms;  // by round
  double peak_mb = 0;
  std::string error;  // why there are none
};

std::string text(const char* format, double v) {
  char out[32];
  std::snprintf(out, sizeof out, format, v);
  return out;
}

std::string milliseconds(double v) { return text(v < 1 ? "%.3f" : v < 10 ? "%.2f" : "%.1f", v); }

// Median over the rounds of how many times longer b took than a.
double ratio(const Figures& a, const Figures& b) {
  std::vector<double> r;
  for (size_t i = 0; i < a.ms.size(); ++i) r.push_back(b.ms[i] / a.ms[i]);
  return median(std::move(r));
}

class Comparison {
 public:
  explicit Comparison(const CompareOptions& options) : o_(options), script_(o_.folder + "/bench_peers.py") {}

  Result<std::string> run() {
    TN_RETURN_IF_ERROR(make_folders(o_.folder));
    TN_RETURN_IF_ERROR(write_atomically(script_, kPeersScript));
    find_peers();
    load_ = load();
    TN_ASSIGN(limits_, measure_limits(o_.threads));
    for (const WorkloadInfo* w : o_.workloads) TN_RETURN_IF_ERROR(measure_workload(*w));
    TN_RETURN_IF_ERROR(measure_starts());
    const std::string markdown = report();
    TN_RETURN_IF_ERROR(write_atomically(o_.folder + "/bench.md", markdown));
    TN_RETURN_IF_ERROR(write_atomically(o_.folder + "/bench.json", data().dump(2) + "\n"));
    TN_RETURN_IF_ERROR(write_atomically(o_.folder + "/bench.svg", time_chart()));
    TN_RETURN_IF_ERROR(write_atomically(o_.folder + "/memory.svg", memory_chart()));
    return markdown;
  }

 private:
  std::vector<std::string> command_of(const Contender& c, std::string_view workload) const {
    std::vector<std::string> command =
        c.id == "tenon" ? o_.tenon : std::vector<std::string>{python(), script_, "serve", c.id};
    command.emplace_back(workload);
    return command;
  }
  std::string python() const { return o_.python.empty() ? "python3" : o_.python; }
  Result<std::unique_ptr<Child>> start(const Contender& c, std::string_view workload) const {
    return Child::start(command_of(c, workload), {{"THREADS", std::to_string(o_.threads)}},
                        c.id == "tenon" ? "" : o_.folder + "/peers.log");
  }

  void find_peers() {
    contenders_ = {{"tenon", "Tenon"}};
    auto child = Child::start({python(), script_, "versions"}, {}, o_.folder + "/peers.log");
    if (!child) return;
    const json versions = json::parse((*child)->read_all(), nullptr, /*allow_exceptions=*/false);
    if (!versions.is_object()) return;
    if (versions.contains("torch")) {
      torch_ = versions["torch"];
      contenders_.push_back({"torch", "PyTorch"});
      contenders_.push_back({"compile", "PyTorch, compiled"});
    }
    if (versions.contains("jax")) {
      jax_ = versions["jax"];
      contenders_.push_back({"jax", "JAX"});
    }
  }

  static Result<json> ask(Child& child, const std::string& request) {
    TN_ASSIGN(const std::string answer, child.ask(request));
    json j = json::parse(answer, nullptr, false);
    if (!j.is_object()) return bad_state("an answer that is no JSON: " + answer.substr(0, 80));
    if (j.contains("error")) return bad_state(j["error"].get<std::string>());
    return j;
  }

  Status measure_workload(const WorkloadInfo& w) {
    Row row{.workload = &w, .figures = std::vector<Figures>(contenders_.size()), .loop = {}};
    std::vector<std::unique_ptr<Child>> children(contenders_.size());
    // The first answer has everything in it that happens once: imports, compilation.
    for (size_t i = 0; i < contenders_.size(); ++i) {
      say(std::string(w.name) + ": " + contenders_[i].title + " starts");
      auto child = start(contenders_[i], w.name);
      Status status = child ? ask(**child, "measure 0").status() : child.status();
      if (status.is_ok())
        children[i] = std::move(child).value();
      else if (i == 0)
        return status;
      else
        row.figures[i].error = status.message();
    }
    for (int round = 0; round < o_.rounds; ++round) {
      say(std::string(w.name) + ": round " + std::to_string(round + 1) + " of " + std::to_string(o_.rounds));
      for (size_t i = 0; i < contenders_.size(); ++i) {
        if (!children[i]) continue;
        const auto answer = ask(*children[i], "measure " + std::to_string(o_.seconds));
        if (!answer && i == 0) return answer.status();
        if (!answer) {
          children[i] = nullptr;
          row.figures[i] = {.ms = {}, .peak_mb = 0, .error = answer.status().message()};
          continue;
        }
        row.figures[i].ms.push_back((*answer)["ms"]);
        row.figures[i].peak_mb = (*answer)["peak_mb"];
      }
      if (w.name == "adamw_25m") {
        TN_ASSIGN(const double ms, measure_adamw_loop(o_.threads, o_.seconds));
        row.loop.ms.push_back(ms);
      }
    }
    rows_.push_back(std::move(row));
    return Status::ok();
  }

  // From the start of the process to the end of the first step.
  Status measure_starts() {
    for (const Contender& c : contenders_) {
      std::vector<double> ms;
      say("start of " + c.title);
      for (int round = 0; round < o_.rounds; ++round) {
        const auto begin = std::chrono::steady_clock::now();
        auto child = start(c, "mlp_tabular");
        if (!child || !ask(**child, "step")) break;
        ms.push_back(
            std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count());
      }
      start_ms_.push_back(ms.empty() ? NAN : median(std::move(ms)));
    }
    return Status::ok();
  }

  // The peer that is fastest; 0 (Tenon) when there is none.
  size_t fastest_peer(size_t row) const {
    size_t best = 0;
    for (size_t i = 1; i < contenders_.size(); ++i) {
      const Figures& f = rows_[row].figures[i];
      if (!f.ms.empty() && (best == 0 || median(f.ms) < median(rows_[row].figures[best].ms))) best = i;
    }
    return best;
  }

  std::string machine_line() const {
    return cpu_model() + ", " + std::to_string(cores()) + " cores, " + std::to_string(o_.threads) +
           " threads";
  }

  std::string versions_line() const {
    std::string line = "Tenon " + tenon_version();
    if (!torch_.empty()) line += ", PyTorch " + torch_;
    if (!jax_.empty()) line += ", JAX " + jax_;
    return line;
  }

  std::string report() const {
    std::string md =
        "# Training steps: Tenon and its peers\n\n" + machine_line() + ". " + versions_line() + ".\n\n";
    md += "A step is forward, backward and optimizer in f32 on data in memory. Figures are medians over " +
          std::to_string(o_.rounds) + " rounds in which all took turns for " + text("%g", o_.seconds) +
          " s each; the ratio is the median over rounds of the fastest peer's time over Tenon's. "
          "`tenon bench` describes the workloads.\n\n";
    if (load_ > 0.3 * cores())
      md += "**Other programs were running (load " + text("%.1f", load_) +
            "): the figures are disturbed.**\n\n";
    std::string head = "| workload |", rule = "|---|";
    for (const Contender& c : contenders_) head += " " + c.title + " |", rule += "---:|";
    if (contenders_.size() > 1) head += " fastest peer / Tenon |", rule += "---:|";
    const std::string peaks = head.substr(0, contenders_.size() > 1 ? head.rfind(" fastest") : head.size());
    md += "## Milliseconds a step\n\n" + head + "\n" + rule + "\n";
    for (size_t r = 0; r < rows_.size(); ++r) {
      md += "| " + std::string(rows_[r].workload->name) + " |";
      for (const Figures& f : rows_[r].figures)
        md += " " + (f.ms.empty() ? "-" : milliseconds(median(f.ms))) + " |";
      const size_t best = fastest_peer(r);
      if (contenders_.size() > 1)
        md += best == 0 ? " - |"
                        : " " + text("%.2f", ratio(rows_[r].figures[0], rows_[r].figures[best])) + " |";
      md += "\n";
    }
    md += "| process start to the end of the first step of mlp_tabular |";
    for (const double ms : start_ms_) md += " " + (std::isfinite(ms) ? milliseconds(ms) : "-") + " |";
    if (contenders_.size() > 1) md += " |";
    md += "\n\n## Peak resident memory of the process, MB\n\n" + peaks + "\n" +
          rule.substr(0, contenders_.size() > 1 ? rule.size() - 5 : rule.size()) + "\n";
    for (const Row& row : rows_) {
      md += "| " + std::string(row.workload->name) + " |";
      for (const Figures& f : row.figures) md += " " + (f.ms.empty() ? "-" : text("%.0f", f.peak_mb)) + " |";
      md += "\n";
    }
    md += "\n## The machine's limits, measured in the same run\n\n";
    md += "- f32 product of 1024x1024 matrices: " + text("%.0f", limits_.flops_per_second * 1e-9) +
          " GFLOP/s\n";
    md += "- a[i] = b[i] + 3 c[i]: " + text("%.1f", limits_.bytes_per_second * 1e-9) + " GB/s\n";
    for (const Row& row : rows_) {
      if (row.loop.ms.empty()) continue;
      const double ms = median(row.loop.ms);
      md += "- AdamW over 25,000,000 parameters as a hand-written loop: " + milliseconds(ms) + " ms (" +
            text("%.1f", kAdamWLoopBytes / ms * 1e-6) + " GB/s); Tenon's adamw_25m takes " +
            text("%.2f", ratio(row.loop, row.figures[0])) + " times as long\n";
    }
    for (const Row& row : rows_)
      for (size_t i = 0; i < contenders_.size(); ++i)
        if (!row.figures[i].error.empty())
          md += "\n" + contenders_[i].title + " failed on " + std::string(row.workload->name) + ": " +
                row.figures[i].error + "\n";
    if (contenders_.size() == 1)
      md += "\nNo peer was found: TENON_PEERS_PYTHON names a Python that has torch, or jax and optax.\n";
    return md;
  }

  ordered_json data() const {
    ordered_json all = {{"machine", machine_line()},
                        {"versions", versions_line()},
                        {"threads", o_.threads},
                        {"load", load_},
                        {"gemm_flops_per_second", limits_.flops_per_second},
                        {"bytes_per_second", limits_.bytes_per_second}};
    for (size_t i = 0; i < contenders_.size(); ++i)
      if (std::isfinite(start_ms_[i])) all["first_step_ms"][contenders_[i].id] = start_ms_[i];
    for (const Row& row : rows_) {
      ordered_json& w = all["workloads"][std::string(row.workload->name)];
      for (size_t i = 0; i < contenders_.size(); ++i) {
        const Figures& f = row.figures[i];
        if (f.error.empty())
          w[contenders_[i].id] = {{"ms", f.ms}, {"peak_mb", f.peak_mb}};
        else
          w[contenders_[i].id] = {{"error", f.error}};
      }
      if (!row.loop.ms.empty()) w["limit"] = {{"ms", row.loop.ms}};
    }
    return all;
  }

  // Bars of `value` for every workload.
  template <class F>
  plot::BarChart chart(const std::string& title, const std::string& axis, F&& value) const {
    plot::BarChart c{
        .title = title, .subtitle = machine_line(), .axis = axis, .categories = {}, .series = {}};
    for (const Row& row : rows_) c.categories.emplace_back(row.workload->name);
    for (size_t i = 0; i < contenders_.size(); ++i) {
      plot::BarChart::Series s{.name = contenders_[i].title, .values = {}};
      for (const Row& row : rows_) s.values.push_back(row.figures[i].ms.empty() ? NAN : value(row, i));
      c.series.push_back(std::move(s));
    }
    return c;
  }

  std::string time_chart() const {
    auto c = chart("Time of a training step", "times Tenon's step (shorter is faster)",
                   [](const Row& row, size_t i) { return ratio(row.figures[0], row.figures[i]); });
    c.mark = 1;
    return c.svg();
  }

  std::string memory_chart() const {
    return chart("Peak memory of the process", "MB",
                 [](const Row& row, size_t i) { return row.figures[i].peak_mb; })
        .svg();
  }

  void say(const std::string& what) const {
    if (o_.progress) o_.progress(what);
  }

  struct Row {
    const WorkloadInfo* workload;
    std::vector<Figures> figures;  // by contender
    Figures loop;                  // the hand-written one, where there is one
  };
  const CompareOptions& o_;
  std::string script_;
  std::vector<Contender> contenders_;  // the first is Tenon
  std::string torch_, jax_;            // versions
  double load_ = 0;
  Limits limits_;
  std::vector<Row> rows_;
  std::vector<double> start_ms_;  // by contender
};

}  // namespace

Result<std::string> compare(const CompareOptions& options) { return Comparison(options).run(); }

}  // namespace tenon::bench
