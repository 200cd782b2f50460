#include "core/plugin/attack.h"

#include <algorithm>

#include "core/ops/elementwise.h"
#include "core/plugin/build.h"

namespace tenon {
namespace {

int32_t evaluate(const tn_attack_target* t, tn_ctx* ctx, tn_tensor x, tn_tensor* per_sample, tn_tensor* output) {
  Call& call = Call::of(ctx);
  const Tensor input = call.tensor(x);
  if (!call.status().is_ok()) return to_abi(call.status());
  if (!input.valid()) return call.fail(invalid("evaluate: the input is null"));
  auto at = static_cast<const AttackTarget*>(t->self)->evaluate(*call.graph, input, per_sample != nullptr);
  if (!at) return call.fail(at.status());
  if (per_sample) *per_sample = call.handle(at->per_sample);
  if (output) *output = call.handle(at->output);
  return to_abi(call.status());
}

}  // namespace

Result<PerturbedInput> perturb_input(Instance& attack, Graph& graph, const CallInfo& info, const AttackTarget& target,
                                     std::span<const NamedTensor> inputs) {
  const auto& functions = table_of<tn_attack>(attack);
  if (!TN_HAS(&functions, build)) return has_no_function(attack, "build");
  TN_ASSIGN(const auto in, attack.arrange(inputs));
  const Graph::Scope scope(graph, attack.who());
  if (!attack.initialised()) TN_RETURN_IF_ERROR(attack.init(graph, info, in, nullptr).status());
  Call call(attack, &graph, info);
  std::vector<tn_named> named;
  for (const NamedTensor& t : in) named.push_back({t.name.c_str(), call.handle(t.value)});
  tn_attack_target table{};
  table.struct_size = sizeof table;
  table.self = const_cast<AttackTarget*>(&target);
  table.evaluate = evaluate;
  TN_RETURN_IF_ERROR(call.outcome(guarded(call, [&] {
    return functions.build(attack.pointer(), call.ctx(), &table, named.data(), static_cast<uint32_t>(named.size()));
  })));
  TN_RETURN_IF_ERROR(graph.status());
  PerturbedInput out;
  out.emitted = std::move(call.emitted);
  const auto input = std::find_if(inputs.begin(), inputs.end(), [](const NamedTensor& t) { return t.name == "input"; });
  if (input == inputs.end()) return internal_error(attack.who() + ": there is no input to perturb");
  TN_ASSIGN(const Tensor x_adv, emitted_like(attack, out.emitted, "x_adv", input->value));
  out.x_adv = stop_gradient(x_adv);
  return out;
}

}  // namespace tenon
