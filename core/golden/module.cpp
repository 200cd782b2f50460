// Modules. Inputs are the roles, weights among them, and "grad_out". Expected values: what the plugin emits, and
//   grad:<role>    derivative of the sum of grad_out times "y"
#include "core/graph/grad.h"
#include "core/golden/run.h"
#include "core/ops/elementwise.h"
#include "core/ops/reduce.h"
#include "core/plugin/build.h"

namespace tenon::golden {

Status run_module(Bench& bench, const Case& c, Record& record) {
  TN_ASSIGN(const auto instance, Instance::create(bench.catalog, TN_KIND_MODULE, c.id, c.id, c.options));
  Inputs inputs = c.inputs;
  std::erase_if(inputs, [](const auto& in) { return in.first == "grad_out"; });
  TN_RETURN_IF_ERROR(check_roles(instance->descriptor(), instance->who(), inputs));
  Graph graph(bench.runtime);
  TN_ASSIGN(const std::vector<NamedTensor> bound, bind_roles(graph, inputs));
  TN_ASSIGN(const Emissions out, build_plugin(*instance, build_function(*instance), graph, {.train = true}, bound, nullptr));
  Tensor objective;
  if (const HostArray* g = c.input("grad_out")) {
    TN_ASSIGN(const Tensor y, emitted_tensor(*instance, out, "y"));
    TN_ASSIGN(const Tensor upstream, upload(graph, *g));
    objective = sum(y * upstream);
  }
  record.begin();
  for (const auto& [name, v] : out.values) record.add(name, value_of(v));
  const auto find = [&](const std::string& key) -> Tensor {
    if (const Tensor t = out.find(key); t.valid()) return t;
    for (const NamedTensor& in : bound)
      if (key == "grad:" + in.name && objective.valid() && is_floating(in.value.dtype())) return grad(objective, {&in.value, 1})[0];
    return {};
  };
  return record.evaluate(graph, find, {}, out.checks(instance->who()));
}

}  // namespace tenon::golden
