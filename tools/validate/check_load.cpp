#include "tools/validate/check_load.h"

#include "core/plugin/catalog.h"
#include "core/plugin/library.h"
#include "tools/validate/surroundings.h"

namespace tenon::validate {
namespace {

std::vector<std::pair<std::string, std::string>> listed(const tn_plugin& p) {
  std::vector<std::pair<std::string, std::string>> out;
  for (uint32_t i = 0; i < p.n_descriptors; ++i) out.emplace_back(p.descriptors[i]->kind, p.descriptors[i]->id);
  return out;
}

// Tables of extensions that nobody knows would be taken for something that they are not.
std::string knows_the_unknown(const tn_plugin& p) {
  constexpr const char* unknown = "org.example.no-such-extension/9";
  if (TN_HAS(&p, get_extension) && p.get_extension(unknown)) return "the plugin";
  for (uint32_t i = 0; i < p.n_descriptors; ++i) {
    const tn_descriptor& d = *p.descriptors[i];
    if (TN_HAS(&d, get_extension) && d.get_extension(unknown)) return "'" + std::string(d.id) + "'";
  }
  return {};
}

}  // namespace

Loaded check_load(const std::string& file, const tn_host& host) {
  const Surroundings before = look_around();
  auto first = PluginLibrary::load(file, host);
  const std::string changed = changes(before, look_around());
  if (!first) return {failed(first.status().message()), {}};
  Loaded out{ok(), listed((*first)->table())};
  if (!changed.empty()) out.verdict = failed("loading it changes " + changed);
  else if (const std::string who = knows_the_unknown((*first)->table()); !who.empty())
    out.verdict = failed(who + " answers to an extension that does not exist");
  if (out.verdict.outcome == Outcome::failed) return out;

  // Entries and deinits are counted: the second of each leaves the first at work, and it can start again after the last.
  const auto second = PluginLibrary::load(file, host);
  if (!second) return {failed("the second entry fails: " + second.status().message()), out.plugins};
  (*second)->deinit();
  if (listed((*first)->table()) != out.plugins) return {failed("after one of two deinits its tables are others"), out.plugins};
  (*first)->deinit();
  const auto again = PluginLibrary::load(file, host);
  if (!again) return {failed("after the last deinit it does not start again: " + again.status().message()), out.plugins};
  if (listed((*again)->table()) != out.plugins) return {failed("started again it holds other plugins"), out.plugins};
  (*again)->deinit();
  out.verdict.text = std::to_string(out.plugins.size()) + (out.plugins.size() == 1 ? " plugin" : " plugins");
  return out;
}

}  // namespace tenon::validate
