#include "core/train/step.h"

#include "core/graph/grad.h"

namespace tenon {
namespace {

using ParameterGrads = std::map<const nn::Parameter*, Tensor>;

ParameterGrads gradients_of(Graph& graph, Tensor loss, const std::vector<NamedParameter>& parameters) {
  std::vector<Tensor> leaves;
  for (const NamedParameter& p : parameters) leaves.push_back(graph.input(p.parameter->value));
  const std::vector<Tensor> grads = grad(loss, leaves);
  ParameterGrads of;
  for (size_t i = 0; i < leaves.size(); ++i) of[parameters[i].parameter.get()] = grads[i];
  return of;
}

// The batch again at other parameters, with the same random numbers; running statistics and slots stay as they are.
ClosureService closure_over(Objective& objective, const std::vector<nn::ParameterPtr>& members) {
  const auto substitutes = [members](std::span<const Tensor> params) {
    Substitutes s;
    for (size_t i = 0; i < params.size() && i < members.size(); ++i) s[members[i].get()] = params[i];
    return s;
  };
  ClosureService c;
  c.loss = [&objective, substitutes](Graph& graph, std::span<const Tensor> params, const std::string& scalar) -> Result<Tensor> {
    TN_ASSIGN(Pass * pass, objective.forward(graph, substitutes(params)));
    TN_ASSIGN(const ObjectiveValue v, objective.evaluate(graph, *pass, true));
    if (scalar.empty()) return v.loss;
    for (const ObjectiveValue::Term& t : v.terms)
      for (const NamedTensor& p : t.parts)
        if (p.name == scalar) return p.value;
    return not_found("the losses report nothing named '" + scalar + "'");
  };
  c.forward = [&objective, substitutes](Graph& graph, std::span<const Tensor> params) -> Result<Tensor> {
    TN_ASSIGN(Pass * pass, objective.forward(graph, substitutes(params)));
    return pass->outputs.at(objective.models[0].name);
  };
  c.loss_at = [&objective](Graph& graph, Tensor output) -> Result<ClosureService::LossAt> {
    TN_ASSIGN(Pass * pass, objective.forward(graph));
    pass->outputs[objective.models[0].name] = output;
    TN_ASSIGN(const ObjectiveValue v, objective.evaluate(graph, *pass, true));
    return ClosureService::LossAt{v.loss, v.terms.empty() ? Tensor{} : v.terms[0].per_sample};
  };
  return c;
}

}  // namespace

Result<StepResult> training_step(Experiment& e, Graph& graph, int64_t step) {
  int64_t samples = 0;
  Objective& objective = e.objective();
  TN_ASSIGN(const Batch batch, e.training_batch(step, &samples));
  const CallInfo info = e.training_info(step);
  graph.reset();
  objective.begin(batch, info);
  if (step % e.steps_per_epoch() == 0)
    for (Instance* plugin : objective.instances()) TN_RETURN_IF_ERROR(plugin->on_epoch(graph, info, &objective));
  TN_ASSIGN(StepResult result, training_step(objective, e.optimizers(), graph));
  for (const Objective::ModelChange& change : objective.take_changes()) TN_RETURN_IF_ERROR(e.apply(change));
  result.samples = samples;
  return result;
}

Result<StepResult> training_step(Objective& objective, Optimizers& optimizers, Graph& graph) {
  StepResult result;
  const CallInfo info = objective.info();
  TN_ASSIGN(Pass * pass, objective.forward(graph));
  TN_ASSIGN(const ObjectiveValue value, objective.evaluate(graph, *pass, false));

  Gradients gradients;
  gradients.loss = value.loss;
  if (optimizers.wants_gradients()) gradients.of = gradients_of(graph, value.loss, optimizers.parameters());
  if (optimizers.wants_objectives())
    for (const ObjectiveValue::Term& t : value.terms)
      gradients.objectives.push_back({t.of->name, t.value, t.weight, gradients_of(graph, t.value, optimizers.parameters())});
  gradients.closure = [&](const std::vector<nn::ParameterPtr>& members) { return closure_over(objective, members); };
  if (!graph.status().is_ok()) return graph.status();

  std::vector<NamedTensor> reported, checks;
  for (const ObjectiveValue::Term& t : value.terms) {
    reported.insert(reported.end(), t.parts.begin(), t.parts.end());
    checks.insert(checks.end(), t.checks.begin(), t.checks.end());
    for (const auto& [name, number] : t.numbers) result.parts[name] = number;
  }
  for (const ObjectiveValue::Layers& said : value.layers) {
    reported.insert(reported.end(), said.parts.begin(), said.parts.end());
    checks.insert(checks.end(), said.checks.begin(), said.checks.end());
  }
  TN_ASSIGN(Optimizers::Appended appended, optimizers.append(graph, info, gradients));
  std::vector<Update> updates = std::move(appended.updates);
  reported.insert(reported.end(), appended.metrics.begin(), appended.metrics.end());
  checks.insert(checks.end(), appended.checks.begin(), appended.checks.end());
  objective.set_next_values([&](const nn::Parameter& p) { return optimizers.next_value(p); });
  for (Instance* plugin : objective.instances()) {
    TN_ASSIGN(const Emissions after, plugin->after_step(graph, info, &objective));
    for (const Emitted& e : after.tensors)
      if (e.as == TN_OUT_METRIC) reported.push_back({e.name, e.value});
  }
  optimizers.take_next_values(objective.take_assigned(), updates);
  for (Update& u : objective.take_updates()) updates.push_back(std::move(u));

  std::vector<Tensor> outputs{value.report};
  for (const auto* list : {&reported, &checks})
    for (const NamedTensor& p : *list) outputs.push_back(p.value);
  TN_ASSIGN(const auto arrays, graph.eval(outputs, updates));
  TN_RETURN_IF_ERROR(verify(checks, std::span(arrays).subspan(1 + reported.size())));
  TN_ASSIGN(const HostArray loss, arrays[0].to_host());
  result.loss = loss.at(0);
  for (size_t i = 0; i < reported.size(); ++i) {
    TN_ASSIGN(const HostArray h, arrays[i + 1].to_host());
    result.parts[reported[i].name] = h.at(0);
  }
  objective.end();
  optimizers.advance();
  return result;
}

}  // namespace tenon
