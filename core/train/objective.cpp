#include "core/train/objective.h"

#include <algorithm>

#include "core/base/nearest.h"
#include "core/base/random.h"
#include "core/ops/elementwise.h"
#include "core/ops/reduce.h"
#include "core/ops/shape.h"
#include "core/plugin/reweighter.h"

namespace tenon {

void Objective::begin(const Batch& batch, const CallInfo& info, std::set<std::string> absent) {
  batch_ = &batch;
  absent_ = std::move(absent);
  info_ = info;
  end();
}

void Objective::end() {
  passes_.clear();
  followed_.clear();
  again_.clear();
  assigned_.clear();
  next_ = nullptr;
}

Result<const TrainedModel*> Objective::find_model(const std::string& wanted) const {
  const std::string& name = !wanted.empty() ? wanted : current_ ? model_of(*current_) : models[0].name;
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

std::string Objective::stream_of(const std::string& source) const {
  const std::string first = source.substr(0, source.find('.'));
  if (std::find(streams.begin(), streams.end(), first) != streams.end()) return first;
  for (const TrainedModel& m : models)
    if (m.name == first && first != source) return stream_of(m.inputs[0]);
  return streams.empty() ? "" : streams[0];
}

bool Objective::is_absent(const Pass& pass, const std::string& source) const {
  if (absent_.empty()) return false;
  const std::string first = source.substr(0, source.find('.'));
  for (const TrainedModel& m : models)
    if (m.name == first && first != source) return !pass.outputs.contains(first);
  return absent_.contains(stream_of(source));
}

bool Objective::is_absent(const Pass& pass, const LossTerm& term) const {
  if (absent_.empty()) return false;
  if (absent_.contains(term.stream.empty() ? streams[0] : term.stream) || !pass.outputs.contains(model_of(term))) return true;
  return std::any_of(term.bind.begin(), term.bind.end(), [&](const auto& b) { return is_absent(pass, b.second); });
}

Result<Pass*> Objective::forward(Graph& graph, const Substitutes& substitutes) {
  auto owned = std::make_unique<Pass>();
  Pass& pass = *owned;
  passes_.push_back(std::move(owned));
  layers.begin(info_, passes_.size() > 1);
  for (const TrainedModel& m : models) {
    if (std::any_of(m.inputs.begin(), m.inputs.end(), [&](const std::string& s) { return is_absent(pass, s); })) continue;
    const Graph::Scope scope(graph, "model '" + m.name + "'");
    auto ctx = std::make_unique<nn::Context>(graph, info_.train && !m.frozen, split_key(info_.key, m.name));
    ctx->mixed = mixed;
    ctx->stats_share = stats_share;
    for (const auto& [p, t] : substitutes) ctx->substitute(*p, t);
    // Running statistics that models share go on from the model before.
    for (const TrainedModel& before : models) {
      if (&before == &m) break;
      for (const nn::ParameterPtr& p : m.model.states)
        if (std::find(before.model.states.begin(), before.model.states.end(), p) != before.model.states.end() && pass.contexts.contains(before.name))
          ctx->substitute(*p, pass.contexts.at(before.name)->state(*p));
    }
    std::vector<Tensor> in;
    for (const std::string& source : m.inputs) {
      TN_ASSIGN(Tensor t, resolve(graph, pass, source));
      in.push_back(t);
    }
    const Tensor out = m.model(*ctx, in);
    if (!graph.status().is_ok()) return graph.status();
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
      nn::Context& ctx = *pass.contexts.at(model);
      for (const nn::RoutingRecord& r : ctx.routings)  // "model.load" is that of the first such layer
        if (inside == "load" || inside == r.layer->name() + ".load") return r.load;
      for (const TrainedModel& m : models)
        for (const nn::ParameterPtr& p : m.model.parameters)
          if (m.name == model && inside.starts_with(p->name)) {
            if (inside.size() == p->name.size()) return ctx.stored(*p);
            if (inside.substr(p->name.size()) == ".effective") return ctx.parameter(*p);
          }
      return not_found("model '" + model + "' has no layer '" + inside + "'");
    }
  }
  std::vector<std::string> known;
  for (const auto& [name, unused] : *batch_) known.push_back(name);
  for (const auto& [name, unused] : pass.outputs) known.push_back(name + ".output");
  return not_found("'" + source + "' names no column and no model" + did_you_mean(source, known));
}

Result<std::vector<NamedTensor>> Objective::roles(Graph& graph, Pass& pass, const LossTerm& term, const tn_descriptor& d) const {
  const std::string prefix = term.stream.empty() ? "" : term.stream + ".";
  const std::string& model = model_of(term);
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

// The loss of one term: at the batch's input or a perturbed one, with the losses of the samples weighted or not.
Result<LossResult> Objective::build(Graph& graph, Pass& pass, LossTerm& term, const CallInfo& info, std::vector<NamedTensor>& extra) {
  TN_ASSIGN(std::vector<NamedTensor> in, roles(graph, pass, term, term.plugin->instance().descriptor()));
  if (term.attack) {
    const std::vector<std::string> of_output = output_roles(pass, term, in);
    Tensor output_adv = pass.outputs.at(model_of(term));
    if (info_.train) {
      TN_ASSIGN(const Attacked a, attacked(graph, pass, term, *term.attack));
      output_adv = a.output;
      for (const Emitted& e : a.emitted.tensors)
        if (e.as == TN_OUT_METRIC) extra.push_back({e.name, e.value});
    }
    in = with_adversarial_roles(term, std::move(in), of_output, output_adv);
  }
  TN_ASSIGN(LossResult loss, term.plugin->build(graph, info, in, this));
  if (term.reweighter && info_.train) TN_RETURN_IF_ERROR(reweigh(graph, pass, term, info, loss, extra));
  return loss;
}

// The shown loss stays the plain one: a weighted one can't be compared with that of another run.
Status Objective::reweigh(Graph& graph, Pass& pass, LossTerm& term, const CallInfo& info, LossResult& loss, std::vector<NamedTensor>& extra) {
  if (!loss.per_sample.valid()) return invalid("the loss '" + term.name + "' gives no losses per sample, which its reweighter asks for");
  TN_ASSIGN(std::vector<NamedTensor> in, roles(graph, pass, term, term.reweighter->descriptor()));
  std::erase_if(in, [](const NamedTensor& r) { return r.name == "losses"; });
  in.push_back({"losses", term.through_weights ? loss.per_sample : stop_gradient(loss.per_sample)});
  CallInfo here = info;
  here.key = split_key(info.key, term.reweighter->name());
  TN_ASSIGN(const SampleWeights w, weigh_samples(*term.reweighter, graph, here, in, this));
  loss.value = sum((term.through_weights ? w.factors : stop_gradient(w.factors)) * loss.per_sample);
  for (const Emitted& e : w.emitted.tensors) {
    if (e.as == TN_OUT_METRIC) extra.push_back({e.name, e.value});
    if (e.as == TN_OUT_CHECK) loss.emitted.tensors.push_back(e);
  }
  return Status::ok();
}

void Objective::add_layers(const Pass& pass, ObjectiveValue& v) const {
  for (const auto& [model, ctx] : pass.contexts) {
    ObjectiveValue::Layers said{.model = model, .parts = {}, .checks = {}};
    for (const nn::Context::Noted& p : ctx->penalties) {
      if (info_.train && v.loss.valid()) v.loss = v.loss + p.value;
      said.parts.push_back({p.name, p.value});
    }
    for (const nn::Context::Noted& m : ctx->metrics) said.parts.push_back({m.name, m.value});
    for (const nn::Context::Noted& c : ctx->checks) said.checks.push_back({c.name, c.value});
    if (!said.parts.empty() || !said.checks.empty()) v.layers.push_back(std::move(said));
  }
}

Result<ObjectiveValue> Objective::evaluate(Graph& graph, Pass& pass, bool replay) {
  ObjectiveValue v;
  for (LossTerm& term : losses) {
    if (is_absent(pass, term)) continue;
    current_ = &term;
    CallInfo here = info_;
    here.key = split_key(info_.key, term.name);
    here.replay = replay;
    std::vector<NamedTensor> extra;  // what a reweighter or an attack reports
    auto built = build(graph, pass, term, here, extra);
    current_ = nullptr;
    if (!built) return std::move(built).status().at(term.where);
    const double factor = term.weight_schedule ? term.weight_schedule->factor(info_.step, std::max<int64_t>(info_.total_steps, 1)) : 1;
    const double weight = term.weight * factor;
    const bool plain = losses.size() == 1 && term.weight == 1 && !term.weight_schedule;
    const auto weighted = [&](Tensor t) { return plain ? t : t * weight; };
    v.loss = v.loss.valid() ? v.loss + weighted(built->value) : weighted(built->value);
    v.report = v.report.valid() ? v.report + weighted(built->report) : weighted(built->report);
    ObjectiveValue::Term t{&term, built->value, built->report, built->per_sample, weight, {}, {}, built->emitted.checks(term.where)};
    const std::string prefix = losses.size() > 1 ? term.name + "/" : "";
    if (losses.size() > 1) t.parts.push_back({term.name, built->report});
    for (const auto* list : {&built->parts, &built->metrics, &extra})
      for (const NamedTensor& p : *list) t.parts.push_back({prefix + p.name, p.value});
    for (const auto& [name, number] : built->numbers) t.numbers.emplace_back(prefix + name, number);
    v.terms.push_back(std::move(t));
  }
  if (v.terms.empty() && absent_.empty()) return invalid("there is no loss");
  add_layers(pass, v);
  if (!graph.status().is_ok()) return graph.status();
  return v;
}

std::vector<std::pair<std::string, Instance*>> Objective::plugins() const {
  std::vector<std::pair<std::string, Instance*>> out;
  for (const LossTerm& t : losses) {
    out.emplace_back("loss/" + t.name, &t.plugin->instance());
    if (t.reweighter) out.emplace_back("reweighter/" + t.name, t.reweighter.get());
    if (t.attack) out.emplace_back("attack/" + t.name, t.attack.get());
  }
  for (const auto& placed : layers.named()) out.push_back(placed);
  return out;
}

std::vector<Instance*> Objective::instances() const {
  std::vector<Instance*> out;
  for (const LossTerm& t : losses)
    for (Instance* plugin : {&t.plugin->instance(), t.reweighter.get(), t.attack.get()})
      if (plugin) out.push_back(plugin);
  for (Instance* plugin : layers.instances()) out.push_back(plugin);
  return out;
}

std::vector<Update> Objective::take_updates() {
  std::vector<Update> out;
  // Running statistics follow the step's own pass only; repeated passes see the same batch.
  for (const nn::Context* ctx : followed_)
    for (Update& u : ctx->updates()) out.push_back(std::move(u));
  followed_.clear();
  for (const TrainedModel& m : models) {
    if (passes_.empty() || !passes_[0]->contexts.contains(m.name)) continue;
    for (Update& u : passes_[0]->contexts.at(m.name)->updates()) {
      const auto same = std::find_if(out.begin(), out.end(), [&](const Update& known) { return known.target.data() == u.target.data(); });
      if (same != out.end()) same->value = u.value;  // of a model that shares it
      else out.push_back(std::move(u));
    }
  }
  for (Instance* plugin : instances())
    for (Update& u : plugin->take_updates()) out.push_back(std::move(u));
  return out;
}

// A parameter's value as plugins see it now: assigned, stepped, or as it was.
Tensor Objective::current(Graph& graph, const nn::ParameterPtr& p) const {
  if (const auto it = assigned_.find(p); it != assigned_.end()) return it->second;
  const Tensor next = next_ ? next_(*p) : Tensor{};
  return next.valid() ? next : graph.input(p->value);
}

Result<std::vector<Tensor>> Objective::apply(Graph& graph, const Apply& call) {
  TN_ASSIGN(const TrainedModel* m, find_model(call.model));
  const std::string& name = m->name;
  layers.begin(info_, !own_passes);
  auto ctx = std::make_unique<nn::Context>(graph, info_.train && !call.eval && !m->frozen, split_key(info_.key, name));
  ctx->mixed = mixed;
  if (call.key.valid()) ctx->key_tensor = call.key;
  const auto& params = m->model.parameters;
  if (!call.params.empty() && call.params.size() != params.size())
    return invalid("model '" + name + "' has " + std::to_string(params.size()) + " parameters, " +
                   std::to_string(call.params.size()) + " were given");
  for (size_t i = 0; i < params.size(); ++i) {
    Tensor t = call.params.empty() ? current(graph, params[i]) : call.params[i];
    if (call.frozen) t = stop_gradient(t);
    if (!call.params.empty() || call.frozen || next_) ctx->substitute(*params[i], t);
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
  if (own_passes && !call.freeze_stats) followed_.push_back(ctx.get());
  again_.push_back(std::move(ctx));
  return out;
}

Result<std::vector<NamedTensor>> Objective::parameters(Graph& graph, const std::string& model) {
  TN_ASSIGN(const TrainedModel* m, find_model(model));
  std::vector<NamedTensor> out;
  for (const nn::ParameterPtr& p : m->model.parameters) out.push_back({m->name + "." + p->name, current(graph, p)});
  return out;
}

Status Objective::assign(const std::string& model, size_t index, Tensor value) {
  TN_ASSIGN(const TrainedModel* m, find_model(model));
  if (index >= m->model.parameters.size()) return invalid("model '" + m->name + "' has no parameter number " + std::to_string(index));
  const nn::ParameterPtr& p = m->model.parameters[index];
  if (value.dtype() != p->value.dtype() || value.shape() != p->value.shape())
    return invalid("model '" + m->name + "': '" + p->name + "' is " + to_string(p->value.type()) + ", the new value " +
                   to_string(TensorType{value.dtype(), value.shape()}));
  assigned_[p] = value;
  return Status::ok();
}

Result<Tensor> Objective::flat(Graph& graph, const std::string& model) {
  TN_ASSIGN(const TrainedModel* m, find_model(model));
  std::vector<Tensor> parts;
  for (const nn::ParameterPtr& p : m->model.parameters)
    if (p->trainable) parts.push_back(reshape(current(graph, p), Shape{p->value.shape().numel()}));
  if (parts.empty()) return invalid("model '" + m->name + "' has no trainable parameters");
  return concat(parts, 0);
}

Status Objective::assign_flat(const std::string& model, Tensor value) {
  TN_ASSIGN(const TrainedModel* m, find_model(model));
  std::vector<nn::ParameterPtr> targets;
  std::vector<int64_t> sizes;
  int64_t total = 0;
  for (const nn::ParameterPtr& p : m->model.parameters)
    if (p->trainable) {
      targets.push_back(p);
      sizes.push_back(p->value.shape().numel());
      total += sizes.back();
    }
  if (targets.empty() || value.dtype() != targets[0]->value.dtype() || value.shape() != Shape{total})
    return invalid("model '" + m->name + "' has " + std::to_string(total) + " trainable numbers, the new value is " +
                   to_string(TensorType{value.dtype(), value.shape()}));
  const std::vector<Tensor> parts = split(value, sizes, 0);
  for (size_t i = 0; i < targets.size(); ++i) assigned_[targets[i]] = reshape(parts[i], targets[i]->value.shape());
  return Status::ok();
}

Status Objective::train_only(const std::string& model, const std::vector<std::string>& prefixes, bool reset_slots) {
  TN_ASSIGN(const TrainedModel* m, find_model(model));
  for (const std::string& prefix : prefixes)
    if (std::none_of(m->model.parameters.begin(), m->model.parameters.end(), [&](const auto& p) { return p->name.starts_with(prefix); }))
      return invalid("model '" + m->name + "' has no parameter whose name begins with '" + prefix + "'");
  changes_.push_back({.model = m->name, .new_values = {}, .train_only = prefixes, .reset_slots = reset_slots});
  return Status::ok();
}

Status Objective::reinitialize(const std::string& model, uint64_t key) {
  TN_ASSIGN(const TrainedModel* m, find_model(model));
  changes_.push_back({.model = m->name, .new_values = key, .train_only = {}});
  return Status::ok();
}

Result<std::vector<FormService::SiteForm>> Objective::sites(const std::string& model) {
  TN_ASSIGN(const TrainedModel* m, find_model(model));
  std::vector<SiteForm> out;
  for (const LayerPlugins::Site* s : layers.sites(m->name)) out.push_back({s->place.name, s->place.flags, s->choice, s->choices});
  return out;
}

Status Objective::configure(const std::string& model, const std::vector<int64_t>& choices) {
  TN_ASSIGN(const TrainedModel* m, find_model(model));
  return layers.configure(m->name, choices);
}

Result<std::vector<int64_t>> Objective::sample(const std::string& model, uint64_t key, int32_t which) {
  TN_ASSIGN(const TrainedModel* m, find_model(model));
  return layers.sample(m->name, key, which);
}

}  // namespace tenon
