#include "core/train/objective.h"

#include <algorithm>

#include "core/base/nearest.h"
#include "core/base/random.h"
#include "core/ops/elementwise.h"
#include "core/ops/shape.h"

namespace tenon {

void Objective::begin(const Batch& batch, const CallInfo& info) {
  batch_ = &batch;
  info_ = info;
  end();
}

void Objective::end() {
  passes_.clear();
  again_.clear();
  assigned_.clear();
}

Result<const TrainedModel*> Objective::find_model(const std::string& name) const {
  for (const TrainedModel& m : models)
    if (m.name == name) return &m;
  std::vector<std::string> names;
  for (const TrainedModel& m : models) names.push_back(m.name);
  return not_found("no model '" + name + "'" + did_you_mean(name, names));
}

Tensor Objective::input(Graph& graph, const std::string& column) const {
  const auto it = batch_->find(column);
  return it == batch_->end() ? Tensor{} : graph.input(it->second);
}

Result<Pass*> Objective::forward(Graph& graph, const Substitutes& substitutes) {
  auto owned = std::make_unique<Pass>();
  Pass& pass = *owned;
  passes_.push_back(std::move(owned));
  for (const TrainedModel& m : models) {
    const Graph::Scope scope(graph, "model '" + m.name + "'");
    auto ctx = std::make_unique<nn::Context>(graph, info_.train && !m.frozen, split_key(info_.key, m.name));
    ctx->mixed = mixed;
    for (const auto& [p, t] : substitutes) ctx->substitute(*p, t);
    std::vector<Tensor> in;
    for (const std::string& source : m.inputs) {
      TN_ASSIGN(Tensor t, resolve(graph, pass, source));
      in.push_back(t);
    }
    Tensor out = m.model(*ctx, in);
    if (!graph.status().is_ok()) return graph.status();
    if (m.frozen) out = stop_gradient(out);
    pass.outputs[m.name] = out;
    pass.contexts[m.name] = std::move(ctx);
  }
  return passes_.back().get();
}

Result<Tensor> Objective::resolve(Graph& graph, Pass& pass, const std::string& source) const {
  if (const Tensor t = input(graph, source); t.valid()) return t;
  const size_t dot = source.find('.');
  if (dot != std::string::npos) {
    const std::string model = source.substr(0, dot), inside = source.substr(dot + 1);
    const auto it = pass.outputs.find(model);
    if (it != pass.outputs.end()) {
      if (inside == "output") return it->second;
      if (const Tensor t = pass.contexts.at(model)->output_of(inside); t.valid()) return t;
      return not_found("model '" + model + "' has no layer '" + inside + "'");
    }
  }
  std::vector<std::string> known;
  for (const auto& [name, unused] : *batch_) known.push_back(name);
  for (const auto& [name, unused] : pass.outputs) known.push_back(name + ".output");
  return not_found("'" + source + "' names no column and no model" + did_you_mean(source, known));
}

Result<std::vector<NamedTensor>> Objective::roles(Graph& graph, Pass& pass, const LossTerm& term) const {
  const tn_descriptor& d = term.plugin->instance().descriptor();
  const std::string prefix = term.stream.empty() ? "" : term.stream + ".";
  const std::string model = term.models.empty() ? models[0].name : term.models[0];
  std::vector<NamedTensor> out;
  for (uint32_t i = 0; i < d.n_roles; ++i) {
    const std::string role = d.roles[i]->name;
    if (const auto it = term.bind.find(role); it != term.bind.end()) {
      auto t = resolve(graph, pass, it->second);
      if (!t) return std::move(t).status().at("role '" + role + "'");
      out.push_back({role, *t});
      continue;
    }
    for (int many = 0; d.roles[i]->flags & TN_ROLE_MANY; ++many) {
      const auto it = term.bind.find(role + std::to_string(many));
      if (it == term.bind.end()) break;
      auto t = resolve(graph, pass, it->second);
      if (!t) return std::move(t).status().at("role '" + it->first + "'");
      out.push_back({it->first, *t});
    }
    const auto is = [&](std::initializer_list<const char*> names) {
      return std::any_of(names.begin(), names.end(), [&](const char* n) { return role == n; });
    };
    Tensor t;
    if (is({"logits", "prediction", "outputs", "scores", "output"})) t = pass.outputs.at(model);
    else if (is({"labels", "target"})) t = input(graph, prefix + "y");
    else if (is({"sample_ids"})) t = input(graph, prefix + "id");
    else if (is({"input"})) t = input(graph, prefix + "x");
    else t = input(graph, prefix + role);
    if (t.valid()) out.push_back({role, t});
  }
  // One output unit against one number a sample: [B, 1] and [B] mean the same.
  for (NamedTensor& a : out)
    for (const NamedTensor& b : out)
      if (a.value == pass.outputs.at(model) && b.value.valid() && (b.name == "labels" || b.name == "target") &&
          a.value.rank() == b.value.rank() + 1 && a.value.dim(-1) == 1 && is_floating(b.value.dtype()))
        a.value = reshape(a.value, b.value.shape());
  return out;
}

Result<ObjectiveValue> Objective::evaluate(Graph& graph, Pass& pass, bool replay) {
  ObjectiveValue v;
  for (LossTerm& term : losses) {
    auto in = roles(graph, pass, term);
    if (!in) return std::move(in).status().at(term.where);
    current_ = &term;
    CallInfo here = info_;
    here.key = split_key(info_.key, term.name);
    here.replay = replay;
    auto built = term.plugin->build(graph, here, *in, this);
    current_ = nullptr;
    if (!built) return std::move(built).status().at(term.where);
    const double weight = term.weight * term.weight_schedule.factor(info_.step, std::max<int64_t>(info_.total_steps, 1));
    const bool plain = losses.size() == 1 && term.weight == 1;
    const auto weighted = [&](Tensor t) { return plain ? t : t * weight; };
    v.loss = v.loss.valid() ? v.loss + weighted(built->value) : weighted(built->value);
    v.report = v.report.valid() ? v.report + weighted(built->report) : weighted(built->report);
    v.terms.push_back({term.name, built->value, built->per_sample, weight});
    if (losses.size() > 1) v.parts.push_back({term.name, built->report});
    for (const auto* list : {&built->parts, &built->metrics})
      for (const NamedTensor& p : *list) v.parts.push_back({losses.size() > 1 ? term.name + "/" + p.name : p.name, p.value});
  }
  if (!graph.status().is_ok()) return graph.status();
  return v;
}

std::vector<Update> Objective::take_updates() {
  std::vector<Update> out = std::move(assigned_);
  assigned_.clear();
  // Running statistics follow the step's own pass only; repeated passes see the same batch.
  if (!passes_.empty())
    for (const auto& [name, ctx] : passes_[0]->contexts)
      for (Update& u : ctx->updates()) out.push_back(std::move(u));
  for (LossTerm& term : losses)
    for (Update& u : term.plugin->instance().take_updates()) out.push_back(std::move(u));
  return out;
}

Result<std::vector<Tensor>> Objective::apply(Graph& graph, const Apply& call) {
  std::string name = call.model;
  if (name.empty()) name = current_ && !current_->models.empty() ? current_->models[0] : models[0].name;
  TN_ASSIGN(const TrainedModel* m, find_model(name));
  auto ctx = std::make_unique<nn::Context>(graph, info_.train && !call.eval && !m->frozen, split_key(info_.key, name));
  ctx->mixed = mixed;
  const auto& params = m->model.parameters;
  if (!call.params.empty() && call.params.size() != params.size())
    return invalid("model '" + name + "' has " + std::to_string(params.size()) + " parameters, " +
                   std::to_string(call.params.size()) + " were given");
  for (size_t i = 0; i < params.size(); ++i) {
    Tensor t = call.params.empty() ? graph.input(params[i]->value) : call.params[i];
    if (call.frozen) t = stop_gradient(t);
    if (!call.params.empty() || call.frozen) ctx->substitute(*params[i], t);
  }
  std::vector<Tensor> in;
  for (size_t i = 0; i < m->inputs.size(); ++i) {
    Tensor t;
    for (const NamedTensor& given : call.in)
      if (given.name == m->inputs[i] || (given.name.empty() && m->inputs.size() == 1)) t = given.value;
    if (!t.valid() && i < call.in.size()) t = call.in[i].value;
    if (!t.valid()) return invalid("model '" + name + "': its input '" + m->inputs[i] + "' was not given");
    in.push_back(t);
  }
  const Tensor y = m->model(*ctx, in);
  if (!graph.status().is_ok()) return graph.status();
  std::vector<Tensor> out;
  for (const std::string& wanted : call.wanted) {
    const Tensor t = wanted == "output" ? y : ctx->output_of(wanted);
    if (!t.valid()) return not_found("model '" + name + "' has no layer '" + wanted + "'");
    out.push_back(t);
  }
  if (call.wanted.empty()) out.push_back(y);
  again_.push_back(std::move(ctx));
  return out;
}

Result<std::vector<NamedTensor>> Objective::parameters(Graph& graph, const std::string& model) {
  TN_ASSIGN(const TrainedModel* m, find_model(model.empty() ? models[0].name : model));
  std::vector<NamedTensor> out;
  for (const nn::ParameterPtr& p : m->model.parameters) out.push_back({m->name + "." + p->name, graph.input(p->value)});
  return out;
}

Status Objective::assign(const std::string& model, size_t index, Tensor value) {
  TN_ASSIGN(const TrainedModel* m, find_model(model.empty() ? models[0].name : model));
  if (index >= m->model.parameters.size()) return invalid("model '" + m->name + "' has no parameter number " + std::to_string(index));
  assigned_.push_back({m->model.parameters[index]->value, value});
  return Status::ok();
}

}  // namespace tenon
