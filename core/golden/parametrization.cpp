// Parametrizations. Inputs: "raw", the stored weight; or "initial_weight", which is inverted first. Expected values:
//   weight, raw, <name>       the effective weight, the stored one, and what the plugin emits
//   grad:raw, grad:<slot>     derivative of the sum of grad_weight times weight
//   state:<slot>              a slot
// With X [N, I] and Y [N, O] a linear layer is trained: objective mean((X weight' - Y)^2) / 2, `steps` steps of plain
// gradient descent, rate `lr` for raw and `hyper_lr` for the plugin's trained parameters. "loss" is the objective
// before each step; the others are the values at the end.
#include "core/graph/grad.h"
#include "core/golden/run.h"
#include "core/ops/elementwise.h"
#include "core/ops/matmul.h"
#include "core/ops/reduce.h"
#include "core/plugin/parametrization.h"

namespace tenon::golden {
namespace {

std::vector<Tensor> slot_leaves(Graph& graph, Instance& instance, std::vector<std::string>& names, bool trainable_only) {
  std::vector<Tensor> out;
  for (const auto& [name, slot] : instance.slots()) {
    if (slot.values.size() != 1 || !is_floating(slot.values[0].dtype()) || (trainable_only && slot.kind != TN_SLOT_TRAINABLE)) continue;
    names.push_back(name);
    out.push_back(graph.input(slot.kind == TN_SLOT_TRAINABLE ? slot.trainable[0]->value : slot.values[0]));
  }
  return out;
}

}  // namespace

Status run_parametrization(Bench& bench, const Case& c, Record& record) {
  TN_ASSIGN(const auto plugin, Instance::create(bench.catalog, TN_KIND_PARAMETRIZATION, c.id, c.id, c.options));
  Instance& instance = *plugin;
  const HostArray* given = c.input("raw");
  const HostArray* initial = c.input("initial_weight");
  if (!given && !initial) return invalid(instance.who() + ": the case has neither 'raw' nor 'initial_weight'");
  Graph graph(bench.runtime);
  const CallInfo info{.train = true};
  Array raw;
  if (given) {
    TN_ASSIGN(raw, Array::from_host(graph.backend(), *given));
    TN_ASSIGN(const Tensor start, init_parametrization(instance, graph, info, graph.input(raw)));
    if (start.valid()) {
      TN_ASSIGN(const auto values, graph.eval({&start, 1}));
      raw = values[0];
    }
  } else {
    TN_ASSIGN(const Tensor weight, upload(graph, *initial));
    TN_ASSIGN(const Tensor inverted, stored_weight(instance, graph, info, weight));
    TN_ASSIGN(const auto values, graph.eval({&inverted, 1}));
    raw = values[0];
  }

  const HostArray *x = c.input("X"), *y = c.input("Y");
  const auto steps = x && y ? static_cast<int64_t>(c.number("steps", 1)) : 0;
  for (int64_t k = 0; k <= steps; ++k) {
    graph.reset();
    const Tensor v = graph.input(raw);
    TN_ASSIGN(const EffectiveWeight w, effective_weight(instance, graph, info, v));
    std::vector<std::string> names{"raw"};
    std::vector<Tensor> leaves = slot_leaves(graph, instance, names, k < steps);
    leaves.insert(leaves.begin(), v);
    Tensor objective;
    if (x && y) {
      TN_ASSIGN(const Tensor input, upload(graph, *x));
      TN_ASSIGN(const Tensor target, upload(graph, *y));
      objective = mean(square(matmul(input, w.weight, false, true) - target)) * 0.5;
    } else if (const HostArray* g = c.input("grad_weight")) {
      TN_ASSIGN(const Tensor upstream, upload(graph, *g));
      objective = sum(w.weight * upstream);
    }
    const std::vector<Tensor> grads = objective.valid() ? grad(objective, leaves) : std::vector<Tensor>(leaves.size());
    std::vector<Update> updates;
    for (size_t i = 0; i < leaves.size() && k < steps; ++i) {
      const double rate = i == 0 ? c.number("lr", 0) : c.number("hyper_lr", 0);
      const auto slot = instance.slots().find(names[i]);
      updates.push_back({i == 0 ? raw : slot->second.trainable[0]->value, leaves[i] - grads[i] * rate});
    }
    record.begin();
    for (const auto& [name, value] : w.emitted.values) record.add(name, value_of(value));
    const bool last = k == steps;
    const auto find = [&](const std::string& key) -> Tensor {
      if (key == "loss" && !last) return objective;
      if (!last) return {};
      if (const Tensor t = w.emitted.find(key); t.valid()) return t;
      if (key == "raw") return v;
      for (size_t i = 0; i < leaves.size(); ++i)
        if (key == "grad:" + names[i]) return grads[i];
      return {};
    };
    TN_RETURN_IF_ERROR(record.evaluate(graph, find, updates, w.emitted.checks(instance.who())));
    instance.forget_step();
  }
  return record_state(instance, record);
}

}  // namespace tenon::golden
