// "tenon.session/1", "tenon.data/1", "tenon.plugins/1" and "tenon.fit/1".
#include <algorithm>
#include <cstring>

#include "core/plugin/aggregator.h"
#include "core/plugin/attack.h"
#include "core/plugin/build.h"
#include "core/plugin/run_service.h"
#include "core/plugin/views.h"

namespace tenon {
namespace {

std::string text(const char* s) { return s ? s : ""; }

RunService* service(Call& call, const char* what) {
  if (call.run) return call.run;
  call.fail(unsupported(std::string(what) + ": there is no run to ask"));
  return nullptr;
}

// Names for a plugin to read until its next such call.
void hand_out(Call& call, std::vector<std::string> names) { call.parameter_names = std::move(names); }

// --- sessions ---
tn_ctx* session_open(tn_ctx* parent, uint32_t flags, int64_t step) {
  Call& call = Call::of(parent);
  RunService* run = service(call, "open");
  if (!run) return nullptr;
  auto session = run->open(call, (flags & TN_CTX_TRAIN) != 0, step);
  if (!session) {
    call.fail(session.status());
    return nullptr;
  }
  return (*session)->ctx();
}
int32_t session_run(tn_ctx* ctx, const tn_tensor* values, uint32_t n) {
  Call& call = Call::of(ctx);
  RunService* run = service(call, "run");
  if (!run) return to_abi(call.status());
  std::vector<Tensor> wanted;
  for (uint32_t i = 0; i < n; ++i) wanted.push_back(call.tensor(values[i]));
  if (!call.status().is_ok()) return to_abi(call.status());
  return call.fail(run->evaluate(call, wanted));
}
void session_close(tn_ctx* ctx) {
  if (!ctx) return;
  Call& call = Call::of(ctx);
  if (call.run) call.run->close(call);
}
int32_t session_checkpoint(tn_ctx* ctx, int32_t force) {
  Call& call = Call::of(ctx);
  RunService* run = service(call, "checkpoint");
  return run ? call.fail(run->checkpoint(force != 0)) : to_abi(call.status());
}
constexpr tn_session_api kSession = {sizeof(tn_session_api), 0, session_open, session_run, session_close, session_checkpoint};

// --- data ---
int32_t data_count(tn_ctx* ctx, const char* stream, const char* split, int64_t* n) {
  Call& call = Call::of(ctx);
  RunService* run = service(call, "count");
  if (!run) return to_abi(call.status());
  auto r = run->count(text(stream), text(split));
  if (!r) return call.fail(r.status());
  *n = *r;
  return TN_STATUS_OK;
}
int32_t data_columns(tn_ctx* ctx, const char* stream, const char** names, uint32_t capacity, uint32_t* n) {
  Call& call = Call::of(ctx);
  RunService* run = service(call, "columns");
  if (!run) return to_abi(call.status());
  auto r = run->columns(text(stream));
  if (!r) return call.fail(r.status());
  hand_out(call, std::move(r).value());
  *n = static_cast<uint32_t>(call.parameter_names.size());
  for (uint32_t i = 0; names && i < *n && i < capacity; ++i) names[i] = call.parameter_names[i].c_str();
  return TN_STATUS_OK;
}
tn_tensor upload(Call& call, const HostArray& h) {
  auto array = Array::from_host(call.graph->backend(), h);
  if (!array) {
    call.fail(array.status());
    return TN_NULL;
  }
  return call.handle(call.graph->input(*array));
}
bool building(Call& call, const char* what) {
  if (!call.graph) call.fail(invalid(std::string(what) + ": tensors can only be made in a session"));
  return call.status().is_ok();
}
tn_tensor data_rows(tn_ctx* ctx, const char* stream, const char* split, const char* column, const int64_t* indices, int64_t n) {
  Call& call = Call::of(ctx);
  RunService* run = service(call, "rows");
  if (!run || !building(call, "rows")) return TN_NULL;
  std::vector<int64_t> chosen;
  if (indices) chosen.assign(indices, indices + n);
  auto r = run->rows(text(stream), text(split), text(column), indices ? &chosen : nullptr);
  if (!r) {
    call.fail(r.status());
    return TN_NULL;
  }
  return upload(call, *r);
}
int32_t data_next(tn_ctx* ctx, const char* stream, const char* split, tn_named* out, uint32_t capacity, uint32_t* n) {
  Call& call = Call::of(ctx);
  RunService* run = service(call, "next");
  if (!run || !building(call, "next")) return to_abi(call.status());
  auto batch = run->next_batch(text(stream), text(split));
  if (!batch) return call.fail(batch.status());
  std::vector<std::string> names;
  for (const auto& [name, unused] : *batch) names.push_back(name);
  hand_out(call, std::move(names));
  *n = static_cast<uint32_t>(batch->size());
  for (uint32_t i = 0; i < *n && i < capacity; ++i) out[i] = {call.parameter_names[i].c_str(), upload(call, (*batch)[i].second)};
  return to_abi(call.status());
}
constexpr tn_data_api kData = {sizeof(tn_data_api), 0, data_count, data_columns, data_rows, data_next};

// --- other plugins ---
HeldPlugin& held(tn_instance* p) { return *reinterpret_cast<HeldPlugin*>(p); }

tn_instance* give(Call& call, Result<HeldPlugin*> r) {
  if (r) return reinterpret_cast<tn_instance*>(*r);
  call.fail(r.status());
  return nullptr;
}
tn_instance* plugins_create(tn_ctx* ctx, const char* kind, const char* id, const tn_attr* options, uint32_t n) {
  Call& call = Call::of(ctx);
  RunService* run = service(call, "create");
  return run ? give(call, run->create(text(kind), text(id), options_of(options, n))) : nullptr;
}
tn_instance* plugins_recipe(tn_ctx* ctx, const char* kind, const char* name) {
  Call& call = Call::of(ctx);
  RunService* run = service(call, "recipe");
  return run ? give(call, run->of_recipe(text(kind), text(name))) : nullptr;
}
void plugins_release(tn_ctx* ctx, tn_instance* p) {
  Call& call = Call::of(ctx);
  if (call.run && p) call.run->release(&held(p));
}

// Puts into the slots of a plugin, once they are declared, what a checkpoint held for them.
Status restore_slots(HeldPlugin& p) {
  for (auto& [name, array] : p.instance->saved_slots()) {
    const auto stored = p.stored.extract(name);
    if (stored.empty()) continue;
    const TensorType held{stored.mapped().dtype(), stored.mapped().shape()};
    if (held != array.type())
      return invalid(p.instance->who() + ": its slot '" + name + "' is " + to_string(array.type()) + ", the checkpoint holds " + to_string(held));
    TN_RETURN_IF_ERROR(array.assign(stored.mapped()));
  }
  return Status::ok();
}
// A use of a plugin. The first one declares its slots: where a checkpoint held something for them, it is built once more.
template <class Use>
auto use_of(HeldPlugin& p, Use&& use) -> decltype(use()) {
  auto r = use();
  if (!r || p.stored.empty()) return r;
  TN_RETURN_IF_ERROR(restore_slots(p));
  p.stored.clear();
  p.instance->forget_step();
  return use();
}
// What must hold for another plugin must hold when the session is evaluated.
void take_checks(Call& call, const Instance& plugin, const Emissions& emitted) {
  for (const NamedTensor& check : emitted.checks(plugin.who())) call.emitted.tensors.push_back({check.name, check.value, TN_OUT_CHECK});
}
int32_t hand_over(Call& call, const Instance& plugin, const Emissions& emitted, tn_named* out, uint32_t capacity, uint32_t* n) {
  take_checks(call, plugin, emitted);
  std::vector<std::string> names;
  for (const Emitted& e : emitted.tensors)
    if (e.as != TN_OUT_CHECK) names.push_back(e.name);
  hand_out(call, std::move(names));
  uint32_t k = 0;
  for (const Emitted& e : emitted.tensors) {
    if (e.as == TN_OUT_CHECK) continue;
    if (k < capacity) out[k] = {call.parameter_names[k].c_str(), call.handle(e.value)};
    ++k;
  }
  *n = k;
  return to_abi(call.status());
}
std::vector<NamedTensor> inputs_of(Call& call, const tn_named* in, uint32_t n) {
  std::vector<NamedTensor> out;
  for (uint32_t i = 0; i < n; ++i)
    if (in[i].tensor != TN_NULL) out.push_back({text(in[i].name), call.tensor(in[i].tensor)});
  return out;
}
int32_t plugins_build(tn_ctx* ctx, tn_instance* p, const tn_named* in, uint32_t n_in, tn_named* out, uint32_t capacity, uint32_t* n) {
  Call& call = Call::of(ctx);
  if (!p || !building(call, "build")) return call.fail(invalid("build: there is no plugin"));
  const auto inputs = inputs_of(call, in, n_in);
  if (!call.status().is_ok()) return to_abi(call.status());
  Instance& instance = *held(p).instance;
  auto r = use_of(held(p), [&] { return build_plugin(instance, build_function(instance), *call.graph, call.info, inputs, call.models); });
  if (!r) return call.fail(r.status());
  return hand_over(call, instance, *r, out, capacity, n);
}

// One step of an optimizer of the procedure's own on all parameters of a model.
Status step_model(Call& call, HeldPlugin& p, const std::string& model, const std::vector<Tensor>& grads) {
  if (!p.optimizer) return invalid("step: " + p.instance->who() + " is not an optimizer made by this procedure");
  if (!call.models) return unsupported("step: there is no model");
  TN_ASSIGN(const std::vector<NamedTensor> params, call.models->parameters(*call.graph, model));
  if (params.size() != grads.size())
    return invalid("step: the model has " + std::to_string(params.size()) + " parameters, " + std::to_string(grads.size()) + " gradients were given");
  std::vector<std::string> names;
  std::vector<Tensor> values;
  for (const NamedTensor& t : params) names.push_back(t.name), values.push_back(t.value);
  if (!p.instance->initialised()) {
    TN_ASSIGN(const auto arrays, call.graph->eval(values));
    TN_RETURN_IF_ERROR(p.optimizer->init(*call.graph, names, arrays));
    p.instance->set_initialised();
    TN_RETURN_IF_ERROR(restore_slots(p));
  }
  CallInfo info = call.info;
  info.lr = p.optimizer->learning_rate();
  TN_ASSIGN(const auto next, p.optimizer->step(*call.graph, info, {.names = names, .params = values, .grads = grads, .count = ++p.steps}));
  for (size_t i = 0; i < values.size(); ++i) TN_RETURN_IF_ERROR(call.models->assign(model, i, next.params[i]));
  return Status::ok();
}
int32_t plugins_step(tn_ctx* ctx, tn_instance* p, const char* model, const tn_tensor* grads, uint32_t n) {
  Call& call = Call::of(ctx);
  if (!p || !building(call, "step")) return call.fail(invalid("step: there is no plugin"));
  std::vector<Tensor> gs;
  for (uint32_t i = 0; i < n; ++i) gs.push_back(call.tensor(grads[i]));
  if (!call.status().is_ok()) return to_abi(call.status());
  return call.fail(step_model(call, held(p), text(model), gs));
}
int32_t plugins_perturb(tn_ctx* ctx, tn_instance* p, const tn_attack_target* target, const tn_named* in, uint32_t n_in, tn_named* out,
                        uint32_t capacity, uint32_t* n) {
  Call& call = Call::of(ctx);
  if (!p || !target || !building(call, "perturb")) return call.fail(invalid("perturb: there is no plugin or no target"));
  const auto inputs = inputs_of(call, in, n_in);
  AttackTarget at;
  at.evaluate = [&](Graph&, Tensor x, bool wants_loss) -> Result<AttackTarget::At> {
    tn_tensor per_sample = TN_NULL, output = TN_NULL;
    if (const int32_t code = target->evaluate(target, ctx, call.handle(x), wants_loss ? &per_sample : nullptr, &output))
      return call.status().is_ok() ? from_abi(code, "perturb: the target failed") : call.status();
    return AttackTarget::At{call.tensor(per_sample), call.tensor(output)};
  };
  if (!call.status().is_ok()) return to_abi(call.status());
  auto r = use_of(held(p), [&] { return perturb_input(*held(p).instance, *call.graph, call.info, at, inputs); });
  if (!r) return call.fail(r.status());
  return hand_over(call, *held(p).instance, r->emitted, out, capacity, n);
}
int32_t plugins_aggregate(tn_ctx* ctx, tn_instance* p, const tn_round* r, tn_tensor* params) {
  Call& call = Call::of(ctx);
  if (!p || !r || !building(call, "aggregate")) return call.fail(invalid("aggregate: there is no plugin or no round"));
  FederatedRound round{.round = r->round,
                       .participation = {r->participation, r->participation + r->n_clients},
                       .client_samples = {},
                       .params = call.tensor(r->params),
                       .deltas = call.tensor(r->deltas),
                       .inputs = TN_HAS(r, in) ? inputs_of(call, r->in, r->n_in) : std::vector<NamedTensor>{}};
  if (r->client_samples) round.client_samples.assign(r->client_samples, r->client_samples + r->n_clients);
  if (!call.status().is_ok()) return to_abi(call.status());
  auto out = use_of(held(p), [&] { return aggregate_round(*held(p).instance, *call.graph, call.info, round); });
  if (!out) return call.fail(out.status());
  take_checks(call, *held(p).instance, out->emitted);
  *params = call.handle(out->params);
  return to_abi(call.status());
}
int32_t plugins_reset(tn_ctx* ctx, tn_instance* p) {
  Call& call = Call::of(ctx);
  if (!p) return call.fail(invalid("reset: there is no plugin"));
  held(p).steps = 0;
  return call.fail(held(p).instance->reset(""));
}
constexpr tn_plugins_api kPlugins = {sizeof(tn_plugins_api), 0, plugins_create, plugins_recipe, plugins_release, plugins_build,
                                     plugins_step, plugins_perturb, plugins_aggregate, plugins_reset};

// --- the recipe's own training ---
int32_t fit_train(tn_ctx* ctx, int64_t first, int64_t n, double* mean_loss) {
  Call& call = Call::of(ctx);
  RunService* run = service(call, "train");
  if (!run) return to_abi(call.status());
  auto r = run->train(first, n);
  if (!r) return call.fail(r.status());
  if (mean_loss) *mean_loss = *r;
  return TN_STATUS_OK;
}
int32_t fit_evaluate(tn_ctx* ctx, const char* split, const char* const* metrics, uint32_t n, double* out) {
  Call& call = Call::of(ctx);
  RunService* run = service(call, "evaluate");
  for (uint32_t i = 0; run && i < n; ++i) {
    auto r = run->metric(text(split), text(metrics[i]));
    if (!r) return call.fail(r.status());
    out[i] = *r;
  }
  return to_abi(call.status());
}
int32_t fit_predict(tn_ctx* ctx, const char* model, const char* split, double* out, uint64_t capacity, uint64_t* n) {
  Call& call = Call::of(ctx);
  RunService* run = service(call, "predict");
  if (!run) return to_abi(call.status());
  auto r = run->predict(text(model), text(split));
  if (!r) return call.fail(r.status());
  *n = r->size();
  if (out && capacity >= r->size()) std::copy(r->begin(), r->end(), out);
  return TN_STATUS_OK;
}
int32_t fit_set_column(tn_ctx* ctx, const char* stream, const char* split, const char* name, const tn_view* values) {
  Call& call = Call::of(ctx);
  RunService* run = service(call, "set_column");
  if (!run) return to_abi(call.status());
  auto host = host_array(values);
  if (!host) return call.fail(std::move(host).status().at("set_column"));
  return call.fail(run->set_column(text(stream), text(split), text(name), std::move(host).value()));
}
int32_t fit_select_rows(tn_ctx* ctx, const char* stream, const int64_t* rows, int64_t n, uint64_t key) {
  Call& call = Call::of(ctx);
  RunService* run = service(call, "select_rows");
  if (!run) return to_abi(call.status());
  std::vector<int64_t> chosen;
  if (rows) chosen.assign(rows, rows + n);
  return call.fail(run->select_rows(text(stream), rows ? &chosen : nullptr, key));
}
constexpr tn_fit_api kFit = {sizeof(tn_fit_api), 0, fit_train, fit_evaluate, fit_predict, fit_set_column, fit_select_rows};

// --- quantised forms ---
// The run's, or within a step the trainer's.
FormService* forms(Call& call, const char* what) {
  if (call.run) return call.run;
  if (auto* trainer = dynamic_cast<FormService*>(call.models)) return trainer;
  call.fail(unsupported(std::string(what) + ": there are no models to ask"));
  return nullptr;
}

int32_t supernet_sites(tn_ctx* ctx, const char* model, tn_site* out, uint32_t capacity, uint32_t* n) {
  Call& call = Call::of(ctx);
  FormService* known = forms(call, "sites");
  if (!known) return to_abi(call.status());
  auto r = known->sites(text(model));
  if (!r) return call.fail(r.status());
  std::vector<std::string> names;
  for (const FormService::SiteForm& s : *r) names.push_back(s.name);
  hand_out(call, std::move(names));
  *n = static_cast<uint32_t>(r->size());
  for (uint32_t i = 0; out && i < *n && i < capacity; ++i) {
    const FormService::SiteForm& s = (*r)[i];
    out[i].flags = s.flags;
    out[i].name = call.parameter_names[i].c_str();
    out[i].choice = s.choice;
    out[i].index = i;
    out[i].n_sites = *n;
  }
  return TN_STATUS_OK;
}
int32_t supernet_choices(tn_ctx* ctx, const char* model, uint32_t site, const int64_t** values, uint32_t* n) {
  Call& call = Call::of(ctx);
  FormService* known = forms(call, "choices");
  if (!known) return to_abi(call.status());
  auto r = known->sites(text(model));
  if (!r) return call.fail(r.status());
  if (site >= r->size()) return call.fail(invalid("choices: there is no site " + std::to_string(site)));
  call.numbers = (*r)[site].choices;
  *values = call.numbers.data();
  *n = static_cast<uint32_t>(call.numbers.size());
  return TN_STATUS_OK;
}
int32_t supernet_configure(tn_ctx* ctx, const char* model, const int64_t* choices, uint32_t n) {
  Call& call = Call::of(ctx);
  FormService* known = forms(call, "configure");
  return known ? call.fail(known->configure(text(model), std::vector<int64_t>(choices, choices + n))) : to_abi(call.status());
}
int32_t supernet_sample(tn_ctx* ctx, const char* model, uint64_t key, int32_t which, int64_t* out, uint32_t n) {
  Call& call = Call::of(ctx);
  FormService* known = forms(call, "sample");
  if (!known) return to_abi(call.status());
  auto r = known->sample(text(model), key, which);
  if (!r) return call.fail(r.status());
  if (r->size() != n) return call.fail(invalid("sample: the model has " + std::to_string(r->size()) + " sites, there is room for " + std::to_string(n)));
  std::copy(r->begin(), r->end(), out);
  return TN_STATUS_OK;
}
int32_t supernet_recalibrate(tn_ctx* ctx, const char* model, int64_t batches) {
  Call& call = Call::of(ctx);
  RunService* run = service(call, "recalibrate");
  return run ? call.fail(run->recalibrate(text(model), batches)) : to_abi(call.status());
}
constexpr tn_supernet_api kSupernet = {sizeof(tn_supernet_api), 0, supernet_sites, supernet_choices, supernet_configure,
                                       supernet_sample, supernet_recalibrate};

}  // namespace

const tn_supernet_api& supernet_table() { return kSupernet; }
const tn_session_api& session_table() { return kSession; }
const tn_data_api& data_table() { return kData; }
const tn_plugins_api& plugins_table() { return kPlugins; }
const tn_fit_api& fit_table() { return kFit; }

}  // namespace tenon
