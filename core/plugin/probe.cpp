#include "core/plugin/probe.h"

#include <algorithm>

#include "core/plugin/run_service.h"

namespace tenon {

const tn_probe* find_probe(const tn_descriptor& d, std::string_view name) {
  const auto* table = TN_HAS(&d, get_extension) ? static_cast<const tn_probes*>(d.get_extension(TN_EXT_PROBE)) : nullptr;
  if (!table || !TN_HAS(table, probes)) return nullptr;
  for (uint32_t i = 0; i < table->n_probes; ++i)
    if (table->probes[i] && TN_HAS(table->probes[i], run) && TN_HAS(table->probes[i], name) && name == table->probes[i]->name)
      return table->probes[i];
  return nullptr;
}

Result<Emissions> run_probe(Catalog& catalog, const tn_descriptor& d, const tn_probe& probe, const Options& options,
                            Graph& graph, std::span<const NamedTensor> inputs) {
  TN_ASSIGN(const auto inst, Instance::for_probe(catalog, d, probe, options));
  for (uint32_t i = 0; i < probe.n_roles; ++i) {
    const tn_role& r = *probe.roles[i];
    const bool given = std::any_of(inputs.begin(), inputs.end(), [&](const NamedTensor& t) { return t.name == r.name; });
    if (!given && !(r.flags & (TN_ROLE_OPTIONAL | TN_ROLE_MANY))) return invalid(inst->who() + ": the input '" + r.name + "' is missing");
  }
  const Graph::Scope scope(graph, inst->who());
  RunService plugins(catalog);
  Call call(*inst, &graph, {});
  call.run = &plugins;
  std::vector<tn_named> in;
  for (const NamedTensor& t : inputs) in.push_back({t.name.c_str(), call.handle(t.value)});
  TN_RETURN_IF_ERROR(call.outcome(guarded(call, [&] { return probe.run(call.ctx(), in.data(), static_cast<uint32_t>(in.size())); })));
  return std::move(call.emitted);
}

}  // namespace tenon
