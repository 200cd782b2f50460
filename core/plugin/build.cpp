#include "core/plugin/build.h"

#include <algorithm>

namespace tenon {

Status has_no_function(const Instance& instance, const char* name) {
  return internal_error(instance.who() + ": the plugin has no " + name + " function");
}

Result<Emissions> build_plugin(Instance& instance, tn_build_fn build, Graph& graph, const CallInfo& info,
                               std::span<const NamedTensor> inputs, ModelService* models) {
  if (!build) return has_no_function(instance, "build");
  TN_ASSIGN(const auto in, instance.arrange(inputs));
  const Graph::Scope scope(graph, instance.who());
  if (!instance.initialised()) TN_RETURN_IF_ERROR(instance.init(graph, info, in, models).status());
  Call call(instance, &graph, info, models);
  std::vector<tn_named> named;
  for (const NamedTensor& t : in) named.push_back({t.name.c_str(), call.handle(t.value)});
  const int32_t code = guarded(call, [&] {
    return build(instance.pointer(), call.ctx(), named.data(), static_cast<uint32_t>(named.size()));
  });
  TN_RETURN_IF_ERROR(call.outcome(code));
  TN_RETURN_IF_ERROR(graph.status());
  return std::move(call.emitted);
}

tn_build_fn build_function(const Instance& instance) {
  // Their tables begin alike: size, reserved, build.
  const std::string_view kind = instance.descriptor().kind;
  constexpr std::string_view with_build[] = {TN_KIND_LOSS, TN_KIND_REWEIGHTER, TN_KIND_PARAMETRIZATION, TN_KIND_ROUTER, TN_KIND_MODULE};
  if (std::find(std::begin(with_build), std::end(with_build), kind) == std::end(with_build)) return nullptr;
  const auto& table = table_of<tn_loss>(instance);
  return TN_HAS(&table, build) ? table.build : nullptr;
}

Result<Tensor> emitted_tensor(const Instance& instance, const Emissions& emitted, std::string_view name) {
  const Tensor t = emitted.find(name);
  if (!t.valid()) return internal_error(instance.who() + ": the plugin emitted no '" + std::string(name) + "'");
  return t;
}

Result<Tensor> emitted_like(const Instance& instance, const Emissions& emitted, std::string_view name, Tensor like) {
  TN_ASSIGN(const Tensor t, emitted_tensor(instance, emitted, name));
  if (t.dtype() != like.dtype() || t.shape() != like.shape())
    return internal_error(instance.who() + ": '" + std::string(name) + "' is " + to_string(TensorType{t.dtype(), t.shape()}) + "; it must be " +
                          to_string(TensorType{like.dtype(), like.shape()}));
  return t;
}

}  // namespace tenon
