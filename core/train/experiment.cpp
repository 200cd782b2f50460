#include "core/train/experiment.h"

#include <algorithm>
#include <regex>

#include "core/base/random.h"
#include "core/graph/grad.h"
#include "core/ops/elementwise.h"
#include "core/ops/shape.h"
#include "core/train/run_folder.h"

namespace tenon {
namespace {

std::string indexed(const char* name, int count, int i) {
  return count > 1 ? std::string(name) + "[" + std::to_string(i) + "]" : name;
}

}  // namespace

Result<std::unique_ptr<Experiment>> Experiment::open(Runtime& runtime, Catalog& catalog, Recipe recipe,
                                                     const std::string& data_root) {
  TN_ASSIGN(auto e, with_plugins(runtime, catalog, std::move(recipe)));
  std::vector<DataStream> streams;
  for (int i = 0; i < e->recipe_.proto.data_size(); ++i) {
    TN_ASSIGN(DataStream stream, read_stream(e->recipe_, i, data_root));
    streams.push_back(std::move(stream));
  }
  TN_RETURN_IF_ERROR(e->use(std::move(streams)));
  return e;
}

Result<std::unique_ptr<Experiment>> Experiment::open(Runtime& runtime, Catalog& catalog, Recipe recipe,
                                                     std::vector<DataStream> streams) {
  TN_ASSIGN(auto e, with_plugins(runtime, catalog, std::move(recipe)));
  TN_RETURN_IF_ERROR(e->use(std::move(streams)));
  return e;
}

// Options of plugins and metrics are checked here, before any data is read.
Result<std::unique_ptr<Experiment>> Experiment::with_plugins(Runtime& runtime, Catalog& catalog, Recipe recipe) {
  std::unique_ptr<Experiment> e(new Experiment());
  e->runtime_ = &runtime;
  e->recipe_ = std::move(recipe);
  e->seed_ = static_cast<uint64_t>(e->recipe_.proto.seed());
  TN_RETURN_IF_ERROR(e->create_plugins(catalog));
  TN_RETURN_IF_ERROR(e->create_metrics());
  return e;
}

Status Experiment::use(std::vector<DataStream> streams) {
  if (streams.empty() || static_cast<int>(streams.size()) != recipe_.proto.data_size())
    return invalid("the recipe describes " + std::to_string(recipe_.proto.data_size()) + " data streams, " +
                   std::to_string(streams.size()) + " were given");
  const proto::Train& train = recipe_.proto.train();
  streams_ = std::move(streams);
  for (size_t i = 0; i < streams_.size(); ++i) {
    TN_ASSIGN(auto batcher, train_batcher(recipe_, static_cast<int>(i), streams_[i],
                                          split_key(seed_, "batches " + streams_[i].name)));
    objective_.streams.push_back(streams_[i].name);
    training_.push_back(std::move(batcher));
  }
  TN_RETURN_IF_ERROR(default_metrics());
  steps_per_epoch_ = training_[0]->steps_per_epoch();
  total_steps_ = train.has_steps() ? train.steps() : std::max<int64_t>(train.epochs(), 1) * steps_per_epoch_;
  last_step_ = total_steps_;
  TN_ASSIGN(const Batch first, training_batch(0, nullptr));
  TN_RETURN_IF_ERROR(create_models(first));
  return bind_parameters(first);
}

Status Experiment::create_plugins(Catalog& catalog) {
  const proto::Recipe& p = recipe_.proto;
  if (p.has_procedure() && p.procedure().id() != "fit")
    return unsupported(recipe_.where("procedure.id") + ": no procedure '" + p.procedure().id() + "' (there is: fit)");
  for (int i = 0; i < p.loss_size(); ++i) {
    const proto::Loss& l = p.loss(i);
    const std::string path = indexed("loss", p.loss_size(), i);
    LossTerm term;
    term.where = recipe_.where(path);
    term.name = l.has_name() ? l.name() : l.id();
    auto plugin = LossPlugin::create(catalog, l.id(), term.name, to_options(l.options()));
    if (!plugin) return std::move(plugin).status().at(recipe_.where(path + ".id"));
    term.plugin = std::move(plugin).value();
    if (l.has_reweighter()) return unsupported(recipe_.where(path + ".reweighter") + ": this host trains without reweighters");
    term.weight = l.weight();
    if (l.has_weight_schedule()) {
      auto schedule = Schedule::make(l.weight_schedule().id(), to_options(l.weight_schedule().options()));
      if (!schedule) return std::move(schedule).status().at(recipe_.where(path + ".weight_schedule"));
      term.weight_schedule = std::move(schedule).value();
    }
    for (const proto::Bind& b : l.bind()) term.bind[b.role()] = b.to();
    term.stream = l.data();
    term.models.assign(l.model().begin(), l.model().end());
    objective_.losses.push_back(std::move(term));
  }
  if (p.parametrization_size() > 0)
    return unsupported(recipe_.where("parametrization") + ": this host trains without parametrizations");
  objective_.mixed = p.precision() == proto::Recipe::bf16;
  TN_ASSIGN(optimizers_, Optimizers::create(catalog, recipe_));
  return Status::ok();
}

Status Experiment::create_metrics() {
  for (int i = 0; i < recipe_.proto.metric_size(); ++i) {
    const proto::Metric& m = recipe_.proto.metric(i);
    const std::string where = recipe_.where(indexed("metric", recipe_.proto.metric_size(), i) + ".id");
    auto info = find_metric(m.id());
    if (!info) return std::move(info).status().at(where);
    auto metric = (*info)->make(to_options(m.options()));
    if (!metric) return std::move(metric).status().at(where);
    MetricUse use{.name = m.has_name() ? m.name() : m.id(), .metric = std::move(metric).value(), .roles = std::string((*info)->roles), .bind = {}};
    for (const proto::Bind& b : m.bind()) use.bind[b.role()] = b.to();
    metrics_.push_back(std::move(use));
  }
  return Status::ok();
}

// What suits the data when the recipe names no metric: bits per character for text, accuracy for classes, squared error
// and R2 for numbers.
Status Experiment::default_metrics() {
  if (!metrics_.empty()) return Status::ok();
  std::vector<std::string> ids;
  const auto y = streams_[0].train->columns().find("y");
  if (streams_[0].train->has("tokens")) ids = {"bits_per_char"};
  else if (y != streams_[0].train->columns().end()) ids = is_integer(y->second.dtype()) ? std::vector<std::string>{"accuracy"} : std::vector<std::string>{"mse", "r2"};
  for (const std::string& id : ids) {
    TN_ASSIGN(const MetricInfo* info, find_metric(id));
    TN_ASSIGN(auto metric, info->make({}));
    metrics_.push_back({.name = id, .metric = std::move(metric), .roles = std::string(info->roles), .bind = {}});
  }
  return Status::ok();
}

Status Experiment::create_models(const Batch& batch) {
  const proto::Recipe& p = recipe_.proto;
  std::map<std::string, TensorType> outputs;
  for (int i = 0; i < p.model_size(); ++i) {
    const proto::Model& m = p.model(i);
    const std::string path = indexed("model", p.model_size(), i);
    TrainedModel trained;
    trained.name = m.name();
    trained.frozen = m.frozen();
    trained.inputs.assign(m.input().begin(), m.input().end());
    if (trained.inputs.empty()) trained.inputs = {"x"};
    ModelFacts facts;
    for (const std::string& source : trained.inputs) {
      if (const auto it = batch.find(source); it != batch.end()) facts.inputs.push_back(it->second.type());
      else if (const auto out = outputs.find(source); out != outputs.end()) facts.inputs.push_back(out->second);
      else return invalid(recipe_.where(path + ".input") + ": '" + source + "' names neither a column of the data nor an earlier model's output");
    }
    const DataStream& stream = streams_[0];
    facts.outputs = stream.outputs;
    facts.vocab = stream.vocab;
    facts.context = stream.context;
    TN_ASSIGN(const nn::BuildOptions options, build_options(m, path));
    TN_ASSIGN(RecipeModel built, model_from_recipe(*runtime_, recipe_, m, path, facts, options));
    facts_.push_back(std::move(facts));
    if (!built.routers.empty())
      for (const RouterUse& r : built.routers)
        if (r.router.id() != "softmax_topk")
          return unsupported(recipe_.where(path) + ": no router '" + r.router.id() + "' (there is: softmax_topk)");
    trained.model = std::move(built.model);
    if (m.has_init_from())
      if (Status st = load_parameters(m.init_from(), recipe_.dir, trained.name, trained.model); !st.is_ok())
        return std::move(st).at(recipe_.where(path + ".init_from"));
    outputs[trained.name + ".output"] = trained.model.output;
    objective_.models.push_back(std::move(trained));
  }
  return Status::ok();
}

Result<nn::BuildOptions> Experiment::build_options(const proto::Model& m, const std::string& path) const {
  nn::BuildOptions options{.seed = split_key(seed_, "model " + m.name()),
                           .dtype = recipe_.proto.precision() == proto::Recipe::f64 ? DType::f64 : DType::f32};
  if (!m.has_share_with()) return options;
  const auto other = std::find_if(objective_.models.begin(), objective_.models.end(),
                                  [&](const TrainedModel& t) { return t.name == m.share_with(); });
  if (other == objective_.models.end())
    return invalid(recipe_.where(path + ".share_with") + ": there is no model '" + m.share_with() + "' before this one");
  std::vector<std::regex> shared;
  for (const std::string& s : m.shared()) shared.emplace_back(s);
  options.share = [parameters = other->model.parameters, shared](const std::string& name) -> nn::ParameterPtr {
    const bool wanted = shared.empty() || std::any_of(shared.begin(), shared.end(), [&](const std::regex& r) {
      return std::regex_search(name, r, std::regex_constants::match_continuous);
    });
    for (const nn::ParameterPtr& p : parameters)
      if (wanted && p->name == name) return p;
    return nullptr;
  };
  return options;
}

const std::string& Experiment::main_model() const {
  const auto& losses = objective_.losses;
  return losses.empty() || losses[0].models.empty() ? objective_.models[0].name : losses[0].models[0];
}

// One step is built (not evaluated) first: it checks that data, model and losses fit, and lets losses declare
// parameters of their own before the optimizers divide them up.
Status Experiment::bind_parameters(const Batch& batch) {
  for (LossTerm& term : objective_.losses) {
    const DataStream* stream = &streams_[0];
    for (const DataStream& s : streams_)
      if (s.name == term.stream) stream = &s;
    term.plugin->instance().table_rows = stream->train->size();
  }
  Graph graph(*runtime_);
  CallInfo info = training_info(0);
  objective_.begin(batch, info);
  TN_ASSIGN(Pass * pass, objective_.forward(graph));
  TN_RETURN_IF_ERROR(objective_.evaluate(graph, *pass).status());
  objective_.end();
  for (LossTerm& term : objective_.losses) term.plugin->instance().forget_step();

  std::vector<NamedParameter> parameters;
  for (const TrainedModel& m : objective_.models)
    for (const nn::ParameterPtr& q : m.model.parameters) {
      const bool known = std::any_of(parameters.begin(), parameters.end(), [&](const NamedParameter& n) { return n.parameter == q; });
      if (q->trainable && !m.frozen && !known) parameters.push_back({m.name + "." + q->name, q});
    }
  for (LossTerm& term : objective_.losses)
    for (const Instance::Trainable& t : term.plugin->instance().trainable_parameters())
      parameters.push_back({t.parameter->name, t.parameter, t.optimizer});
  return optimizers_.bind(*runtime_, std::move(parameters));
}

Result<Batch> Experiment::upload(const DataStream& stream, const Columns& columns, bool first, Batch batch) const {
  const bool f64 = recipe_.proto.precision() == proto::Recipe::f64;
  for (const auto& [name, host] : columns) {
    const HostArray* value = &host;
    HostArray converted;
    // Bytes (images) and reals take the model's type; other integers stay what they are.
    const DType wanted = f64 ? DType::f64 : DType::f32;
    if (host.dtype() != wanted && (is_floating(host.dtype()) || host.dtype() == DType::u8)) {
      converted = HostArray(wanted, host.shape());
      for (int64_t i = 0; i < host.numel(); ++i) converted.set(i, host.at(i));
      value = &converted;
    }
    TN_ASSIGN(Array a, Array::from_host(runtime_->backend(), *value));
    if (first) batch[name] = a;
    batch[stream.name + "." + name] = std::move(a);
  }
  return batch;
}

Result<Batch> Experiment::training_batch(int64_t step, int64_t* samples) {
  Batch batch;
  int64_t n = 0;
  for (size_t i = 0; i < streams_.size(); ++i) {
    TN_ASSIGN(const Columns columns, training_[i]->make(step));
    n += training_[i]->batch_rows(step);
    TN_ASSIGN(batch, upload(streams_[i], columns, i == 0, std::move(batch)));
  }
  if (samples) *samples = n;
  return batch;
}

CallInfo Experiment::training_info(int64_t step) const {
  return {.epoch = step / steps_per_epoch_,
          .step = step,
          .total_steps = total_steps_,
          .lr = optimizers_.learning_rate(step, total_steps_),
          .key = split_key(split_key(seed_, "step"), static_cast<uint64_t>(step)),
          .train = true};
}

Status Experiment::apply(const Objective::ModelChange& change) {
  const auto& models = objective_.models;
  const auto k = static_cast<size_t>(std::find_if(models.begin(), models.end(), [&](const TrainedModel& m) { return m.name == change.model; }) - models.begin());
  if (!change.new_values)
    return optimizers_.train_only(*runtime_, [&](const NamedParameter& p) {
      const auto& own = models[k].model.parameters;
      if (std::find(own.begin(), own.end(), p.parameter) == own.end()) {
        const auto& now = optimizers_.parameters();  // another model's: as it is
        return std::any_of(now.begin(), now.end(), [&](const NamedParameter& q) { return q.parameter == p.parameter; });
      }
      return change.train_only.empty() || std::any_of(change.train_only.begin(), change.train_only.end(), [&](const std::string& s) {
        return p.parameter->name.starts_with(s);
      });
    }, change.reset_slots);
  const proto::Model& m = recipe_.proto.model(static_cast<int>(k));
  const std::string path = indexed("model", recipe_.proto.model_size(), static_cast<int>(k));
  TN_ASSIGN(nn::BuildOptions options, build_options(m, path));
  options.seed = *change.new_values;
  TN_ASSIGN(const RecipeModel fresh, model_from_recipe(*runtime_, recipe_, m, path, facts_[k], options));
  const auto renew = [](const std::vector<nn::ParameterPtr>& to, const std::vector<nn::ParameterPtr>& from) -> Status {
    for (size_t i = 0; i < to.size(); ++i) {
      if (to[i] == from[i]) continue;  // shared with another model
      TN_ASSIGN(const HostArray value, from[i]->value.to_host());
      TN_RETURN_IF_ERROR(to[i]->value.assign(value));
    }
    return Status::ok();
  };
  TN_RETURN_IF_ERROR(renew(models[k].model.parameters, fresh.model.parameters));
  return renew(models[k].model.states, fresh.model.states);
}

std::vector<std::pair<std::string, Array>> Experiment::saved_arrays() const {
  std::vector<std::pair<std::string, Array>> out;
  std::vector<const nn::Parameter*> seen;
  for (const TrainedModel& m : objective_.models)
    for (const auto* list : {&m.model.parameters, &m.model.states})
      for (const nn::ParameterPtr& p : *list) {
        if (std::find(seen.begin(), seen.end(), p.get()) != seen.end()) continue;
        seen.push_back(p.get());
        out.emplace_back(m.name + "." + p->name, p->value);
      }
  for (const auto& [name, array] : optimizers_.saved_slots()) out.emplace_back("optimizer/" + name, array);
  for (const LossTerm& term : objective_.losses)
    for (const auto& [name, array] : term.plugin->instance().saved_slots()) out.emplace_back("loss/" + term.name + "/" + name, array);
  return out;
}

}  // namespace tenon
