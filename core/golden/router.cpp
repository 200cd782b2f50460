// Routers. Inputs: "logits" [T, E]; a slot by its name (a bias [E]) is its value before the call. Expected values:
//   selected                  the experts of each token [T, K], in the plugin's order
//   gates                     [T, E], zero for experts that were not chosen
//   load, <name>              what the plugin emits
//   state:<slot>              a slot after the step
//   grad:logits_from_<name>   derivative of the emitted <name> (rank 0), or of the sum of grad_gates times gates for
//                             "gates"
#include "core/graph/grad.h"
#include "core/golden/run.h"
#include "core/ops/elementwise.h"
#include "core/ops/index.h"
#include "core/ops/reduce.h"
#include "core/ops/shape.h"
#include "core/plugin/router.h"

namespace tenon::golden {

Status run_router(Bench& bench, const Case& c, Record& record) {
  TN_ASSIGN(const auto plugin, Instance::create(bench.catalog, TN_KIND_ROUTER, c.id, c.id, c.options));
  Instance& instance = *plugin;
  TN_ASSIGN(const std::vector<Inputs> calls, calls_of(c));
  Graph graph(bench.runtime);
  for (size_t k = 0; k < calls.size(); ++k) {
    graph.reset();
    const CallInfo info{.step = static_cast<int64_t>(k), .total_steps = static_cast<int64_t>(calls.size()), .train = true};
    Tensor logits, upstream;
    for (const auto& [name, a] : calls[k]) {
      if (name != "logits" && name != "grad_gates") continue;
      TN_ASSIGN(const Tensor t, upload(graph, a));
      (name == "logits" ? logits : upstream) = t;
    }
    if (!logits.valid() || logits.rank() != 2) return invalid(instance.who() + ": the case has no input 'logits' [T, E]");
    if (!instance.initialised()) {
      const NamedTensor in[] = {{"logits", logits}};
      TN_RETURN_IF_ERROR(instance.init(graph, info, in, nullptr).status());
    }
    for (const auto& [name, a] : calls[k]) {
      if (name == "logits" || name == "grad_gates") continue;
      TN_RETURN_IF_ERROR(set_slot(instance, name, a));
    }
    TN_ASSIGN(const RoutedTokens r, route_tokens(instance, graph, info, logits, 0));
    const Tensor dense = put_along_axis_add(zeros_like(logits), r.indices, r.gates, 1);
    TN_ASSIGN(const Emissions after, instance.after_step(graph, info, nullptr));
    const std::vector<Update> updates = instance.take_updates();

    record.begin();
    for (const auto& [name, v] : r.emitted.values) record.add(name, value_of(v));
    constexpr std::string_view from = "grad:logits_from_";
    const auto find = [&](const std::string& key) -> Tensor {
      if (key == "selected") return r.indices;
      if (key == "gates") return dense;
      if (key == "grad:logits_from_gates" && upstream.valid()) return grad(sum(dense * upstream), {&logits, 1})[0];
      if (key.starts_with(from)) {
        const Tensor y = r.emitted.find(key.substr(from.size()));
        return y.valid() ? grad(y, {&logits, 1})[0] : y;
      }
      if (const Tensor t = r.emitted.find(key); t.valid()) return t;
      return after.find(key);
    };
    TN_RETURN_IF_ERROR(record.evaluate(graph, find, updates, r.emitted.checks(instance.who())));
    TN_RETURN_IF_ERROR(record_state(instance, record));
  }
  return Status::ok();
}

}  // namespace tenon::golden
