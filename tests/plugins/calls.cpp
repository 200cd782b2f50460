#include "tests/plugins/calls.h"

#include "core/plugin/probe.h"

namespace tenon::test {

Result<std::map<std::string, HostArray>> try_probe(Runtime& runtime, const ProbeCall& call) {
  TN_ASSIGN(const tn_descriptor* d, shipped().find("tenon." + call.kind + "/1", call.id));
  const tn_probe* probe = find_probe(*d, call.probe);
  if (!probe) return not_found("there is no probe '" + call.probe + "'");
  Graph graph(runtime);
  std::vector<NamedTensor> inputs;
  for (const auto& [name, a] : call.inputs) {
    TN_ASSIGN(const Array array, Array::from_host(graph.backend(), a));
    inputs.push_back({name, graph.input(array)});
  }
  TN_ASSIGN(const Emissions out, run_probe(shipped(), *d, *probe, call.options, graph, inputs));
  std::vector<NamedTensor> emitted = out.checks(call.id);
  const size_t n_checks = emitted.size();
  for (const Emitted& e : out.tensors)
    if (e.as != TN_OUT_CHECK) emitted.push_back({e.name, e.value});
  std::vector<Tensor> wanted;
  for (const NamedTensor& t : emitted) wanted.push_back(t.value);
  TN_ASSIGN(const auto arrays, graph.eval(wanted));
  TN_RETURN_IF_ERROR(verify(std::span(emitted).first(n_checks), std::span(arrays).first(n_checks)));
  std::map<std::string, HostArray> values;
  for (size_t i = n_checks; i < emitted.size(); ++i) {
    TN_ASSIGN(values[emitted[i].name], arrays[i].to_host());
  }
  for (const auto& [name, v] : out.values)
    if (const auto* number = std::get_if<double>(&v)) values[name] = reals({}, {*number});
  return values;
}

Result<std::unique_ptr<Experiment>> open_recipe(Runtime& runtime, const std::string& text) {
  TN_ASSIGN(Recipe recipe, parse_recipe(text, "test.txtpb"));
  return Experiment::open(runtime, shipped(), std::move(recipe), "");
}

Result<MetricValues> run_text(Runtime& runtime, const std::string& text) {
  TN_ASSIGN(const auto experiment, open_recipe(runtime, text));
  Observer quiet;
  TN_ASSIGN(const Summary summary, run_recipe(*experiment, nullptr, quiet));
  return summary.metrics;
}

std::string run_refusal(Runtime& runtime, const std::string& text) {
  const auto r = run_text(runtime, text);
  return r ? "accepted" : r.status().message();
}

}  // namespace tenon::test
