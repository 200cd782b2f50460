// tenon plugins, describe and version: what there is, and what it takes.
#include <cstdio>

#include "core/base/nearest.h"
#include "core/base/version.h"
#include "core/graph/op.h"
#include "tools/tenon/commands.h"
#include "tools/tenon/session.h"

namespace tenon::cli {
namespace {

struct PluginFlags : RecipeFlags {
  bool verbose = false;
  std::string id;
};

int plugins(const PluginFlags& flags) {
  auto catalog = open_catalog(flags);
  if (!catalog) return report(catalog.status());
  for (const tn_descriptor* d : (*catalog)->list()) {
    std::printf("%-16s %-20s %s\n", short_kind(d->kind).c_str(), d->id, TN_HAS(d, help) ? d->help : "");
    if (flags.verbose) std::printf("%-37s %s\n", "", (*catalog)->file_of(d).c_str());
  }
  if (flags.verbose)
    for (const PluginCandidate& c : (*catalog)->candidates())
      std::printf("%s: %s\n", c.path.c_str(), c.status.is_ok() ? "loaded" : c.status.message().c_str());
  return 0;
}

int describe_op(const std::string& id) {
  const OpDef* op = find_op(id.find('/') == std::string::npos ? id + "/1" : id);
  if (!op) {
    std::vector<std::string> ids;
    for (const OpDef* o : all_ops()) ids.emplace_back(o->id);
    return report(not_found("no op '" + id + "'" + did_you_mean(id, ids)));
  }
  std::printf("op %s: %d%s input(s), %d output(s)%s\n", std::string(op->id).c_str(), op->min_in, op->max_in == op->min_in ? "" : " or more",
              op->n_out, op->vjp ? "" : ", no derivative");
  for (const AttrSpec& a : op->attrs)
    std::printf("  %-16s %s%s\n", std::string(a.name).c_str(),
                a.kind == AttrKind::i64 ? "integer" : a.kind == AttrKind::f64 ? "real" : "list of integers", a.required ? ", required" : "");
  return 0;
}

int describe(const PluginFlags& flags) {
  if (flags.id.starts_with("op:")) return describe_op(flags.id.substr(3));
  auto catalog = open_catalog(flags);
  if (!catalog) return report(catalog.status());
  const size_t colon = flags.id.find(':');
  const std::string kind = colon == std::string::npos ? "" : flags.id.substr(0, colon);
  const std::string id = colon == std::string::npos ? flags.id : flags.id.substr(colon + 1);
  bool found = false;
  std::vector<std::string> ids;
  for (const tn_descriptor* d : (*catalog)->list()) {
    ids.emplace_back(d->id);
    if (id != d->id || (!kind.empty() && kind != short_kind(d->kind))) continue;
    found = true;
    std::printf("%s %s", short_kind(d->kind).c_str(), d->id);
    if (TN_HAS(d, help)) std::printf(": %s", d->help);
    std::printf("\n");
    if (TN_HAS(d, paper)) std::printf("  source: %s\n", d->paper);
    std::printf("  file:   %s\n", (*catalog)->file_of(d).c_str());
    if (!TN_COVERS(d, n_roles)) continue;
    if (d->n_roles > 0) std::printf("  roles:\n");
    for (uint32_t i = 0; i < d->n_roles; ++i) {
      const tn_role& r = *d->roles[i];
      std::printf("    %-18s %s%s\n", r.name, r.flags & TN_ROLE_OPTIONAL ? "optional; " : "", TN_HAS(&r, help) ? r.help : "");
    }
    if (d->n_options > 0) std::printf("  options:\n");
    for (uint32_t i = 0; i < d->n_options; ++i) std::printf("    %-18s %s\n", d->options[i]->name, describe_option(*d->options[i]).c_str());
  }
  if (!found) return report(not_found("no plugin '" + flags.id + "'" + did_you_mean(id, ids)));
  return 0;
}

}  // namespace

void add_plugins(CLI::App& app, Command& run) {
  auto flags = std::make_shared<PluginFlags>();
  CLI::App* c = app.add_subcommand("plugins", "List the plugins that can be found");
  flags->add_plugins_to(*c);
  c->add_flag("-v,--verbose", flags->verbose, "Also every file that was looked at, and why it was refused");
  c->callback([flags, &run] { run = [flags] { return plugins(*flags); }; });
}

void add_describe(CLI::App& app, Command& run) {
  auto flags = std::make_shared<PluginFlags>();
  CLI::App* c = app.add_subcommand("describe", "Options, roles and source of a plugin, or the attributes of an op");
  c->add_option("id", flags->id, "focal, loss:focal, or op:matmul")->required();
  flags->add_plugins_to(*c);
  c->callback([flags, &run] { run = [flags] { return describe(*flags); }; });
}

void add_version(CLI::App& app, Command& run) {
  CLI::App* c = app.add_subcommand("version", "The program's version");
  c->callback([&run] {
    run = [] {
      std::printf("tenon %s, plugin ABI %d.%d\n", TENON_VERSION, TN_ABI_MAJOR, TN_ABI_MINOR);
      return 0;
    };
  });
}

}  // namespace tenon::cli
