#include "core/plugin/aggregator.h"

#include "core/plugin/build.h"

namespace tenon {
namespace {

Status check(Instance& aggregator, const FederatedRound& r, int64_t n_active) {
  const std::string who = aggregator.who();
  const size_t clients = r.participation.size();
  if (!aggregator.initialised()) aggregator.table_rows = static_cast<int64_t>(clients);
  if (aggregator.table_rows != static_cast<int64_t>(clients))
    return invalid(who + ": the round has " + std::to_string(clients) + " clients, the ones before had " + std::to_string(aggregator.table_rows));
  if (!r.client_samples.empty() && r.client_samples.size() != clients)
    return invalid(who + ": client_samples has " + std::to_string(r.client_samples.size()) + " entries for " + std::to_string(clients) + " clients");
  if (!r.params.valid() || r.params.rank() != 1) return invalid(who + ": params must be a vector");
  const Shape wanted{n_active, r.params.dim(0)};
  if (n_active == 0 ? r.deltas.valid() : !r.deltas.valid() || r.deltas.shape() != wanted)
    return invalid(who + ": deltas must be " + to_string(wanted) + ", a row for each active client, got " +
                   (r.deltas.valid() ? to_string(r.deltas.shape()) : "none"));
  return Status::ok();
}

}  // namespace

Result<AggregatedRound> aggregate_round(Instance& aggregator, Graph& graph, const CallInfo& info, const FederatedRound& r) {
  const auto& functions = table_of<tn_aggregator>(aggregator);
  if (!TN_HAS(&functions, aggregate)) return has_no_function(aggregator, "aggregate");
  std::vector<int64_t> active;
  for (size_t i = 0; i < r.participation.size(); ++i)
    if (r.participation[i]) active.push_back(static_cast<int64_t>(i));
  TN_RETURN_IF_ERROR(check(aggregator, r, static_cast<int64_t>(active.size())));
  TN_ASSIGN(const auto in, aggregator.arrange(r.inputs));
  const Graph::Scope scope(graph, aggregator.who());
  if (!aggregator.initialised()) {
    std::vector<NamedTensor> first = in;
    first.push_back({"params", r.params});
    TN_RETURN_IF_ERROR(aggregator.init(graph, info, first, nullptr).status());
  }
  Call call(aggregator, &graph, info);
  std::vector<tn_named> named;
  for (const NamedTensor& t : in) named.push_back({t.name.c_str(), call.handle(t.value)});
  tn_round round{};
  round.struct_size = sizeof round;
  round.n_active = static_cast<uint32_t>(active.size());
  round.round = r.round;
  round.n_clients = static_cast<int64_t>(r.participation.size());
  round.participation = r.participation.data();
  round.active = active.data();
  round.client_samples = r.client_samples.empty() ? nullptr : r.client_samples.data();
  round.params = call.handle(r.params);
  round.deltas = call.handle(r.deltas);
  round.in = named.data();
  round.n_in = static_cast<uint32_t>(named.size());
  TN_RETURN_IF_ERROR(call.outcome(guarded(call, [&] { return functions.aggregate(aggregator.pointer(), call.ctx(), &round); })));
  TN_RETURN_IF_ERROR(graph.status());
  AggregatedRound out;
  out.emitted = std::move(call.emitted);
  TN_ASSIGN(out.params, emitted_like(aggregator, out.emitted, "params", r.params));
  return out;
}

}  // namespace tenon
