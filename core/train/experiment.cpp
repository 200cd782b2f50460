#include "core/train/experiment.h"

#include <algorithm>
#include <regex>
#include <thread>

#include "core/base/random.h"
#include "core/data/read_ahead.h"
#include "core/graph/grad.h"
#include "core/ops/elementwise.h"
#include "core/ops/shape.h"
#include "core/plugin/kernel.h"
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
  e->catalog_ = &catalog;
  e->recipe_ = std::move(recipe);
  e->seed_ = static_cast<uint64_t>(e->recipe_.proto.seed());
  for (const std::string& id : e->recipe_.proto.kernel())
    if (Status s = catalog.kernels().install(runtime, id); !s.is_ok()) return std::move(s).at(e->recipe_.where("kernel"));
  TN_RETURN_IF_ERROR(e->create_plugins(catalog));
  TN_RETURN_IF_ERROR(e->create_metrics(catalog));
  return e;
}

Status Experiment::use(std::vector<DataStream> streams) {
  TN_RETURN_IF_ERROR(use_data(std::move(streams)));
  if (!procedure_) return Status::ok();
  Graph graph(*runtime_);  // its slots must be there before a checkpoint is restored
  return procedure_->init(graph, training_info(0), {}, nullptr).status();
}

Status Experiment::use_data(std::vector<DataStream> streams) {
  if (static_cast<int>(streams.size()) != recipe_.proto.data_size())
    return invalid("the recipe describes " + std::to_string(recipe_.proto.data_size()) + " data streams, " +
                   std::to_string(streams.size()) + " were given");
  const proto::Train& train = recipe_.proto.train();
  streams_ = std::move(streams);
  const auto cores = static_cast<int>(std::thread::hardware_concurrency());
  const bool ahead = train.has_read_ahead() ? train.read_ahead() : cores > runtime_->backend().threads();
  for (size_t i = 0; i < streams_.size(); ++i) {
    TN_ASSIGN(auto batcher, train_batcher(recipe_, static_cast<int>(i), streams_[i],
                                          split_key(seed_, "batches " + streams_[i].name)));
    objective_.streams.push_back(streams_[i].name);
    training_.push_back(ahead ? read_ahead(std::move(batcher)) : std::move(batcher));
  }
  if (streams_.empty()) {  // a procedure with data of its own
    if (recipe_.proto.model_size() + recipe_.proto.loss_size() > 0) return invalid("the recipe has models or losses, but no 'data'");
    return Status::ok();
  }
  TN_RETURN_IF_ERROR(default_metrics());
  steps_per_epoch_ = training_[0]->steps_per_epoch();
  total_steps_ = train.has_steps() ? train.steps() : std::max<int64_t>(train.epochs(), 1) * steps_per_epoch_;
  last_step_ = total_steps_;
  TN_ASSIGN(const Batch first, training_batch(0, nullptr));
  TN_RETURN_IF_ERROR(create_models(first));
  return objective_.losses.empty() || objective_.models.empty() ? Status::ok() : bind_parameters(first);
}

Status Experiment::create_plugins(Catalog& catalog) {
  const proto::Recipe& p = recipe_.proto;
  if (p.has_procedure() && p.procedure().id() != "fit") {
    if (Status s = catalog.check_id(TN_KIND_PROCEDURE, p.procedure().id(), "fit"); !s.is_ok()) return std::move(s).at(recipe_.where("procedure.id"));
    auto made = Instance::create(catalog, TN_KIND_PROCEDURE, p.procedure().id(), p.procedure().id(), to_options(p.procedure().options()));
    if (!made) return std::move(made).status().at(recipe_.where("procedure.id"));
    procedure_ = std::move(made).value();
  }
  for (int i = 0; i < p.loss_size(); ++i) {
    const proto::Loss& l = p.loss(i);
    const std::string path = indexed("loss", p.loss_size(), i);
    LossTerm term;
    term.where = recipe_.where(path);
    term.name = l.has_name() ? l.name() : l.id();
    auto plugin = LossPlugin::create(catalog, l.id(), term.name, to_options(l.options()));
    if (!plugin) return std::move(plugin).status().at(recipe_.where(path + ".id"));
    term.plugin = std::move(plugin).value();
    if (l.has_reweighter()) {
      auto made = Instance::create(catalog, TN_KIND_REWEIGHTER, l.reweighter().id(), term.name + "." + l.reweighter().id(), to_options(l.reweighter().options()));
      if (!made) return std::move(made).status().at(recipe_.where(path + ".reweighter"));
      term.reweighter = std::move(made).value();
      term.through_weights = l.reweighter().differentiate();
    }
    if (l.has_attack()) {
      TN_ASSIGN(term.attack, create_attack(catalog, l.attack(), term.name, path));
    }
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
  TN_RETURN_IF_ERROR(LayerPlugins::check(catalog, recipe_));
  objective_.mixed = p.precision() == proto::Recipe::bf16;
  TN_ASSIGN(optimizers_, Optimizers::create(catalog, recipe_));
  return Status::ok();
}

Result<std::unique_ptr<Instance>> Experiment::create_attack(Catalog& catalog, const proto::Attack& a, const std::string& of, const std::string& path) const {
  auto made = Instance::create(catalog, TN_KIND_ATTACK, a.id(), of + "." + a.id(), to_options(a.options()));
  if (!made) return std::move(made).status().at(recipe_.where(path + ".attack"));
  return made;
}

Status Experiment::create_metrics(Catalog& catalog) {
  for (int i = 0; i < recipe_.proto.metric_size(); ++i) {
    const proto::Metric& m = recipe_.proto.metric(i);
    const std::string where = recipe_.where(indexed("metric", recipe_.proto.metric_size(), i) + ".id");
    auto info = find_metric(m.id());
    if (!info) return std::move(info).status().at(where);
    auto metric = (*info)->make(to_options(m.options()));
    if (!metric) return std::move(metric).status().at(where);
    MetricUse use{.name = m.has_name() ? m.name() : m.id(), .metric = std::move(metric).value(), .roles = std::string((*info)->roles), .bind = {}, .attack = nullptr};
    for (const proto::Bind& b : m.bind()) use.bind[b.role()] = b.to();
    if (m.has_attack()) {
      TN_ASSIGN(use.attack, create_attack(catalog, m.attack(), use.name, indexed("metric", recipe_.proto.metric_size(), i)));
    }
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
    metrics_.push_back({.name = id, .metric = std::move(metric), .roles = std::string(info->roles), .bind = {}, .attack = nullptr});
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
    if (m.has_init_from())
      if (Status st = load_parameters(m.init_from(), recipe_.dir, trained.name, built.model); !st.is_ok())
        return std::move(st).at(recipe_.where(path + ".init_from"));
    TN_RETURN_IF_ERROR(objective_.layers.attach(*runtime_, *catalog_, recipe_, trained.name, built));
    trained.model = std::move(built.model);
    outputs[trained.name + ".output"] = trained.model.output;
    objective_.models.push_back(std::move(trained));
  }
  return objective_.layers.check_patterns(recipe_);
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
  std::vector<nn::ParameterPtr> all = other->model.parameters;
  all.insert(all.end(), other->model.states.begin(), other->model.states.end());
  options.share = [parameters = std::move(all), shared](const std::string& name) -> nn::ParameterPtr {
    const bool wanted = shared.empty() || std::any_of(shared.begin(), shared.end(), [&](const std::regex& r) {
      return std::regex_search(name, r, std::regex_constants::match_continuous);
    });
    for (const nn::ParameterPtr& p : parameters)
      if (wanted && p->name == name) return p;
    return nullptr;
  };
  return options;
}

Status Experiment::select_rows(size_t stream, const std::vector<int64_t>* rows, uint64_t key) {
  DataStream chosen = streams_[stream];
  if (rows) {
    for (int64_t r : *rows)
      if (r < 0 || r >= chosen.train->size())
        return invalid("the stream '" + chosen.name + "' has " + std::to_string(chosen.train->size()) + " training rows, there is no row " + std::to_string(r));
    chosen.train = std::make_shared<Dataset>(chosen.train->take(*rows));
  }
  TN_ASSIGN(training_[stream], train_batcher(recipe_, static_cast<int>(stream), chosen, key));
  return Status::ok();
}

Result<Columns> Experiment::batch_columns(size_t stream, const std::string& split, int64_t number) {
  if (split == "train") return training_[stream]->make(number);
  const DatasetPtr part = streams_[stream].part(split);
  if (!part) return not_found("the stream '" + streams_[stream].name + "' has no part '" + split + "'");
  TN_ASSIGN(const auto batcher, eval_batcher(recipe_, static_cast<int>(stream), streams_[stream], part));
  return batcher->make(number % batcher->steps_per_epoch());
}

Status Experiment::set_column(size_t stream, const std::string& split, const std::string& name, HostArray values) {
  DataStream& s = streams_[stream];
  DatasetPtr* part = split == "train" ? &s.train : split == "val" ? &s.val : split == "test" ? &s.test : nullptr;
  if (!part || !*part) return not_found("the stream '" + s.name + "' has no part '" + split + "'");
  auto changed = std::make_shared<Dataset>(**part);
  TN_RETURN_IF_ERROR(changed->add(name, std::move(values)));
  *part = std::move(changed);
  return split == "train" ? select_rows(stream, nullptr, split_key(seed_, "batches " + s.name)) : Status::ok();
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
    for (Instance* plugin : {&term.plugin->instance(), term.reweighter.get(), term.attack.get()})
      if (plugin) plugin->table_rows = stream->train->size();
  }
  Graph graph(*runtime_);
  CallInfo info = training_info(0);
  objective_.begin(batch, info);
  TN_ASSIGN(Pass * pass, objective_.forward(graph));
  TN_RETURN_IF_ERROR(objective_.evaluate(graph, *pass).status());
  objective_.end();
  for (Instance* plugin : objective_.instances()) plugin->forget_step();

  std::vector<NamedParameter> parameters;
  for (const TrainedModel& m : objective_.models)
    for (const nn::ParameterPtr& q : m.model.parameters) {
      const bool known = std::any_of(parameters.begin(), parameters.end(), [&](const NamedParameter& n) { return n.parameter == q; });
      if (q->trainable && !m.frozen && !known) parameters.push_back({m.name + "." + q->name, q});
    }
  for (Instance* plugin : objective_.instances())
    for (const Instance::Trainable& t : plugin->trainable_parameters())
      parameters.push_back({t.parameter->name, t.parameter, t.optimizer, t.lr_scale, t.no_decay});
  if (procedure_ && recipe_.proto.optimizer_size() == 0) return Status::ok();  // it trains them itself, or none does
  return optimizers_.bind(*runtime_, std::move(parameters));
}

// Bytes (images) and reals take the model's type; other integers stay what they are.
DType Experiment::type_in_model(DType t) const {
  if (!is_floating(t) && t != DType::u8) return t;
  return recipe_.proto.precision() == proto::Recipe::f64 ? DType::f64 : DType::f32;
}

HostArray Experiment::in_model_type(HostArray values) const {
  const DType wanted = type_in_model(values.dtype());
  if (values.dtype() == wanted) return values;
  HostArray converted(wanted, values.shape());
  for (int64_t i = 0; i < values.numel(); ++i) converted.set(i, values.at(i));
  return converted;
}

Result<Batch> Experiment::upload(const DataStream& stream, const Columns& columns, bool first, Batch batch) const {
  for (const auto& [name, host] : columns) {
    HostArray converted;
    const bool fits = host.dtype() == type_in_model(host.dtype());
    if (!fits) converted = in_model_type(host);
    TN_ASSIGN(Array a, Array::from_host(runtime_->backend(), fits ? host : converted));
    if (first) batch[name] = a;
    batch[stream.name + "." + name] = std::move(a);
  }
  return batch;
}

Result<HostArray> Experiment::rows(size_t stream, const std::string& split, const std::string& column, const std::vector<int64_t>* indices) const {
  const DataStream& s = streams_[stream];
  const DatasetPtr part = s.part(split);
  if (!part) return not_found("the stream '" + s.name + "' has no part '" + split + "'");
  TN_RETURN_IF_ERROR(part->column(column).status());
  for (int64_t r : indices ? *indices : std::vector<int64_t>{})
    if (r < 0 || r >= part->size()) return invalid("there is no row " + std::to_string(r) + " among the " + std::to_string(part->size()) + " of '" + split + "'");
  Columns columns = indices ? part->take(*indices).columns() : part->columns();
  TN_RETURN_IF_ERROR(apply_all(s.transform_list(), columns, 0, false));
  return in_model_type(std::move(columns.find(column)->second));
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
  if (procedure_)
    for (const auto& [name, array] : procedure_->saved_slots()) out.emplace_back("procedure/" + name, array);
  for (const auto& [name, array] : optimizers_.saved_slots()) out.emplace_back("optimizer/" + name, array);
  for (const auto& [owner, plugin] : objective_.plugins())
    for (const auto& [name, array] : plugin->saved_slots()) out.emplace_back(owner + "/" + name, array);
  return out;
}

}  // namespace tenon
