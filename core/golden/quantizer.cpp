// Quantizers in the form that their options give. Inputs: "x", upstream gradient "grad_out", and slots by their names
// (scale, offset): their values when x is quantised. Expected values:
//   init_<slot>            the slot as the plugin declared it on x
//   y, <name>              what the plugin emits
//   grad:x, grad:<slot>    derivative of the sum of grad_out times y
#include "core/graph/grad.h"
#include "core/golden/run.h"
#include "core/ops/elementwise.h"
#include "core/ops/reduce.h"
#include "core/plugin/quantizer.h"

namespace tenon::golden {

Status run_quantizer(Bench& bench, const Case& c, Record& record) {
  TN_ASSIGN(const auto instance, Instance::create(bench.catalog, TN_KIND_QUANTIZER, c.id, c.id, c.options));
  const HostArray* given = c.input("x");
  if (!given) return invalid(instance->who() + ": the case has no input 'x'");
  const QuantSite site{.name = "x", .flags = TN_SITE_WEIGHT};
  const CallInfo info{.train = true};
  Graph graph(bench.runtime);
  TN_ASSIGN(const Tensor x, upload(graph, *given));
  TN_RETURN_IF_ERROR(init_quantizer(*instance, graph, info, site, x));
  record.begin();
  for (const auto& [name, slot] : instance->slots()) {
    TN_ASSIGN(HostArray h, (slot.kind == TN_SLOT_TRAINABLE ? slot.trainable[0]->value : slot.values[0]).to_host());
    record.add("init_" + name, std::move(h));
  }
  for (const auto& [name, a] : c.inputs)
    if (name != "x" && name != "grad_out") TN_RETURN_IF_ERROR(set_slot(*instance, name, a));
  TN_ASSIGN(const QuantizedTensor q, quantize(*instance, graph, info, site, 0, x));
  for (const auto& [name, v] : q.emitted.values) record.add(name, value_of(v));
  Tensor objective;
  if (const HostArray* g = c.input("grad_out")) {
    TN_ASSIGN(const Tensor upstream, upload(graph, *g));
    objective = sum(q.y * upstream);
  }
  const auto find = [&](const std::string& key) -> Tensor {
    if (const Tensor t = q.emitted.find(key); t.valid()) return t;
    if (!key.starts_with("grad:") || !objective.valid()) return {};
    Tensor leaf = key == "grad:x" ? x : Tensor{};
    if (const auto it = instance->slots().find(key.substr(5)); it != instance->slots().end())
      leaf = graph.input(it->second.kind == TN_SLOT_TRAINABLE ? it->second.trainable[0]->value : it->second.values[0]);
    return leaf.valid() ? grad(objective, {&leaf, 1})[0] : leaf;
  };
  return record.evaluate(graph, find, {}, q.emitted.checks(instance->who()));
}

}  // namespace tenon::golden
