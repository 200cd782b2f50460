// Aggregators, round after round. Inputs: participation [T, N], params [P], deltas [T, N, P] (rows of absent clients are
// left out), client_samples [N], and the plugin's roles. Without params the updates are zero. Expected values:
//   params_per_round [T, P]   the global vector after each round
//   <name>                    what the plugin emits: of the last round, or [T, ..] of all
//   state:<slot>              a slot after the last round
#include "core/golden/run.h"
#include "core/plugin/aggregator.h"

namespace tenon::golden {

Status run_aggregator(Bench& bench, const Case& c, Record& record) {
  TN_ASSIGN(const auto plugin, Instance::create(bench.catalog, TN_KIND_AGGREGATOR, c.id, c.id, c.options));
  Instance& instance = *plugin;
  const HostArray *active = c.input("participation"), *params = c.input("params"), *deltas = c.input("deltas"), *samples = c.input("client_samples");
  if (!active || active->shape().rank() != 2) return invalid(instance.who() + ": the case has no input 'participation' [rounds, clients]");
  const int64_t rounds = active->shape()[0], clients = active->shape()[1];
  HostArray zero(DType::f64, Shape{1});
  TN_ASSIGN(const Array value, Array::from_host(bench.runtime.backend(), params ? *params : zero));
  if (value.shape().rank() != 1) return invalid(instance.who() + ": 'params' must be a vector");
  const int64_t size = value.shape()[0];
  if (deltas && deltas->shape() != Shape{rounds, clients, size})
    return invalid(instance.who() + ": 'deltas' has shape " + to_string(deltas->shape()) + "; it must be [rounds, clients, params]");
  Graph graph(bench.runtime);
  for (int64_t t = 0; t < rounds; ++t) {
    graph.reset();
    FederatedRound round{.round = t, .participation = {}, .client_samples = {}, .params = graph.input(value), .deltas = {}, .inputs = {}};
    std::vector<int64_t> rows;
    for (int64_t n = 0; n < clients; ++n) {
      round.participation.push_back(active->at(t * clients + n) != 0);
      if (round.participation.back()) rows.push_back(n);
      if (samples && n < samples->numel()) round.client_samples.push_back(static_cast<int64_t>(samples->at(n)));
    }
    if (!rows.empty()) {
      HostArray present(value.dtype(), Shape{static_cast<int64_t>(rows.size()), size});
      for (size_t i = 0; i < rows.size() && deltas; ++i)
        for (int64_t p = 0; p < size; ++p) present.set(static_cast<int64_t>(i) * size + p, deltas->at((t * clients + rows[i]) * size + p));
      TN_ASSIGN(round.deltas, upload(graph, present));
    }
    for (const auto& [name, a] : c.inputs) {
      if (name == "participation" || name == "params" || name == "deltas" || name == "client_samples") continue;
      if (!is_role(instance.descriptor(), name)) return invalid(instance.who() + ": it has no role '" + name + "'");
      TN_ASSIGN(const Tensor in, upload(graph, a));
      round.inputs.push_back({name, in});
    }
    const CallInfo info{.step = t, .total_steps = rounds, .train = true};
    TN_ASSIGN(const AggregatedRound out, aggregate_round(instance, graph, info, round));
    std::vector<Update> updates = instance.take_updates();
    updates.push_back({value, out.params});
    record.begin();
    for (const auto& [name, v] : out.emitted.values) record.add(name, value_of(v));
    TN_RETURN_IF_ERROR(record.evaluate(graph, [&](const std::string& key) { return out.emitted.find(key); }, updates,
                                       out.emitted.checks(instance.who())));
    TN_RETURN_IF_ERROR(record_state(instance, record));
  }
  return Status::ok();
}

}  // namespace tenon::golden
