// What all kinds share: the function table of an instance, and the call in which a plugin appends graph to inputs bound
// to its roles and emits results by name.
#pragma once

#include "core/plugin/instance.h"

namespace tenon {

// The function table of the instance's kind: tn_loss, tn_router, ..
template <class Table>
const Table& table_of(const Instance& instance) {
  return *static_cast<const Table*>(instance.descriptor().vtable);
}
Status has_no_function(const Instance& instance, const char* name);

// Runs `build` of the instance on `inputs` (by role name), after hooks.init before the first time.
// Errors: there is no such function, roles, what the plugin says.
Result<Emissions> build_plugin(Instance& instance, tn_build_fn build, Graph& graph, const CallInfo& info,
                               std::span<const NamedTensor> inputs, ModelService* models);
// The build function of a kind that has one (losses, reweighters, parametrizations, routers, modules); null otherwise.
tn_build_fn build_function(const Instance& instance);

// The tensor emitted under this name. Error: there is none.
Result<Tensor> emitted_tensor(const Instance& instance, const Emissions& emitted, std::string_view name);
// The same, of the type that `like` has. Error: of another one.
Result<Tensor> emitted_like(const Instance& instance, const Emissions& emitted, std::string_view name, Tensor like);

}  // namespace tenon
