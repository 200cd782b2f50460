// tenon golden: checks plugins against the numbers of an independent implementation.
#include "core/golden/golden.h"

#include <cstdio>
#include <nlohmann/json.hpp>

#include "tools/tenon/commands.h"
#include "tools/tenon/session.h"

namespace tenon::cli {
namespace {

struct GoldenFlags : RecipeFlags {
  std::vector<std::string> files;
  std::string only;
  bool json = false;
};

nlohmann::json to_json(const golden::Comparison& c) {
  nlohmann::json j{{"key", c.key}, {"passed", c.passed}};
  if (!c.problem.empty()) return j["problem"] = c.problem, j;
  if (!c.expected_text.empty() || !c.got_text.empty()) return j["got"] = c.got_text, j["expected"] = c.expected_text, j;
  j.update({{"got", c.got}, {"expected", c.expected}, {"abs_error", c.absolute}, {"rel_error", c.relative},
            {"tolerance", c.tolerance}, {"index", c.place}, {"elements", c.elements}});
  return j;
}

void print(const golden::Comparison& c) {
  const char* mark = c.passed ? "ok  " : "FAIL";
  if (!c.problem.empty()) {
    std::printf("  %s %-28s %s\n", mark, c.key.c_str(), c.problem.c_str());
  } else if (!c.expected_text.empty() || !c.got_text.empty()) {
    std::printf("  %s %-28s got '%s', expected '%s'\n", mark, c.key.c_str(), c.got_text.c_str(), c.expected_text.c_str());
  } else {
    const std::string at = c.elements > 1 ? " at element " + std::to_string(c.place) + " of " + std::to_string(c.elements) : "";
    std::printf("  %s %-28s got %.17g, expected %.17g, error %.2e (relative %.2e, allowed %.2e)%s\n", mark, c.key.c_str(),
                c.got, c.expected, c.absolute, c.relative, c.tolerance, at.c_str());
  }
}

int run_files(const GoldenFlags& flags) {
  std::vector<std::pair<std::string, std::vector<golden::Case>>> files;
  for (const std::string& f : flags.files) {
    auto cases = golden::load(f);
    if (!cases) return report(cases.status());
    files.emplace_back(f, std::move(cases).value());
  }
  auto runtime = make_runtime(flags.device.empty() ? "cpu" : flags.device, flags.threads);
  if (!runtime) return report(runtime.status());
  auto catalog = open_catalog(flags);
  if (!catalog) return report(catalog.status());

  size_t cases = 0, passed = 0, values = 0, values_passed = 0;
  nlohmann::json all = nlohmann::json::array();
  for (const auto& [file, list] : files)
    for (const golden::Case& c : list) {
      if (!flags.only.empty() && c.name.find(flags.only) == std::string::npos) continue;
      const golden::CaseResult r = golden::run(**runtime, **catalog, c);
      ++cases;
      passed += r.passed();
      nlohmann::json j{{"file", file}, {"name", r.name}, {"target", r.target}, {"passed", r.passed()}, {"values", nlohmann::json::array()}};
      if (!r.status.is_ok()) j["problem"] = r.status.message();
      if (!flags.json) std::printf("%s %s (%s)\n", r.passed() ? "ok  " : "FAIL", r.name.c_str(), r.target.c_str());
      if (!flags.json && !r.status.is_ok()) std::printf("  FAIL %s\n", r.status.message().c_str());
      for (const golden::Comparison& v : r.values) {
        ++values;
        values_passed += v.passed;
        j["values"].push_back(to_json(v));
        if (!flags.json) print(v);
      }
      all.push_back(std::move(j));
    }
  if (cases == 0) return report(not_found("no case's name contains '" + flags.only + "'"));
  if (flags.json) {
    const nlohmann::json j{{"cases", all}, {"n_cases", cases}, {"n_passed", passed}, {"passed", passed == cases}};
    std::printf("%s\n", j.dump().c_str());
  } else {
    std::printf("%zu of %zu cases passed (%zu of %zu values)\n", passed, cases, values_passed, values);
  }
  return passed == cases ? 0 : 1;
}

}  // namespace

void add_golden(CLI::App& app, Command& run) {
  auto flags = std::make_shared<GoldenFlags>();
  CLI::App* c = app.add_subcommand("golden", "Check plugins against the numbers of golden files");
  c->add_option("files", flags->files, "Golden files (JSON)")->required();
  c->add_option("--case", flags->only, "Only cases whose name contains this");
  c->add_option("--threads", flags->threads, "Threads (default: all cores)")->check(at_least(1));
  c->add_option("--device", flags->device, "cpu or reference")->capture_default_str();
  c->add_flag("--json", flags->json, "One JSON object on stdout");
  flags->add_plugins_to(*c);
  c->callback([flags, &run] { run = [flags] { return run_files(*flags); }; });
}

}  // namespace tenon::cli
