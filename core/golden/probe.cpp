// Probes. Inputs ("x/0" as x0) and options are the probe's own; expected values are what it emits, and
//   grad:<input>   the derivative of the emitted "loss" (rank 0) with respect to an input
// Consecutive calls ("step<k>:", "_per_call", `repeat`) are refused: a probe has no state.
#include "core/graph/grad.h"
#include "core/golden/run.h"
#include "core/plugin/probe.h"

namespace tenon::golden {

Status run_probe(Bench& bench, const Case& c, Record& record) {
  TN_ASSIGN(const tn_descriptor* d, bench.catalog.find("tenon." + c.kind + "/1", c.id));
  const std::string name = c.probe.empty() ? "default" : c.probe;
  const tn_probe* probe = find_probe(*d, name);
  if (!probe) return not_found(c.kind + " '" + c.id + "' has no probe '" + name + "'");
  Graph graph(bench.runtime);
  std::vector<NamedTensor> inputs;
  std::map<std::string, Tensor> by_name;
  for (const auto& [key, a] : c.inputs) {
    TN_ASSIGN(const Tensor t, upload(graph, a));
    inputs.push_back({role_of(key), t});
    by_name[role_of(key)] = t;
  }
  TN_ASSIGN(const Emissions out, tenon::run_probe(bench.catalog, *d, *probe, c.options, graph, inputs));
  record.begin();
  for (const auto& [key, v] : out.values) record.add(key, value_of(v));
  const auto find = [&](const std::string& key) -> Tensor {
    if (const Tensor t = out.find(key); t.valid()) return t;
    const Tensor loss = out.find("loss");
    if (!key.starts_with("grad:") || !loss.valid()) return {};
    const auto it = by_name.find(key.substr(5));
    return it == by_name.end() || !is_floating(it->second.dtype()) ? Tensor{} : grad(loss, {&it->second, 1})[0];
  };
  return record.evaluate(graph, find, {}, out.checks(c.target));
}

}  // namespace tenon::golden
