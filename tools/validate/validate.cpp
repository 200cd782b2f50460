#include "tools/validate/validate.h"

#include <unistd.h>

#include <csignal>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>

#include "core/plugin/library.h"
#include "tools/validate/check_load.h"
#include "tools/validate/child.h"

namespace tenon::validate {
namespace {

using nlohmann::json;

constexpr const char* kOutcomes[] = {"ok", "failed", "not applicable"};

// --- in the child ---
void write_report(const json& line) {
  const std::string text = line.dump() + "\n";
  for (size_t at = 0; at < text.size();) {
    const ssize_t n = write(kReportFile, text.data() + at, text.size() - at);
    if (n < 0) return;  // the parent takes a missing report for what it is
    at += static_cast<size_t>(n);
  }
}
void report(const Verdict& v, const json& more = json::object()) {
  json line{{"outcome", kOutcomes[static_cast<int>(v.outcome)]}, {"text", v.text}};
  line.update(more);
  write_report(line);
}

Verdict run_check(const Settings& settings, const ChildCheck& which, const ChildHost& host) {
  const auto at = std::find_if(all_checks().begin(), all_checks().end(), [&](const Check& c) { return c.name == which.check; });
  if (at == all_checks().end()) return failed("there is no such check");
  const auto catalog = host.catalog(which.kind == TN_KIND_PROCEDURE);
  if (!catalog) return failed(catalog.status().message());
  const auto runtime = host.runtime();
  if (!runtime) return failed(runtime.status().message());
  const auto d = (*catalog)->find(which.kind, which.id);
  if (!d) return failed(d.status().message());
  const auto doing = [](const std::string& what) { write_report({{"doing", what}}); };
  const auto bench = Bench::open({**runtime, **catalog}, **d, settings.seed, doing);
  if (bench) return at->run(*bench);
  if (which.kind == TN_KIND_PROCEDURE && bench.status().code() != Code::internal)
    return not_applicable("it wants a recipe of its own: " + bench.status().message());
  if (which.check != "defaults") return not_applicable("no step with its defaults can be made");
  return failed("no step with its defaults can be made (an input's help should begin with its shape, '[B, C] class scores'): " + bench.status().message());
}

// --- in the parent ---
Verdict verdict_of(const ChildResult& r, double seconds, json& last) {
  std::string doing;
  std::istringstream lines(r.report);
  for (std::string text; std::getline(lines, text);) {
    json line = json::parse(text, nullptr, false);
    if (!line.is_object()) continue;
    if (line.contains("doing")) doing = line["doing"];
    else last = std::move(line);
  }
  const std::string where = doing.empty() ? "" : " " + doing;
  if (r.timed_out) return failed("it did not come to an end within " + std::to_string(static_cast<int>(seconds)) + " s" + where);
  if (r.signal != 0) return failed("it crashed (" + std::string(strsignal(r.signal)) + ")" + where);
  if (!last.contains("outcome")) return failed("it ended the process (exit code " + std::to_string(r.code) + ")" + where);
  if (r.code != 0) return failed("the process ended with code " + std::to_string(r.code) + " after all was done");
  for (int i = 0; i < 3; ++i)
    if (last["outcome"] == kOutcomes[i]) return {static_cast<Outcome>(i), last["text"]};
  return failed("its report can't be read");
}

std::string short_name(const std::string& kind, const std::string& id) { return short_kind(kind) + " '" + id + "'"; }

}  // namespace

Result<std::vector<Line>> validate(const Settings& settings, const std::function<std::vector<std::string>(const ChildCheck&)>& child_of,
                                   const std::function<void(const Line&)>& show) {
  std::error_code ec;
  if (!std::filesystem::exists(settings.file, ec)) return not_found(settings.file + ": no such plugin file");
  std::vector<Line> lines;
  const auto run = [&](const ChildCheck& which, const std::string& plugin, json& last) -> Status {
    TN_ASSIGN(const ChildResult r, run_child(child_of(which), settings.seconds));
    lines.push_back({plugin, which.check, verdict_of(r, settings.seconds, last)});
    show(lines.back());
    return Status::ok();
  };
  json loaded;
  TN_RETURN_IF_ERROR(run({kLoad, "", ""}, "", loaded));
  if (!loaded.contains("plugins")) return lines;
  for (const json& p : loaded["plugins"])
    for (const Check& c : all_checks()) {
      if (c.name.find(settings.only) == std::string_view::npos) continue;
      json unused;
      TN_RETURN_IF_ERROR(run({std::string(c.name), p[0], p[1]}, short_name(p[0], p[1]), unused));
    }
  return lines;
}

void run_in_child(const Settings& settings, const ChildCheck& which, const ChildHost& host) {
  if (which.check != kLoad) return report(run_check(settings, which, host));
  HostHooks hooks;
  const tn_host table = make_host(hooks);
  const Loaded loaded = check_load(settings.file, table);
  report(loaded.verdict, loaded.plugins.empty() ? json::object() : json{{"plugins", loaded.plugins}});
}

}  // namespace tenon::validate
