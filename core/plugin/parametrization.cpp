#include "core/plugin/parametrization.h"

#include "core/plugin/build.h"

namespace tenon {

Result<Tensor> init_parametrization(Instance& parametrization, Graph& graph, const CallInfo& info, Tensor raw) {
  const NamedTensor in[] = {{"raw", raw}};
  TN_ASSIGN(const auto arranged, parametrization.arrange(in));
  const Graph::Scope scope(graph, parametrization.who());
  TN_ASSIGN(const Emissions emitted, parametrization.init(graph, info, arranged, nullptr));
  TN_RETURN_IF_ERROR(graph.status());
  return emitted.find("raw").valid() ? emitted_like(parametrization, emitted, "raw", raw) : Tensor{};
}

Result<EffectiveWeight> effective_weight(Instance& parametrization, Graph& graph, const CallInfo& info, Tensor raw) {
  const NamedTensor in[] = {{"raw", raw}};
  EffectiveWeight out;
  TN_ASSIGN(out.emitted, build_plugin(parametrization, build_function(parametrization), graph, info, in, nullptr));
  TN_ASSIGN(out.weight, emitted_like(parametrization, out.emitted, "weight", raw));
  return out;
}

Result<Tensor> stored_weight(Instance& parametrization, Graph& graph, const CallInfo& info, Tensor weight) {
  const auto& table = table_of<tn_parametrization>(parametrization);
  if (!TN_HAS(&table, invert)) return unsupported(parametrization.who() + ": it can't start from given weights, as it has no inverse");
  const Graph::Scope scope(graph, parametrization.who());
  if (!parametrization.initialised()) {
    const NamedTensor first[] = {{"raw", weight}};
    TN_RETURN_IF_ERROR(parametrization.init(graph, info, first, nullptr).status());
  }
  Call call(parametrization, &graph, info);
  const tn_named in{"weight", call.handle(weight)};
  TN_RETURN_IF_ERROR(call.outcome(guarded(call, [&] { return table.invert(parametrization.pointer(), call.ctx(), &in, 1); })));
  return emitted_like(parametrization, call.emitted, "raw", weight);
}

}  // namespace tenon
