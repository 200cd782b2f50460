// tenon validate: whether a plugin keeps the contract, check by check.
#include "tools/validate/validate.h"

#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <random>

#include "tools/tenon/commands.h"
#include "tools/tenon/session.h"
#include "tools/validate/check_load.h"

namespace tenon::cli {
namespace {

struct ValidateFlags {
  validate::Settings settings;
  bool json = false, list = false;
  std::vector<std::string> child;  // check, kind, id: this process is to carry out that one
};

void print(const validate::Line& line) {
  constexpr const char* marks[] = {"ok    ", "FAILED", "  -   "};
  const std::string name = (line.plugin.empty() ? "" : line.plugin + ": ") + line.check;
  std::printf("%s %-44s %s\n", marks[static_cast<int>(line.verdict.outcome)], name.c_str(), line.verdict.text.c_str());
  std::fflush(stdout);
}

int list_checks() {
  std::printf("%-18s %s\n", validate::kLoad, validate::kLoadSays);
  for (const validate::Check& c : validate::all_checks()) std::printf("%-18s %s\n", std::string(c.name).c_str(), std::string(c.says).c_str());
  return 0;
}

int run_child(const ValidateFlags& flags) {
  const auto& settings = flags.settings;
  validate::ChildHost host;
  host.runtime = [&] { return make_runtime(settings.device, 1); };
  host.catalog = [&](bool shipped) -> Result<std::unique_ptr<Catalog>> {
    RecipeFlags plugins;
    plugins.plugins = {settings.file};
    if (shipped) return open_catalog(plugins);
    auto catalog = std::make_unique<Catalog>();
    TN_RETURN_IF_ERROR(catalog->add_file(settings.file));
    return catalog;
  };
  const auto& c = flags.child;
  validate::run_in_child(settings, {c[0], c.size() > 1 ? c[1] : "", c.size() > 2 ? c[2] : ""}, host);
  return 0;
}

int validate_file(ValidateFlags flags) {
  if (flags.list) return list_checks();
  if (!flags.child.empty()) return run_child(flags);
  if (flags.settings.file.empty()) return report(invalid("validate: the plugin file is missing; see tenon validate --help"));
  validate::Settings& settings = flags.settings;
  if (settings.seed == 0) settings.seed = 1 + std::random_device{}();
  const auto known = make_backend(settings.device);
  if (!known) return report(known.status());
  std::error_code ec;
  settings.file = std::filesystem::absolute(settings.file, ec).lexically_normal().string();
  const auto child_of = [&](const validate::ChildCheck& c) {
    std::vector<std::string> arguments{"validate", settings.file, "--device", settings.device, "--seed", std::to_string(settings.seed), "--child", c.check};
    if (!c.id.empty()) arguments.insert(arguments.end(), {c.kind, c.id});
    return arguments;
  };
  const auto lines = validate::validate(settings, child_of, [&](const validate::Line& l) {
    if (!flags.json) print(l);
  });
  if (!lines) return report(lines.status());
  size_t failures = 0;
  nlohmann::json checks = nlohmann::json::array();
  constexpr const char* outcomes[] = {"ok", "failed", "not applicable"};
  for (const validate::Line& l : *lines) {
    failures += l.verdict.outcome == validate::Outcome::failed;
    checks.push_back({{"plugin", l.plugin}, {"check", l.check}, {"outcome", outcomes[static_cast<int>(l.verdict.outcome)]}, {"text", l.verdict.text}});
  }
  if (flags.json) {
    std::printf("%s\n", nlohmann::json{{"file", settings.file}, {"passed", failures == 0}, {"failed", failures}, {"seed", settings.seed}, {"checks", checks}}.dump().c_str());
  } else {
    std::printf("%s: %zu of %zu checks failed (seed %llu)\n", settings.file.c_str(), failures, lines->size(), static_cast<unsigned long long>(settings.seed));
  }
  return failures == 0 ? 0 : 1;
}

}  // namespace

void add_validate(CLI::App& app, Command& run) {
  auto flags = std::make_shared<ValidateFlags>();
  CLI::App* c = app.add_subcommand("validate", "Check that a plugin keeps the contract, each check in a process of its own");
  c->add_option("file", flags->settings.file, "Plugin file (.so), of any kind");
  c->add_option("--check", flags->settings.only, "Only checks whose name contains this");
  c->add_option("--device", flags->settings.device, "cpu or reference");
  c->add_option("--seed", flags->settings.seed, "Of random options and inputs (default: another one each time)");
  c->add_option("--timeout", flags->settings.seconds, "Seconds that a check may take")->check(at_least(0.01));
  c->add_flag("--json", flags->json, "One JSON object");
  c->add_flag("--list", flags->list, "What the checks are");
  c->add_option("--child", flags->child)->expected(1, 3)->group("");
  c->callback([flags, &run] { run = [flags] { return validate_file(*flags); }; });
}

}  // namespace tenon::cli
