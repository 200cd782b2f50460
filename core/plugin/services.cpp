// "tenon.state/1", "tenon.rng/1", "tenon.metrics/1" and "tenon.model/1".
#include <cstring>

#include "core/base/random.h"
#include "core/plugin/run_service.h"

namespace tenon {
namespace {

int32_t in_graph(Call& call, const char* what) {
  return call.graph ? TN_STATUS_OK : call.fail(invalid(std::string(what) + ": only while a graph is being built"));
}

// --- state ---
int32_t state_declare(tn_ctx* ctx, const tn_slot* slot) {
  Call& call = Call::of(ctx);
  if (const int32_t code = in_graph(call, "declare")) return code;
  if (!slot) return call.fail(invalid("declare: the slot is null"));
  return call.fail(call.instance.declare(call, *slot));
}
tn_tensor state_get(tn_ctx* ctx, const char* name, uint32_t index) {
  Call& call = Call::of(ctx);
  if (in_graph(call, "get") != TN_STATUS_OK || !call.status().is_ok()) return TN_NULL;
  return call.handle(call.instance.get(call, name ? name : "", index));
}
int32_t state_set(tn_ctx* ctx, const char* name, uint32_t index, tn_tensor value) {
  Call& call = Call::of(ctx);
  if (const int32_t code = in_graph(call, "set")) return code;
  const Tensor t = call.tensor(value);
  if (!call.status().is_ok()) return to_abi(call.status());
  if (!t.valid()) return call.fail(invalid("set: the value is null"));
  return call.fail(call.instance.set(call, name ? name : "", index, t));
}
int32_t state_reset(tn_ctx* ctx, const char* name) {
  Call& call = Call::of(ctx);
  return call.fail(call.instance.reset(name ? name : ""));
}
constexpr tn_state_api kState = {sizeof(tn_state_api), 0, state_declare, state_get, state_set, state_reset};

// --- random keys and host streams ---
uint64_t rng_key(const tn_ctx* ctx, const char* label) { return split_key(Call::of(ctx).info.key, label ? label : ""); }
uint64_t rng_split(uint64_t key, uint64_t number) { return split_key(key, number); }
void rng_uniform(uint64_t key, uint64_t first, double* out, uint64_t n) {
  for (uint64_t i = 0; i < n; ++i) {
    const auto b = philox(key, first + i, philox_domain::kDraw);
    out[i] = uniform_f64(b[0], b[1]);
  }
}
void rng_normal(uint64_t key, uint64_t first, double* out, uint64_t n) {
  for (uint64_t i = 0; i < n; ++i) {
    const auto b = philox(key, first + i, philox_domain::kDraw);
    const double r = std::sqrt(-2.0 * std::log(1.0 - uniform_f64(b[0], b[1])));
    out[i] = r * std::cos(2.0 * std::numbers::pi * uniform_f64(b[2], b[3]));
  }
}
tn_tensor rng_tensor(tn_ctx* ctx, uint64_t key) {
  Call& call = Call::of(ctx);
  return in_graph(call, "tensor") == TN_STATUS_OK ? call.handle(call.graph->key(key)) : TN_NULL;
}
constexpr tn_rng_api kRng = {sizeof(tn_rng_api), 0, rng_key, rng_split, rng_uniform, rng_normal, rng_tensor};

// --- metrics ---
int32_t metrics_report(tn_ctx* ctx, const char* name, double value) {
  Call& call = Call::of(ctx);
  if (!name) return call.fail(invalid("report: the name is null"));
  if (call.run) call.run->report(name, value);
  else call.reported.emplace_back(name, value);
  return TN_STATUS_OK;
}
int32_t metrics_progress(tn_ctx* ctx, int64_t done, int64_t total, const char* text) {
  Call& call = Call::of(ctx);
  if (call.run) {
    call.run->progress(done, total, text ? text : "");
    return TN_STATUS_OK;
  }
  std::string line = std::to_string(done) + (total > 0 ? "/" + std::to_string(total) : "") + (text ? std::string(" ") + text : "");
  call.instance.host().log(&call.instance.host(), TN_LOG_INFO, line.c_str());
  return TN_STATUS_OK;
}
constexpr tn_metrics_api kMetrics = {sizeof(tn_metrics_api), 0, metrics_report, metrics_progress};

// --- the model again ---
ModelService* service(Call& call, const char* what) {
  if (call.models && call.graph) return call.models;
  call.fail(unsupported(std::string(what) + ": there is no model to apply here"));
  return nullptr;
}

int32_t model_apply(tn_ctx* ctx, const tn_model_call* m, tn_tensor* out) {
  Call& call = Call::of(ctx);
  const uint32_t n_out = m && m->n_wanted > 0 ? m->n_wanted : 1;
  for (uint32_t i = 0; i < n_out; ++i) out[i] = TN_NULL;
  ModelService* models = service(call, "apply");
  if (!models) return to_abi(call.status());
  if (!m || !TN_COVERS(m, n_in) || !m->in) return call.fail(invalid("apply: the call has no inputs"));
  ModelService::Apply a;
  if (m->model) a.model = m->model;
  for (uint32_t i = 0; i < m->n_in; ++i) a.in.push_back({m->in[i].name ? m->in[i].name : "", call.tensor(m->in[i].tensor)});
  for (uint32_t i = 0; m->params && i < m->n_params; ++i) a.params.push_back(call.tensor(m->params[i]));
  for (uint32_t i = 0; m->wanted && i < m->n_wanted; ++i) a.wanted.emplace_back(m->wanted[i]);
  a.frozen = (m->flags & TN_MODEL_FROZEN) != 0;
  a.eval = (m->flags & TN_MODEL_EVAL) != 0;
  a.freeze_stats = (m->flags & TN_MODEL_FREEZE_STATS) != 0;
  if (TN_COVERS(m, key)) a.key = call.tensor(m->key);
  if (!call.status().is_ok()) return to_abi(call.status());
  auto r = models->apply(*call.graph, a);
  if (!r) return call.fail(r.status());
  for (uint32_t i = 0; i < n_out && i < r->size(); ++i) out[i] = call.handle((*r)[i]);
  return to_abi(call.status());
}

int32_t model_parameters(tn_ctx* ctx, const char* model, tn_named* out, uint32_t capacity, uint32_t* n) {
  Call& call = Call::of(ctx);
  ModelService* models = service(call, "parameters");
  if (!models) return to_abi(call.status());
  auto r = models->parameters(*call.graph, model ? model : "");
  if (!r) return call.fail(r.status());
  call.parameter_names.clear();
  for (const NamedTensor& p : *r) call.parameter_names.push_back(p.name);
  for (size_t i = 0; i < r->size() && i < capacity; ++i)
    out[i] = {call.parameter_names[i].c_str(), call.handle((*r)[i].value)};
  *n = static_cast<uint32_t>(r->size());
  return TN_STATUS_OK;
}

tn_tensor model_flat(tn_ctx* ctx, const char* model) {
  Call& call = Call::of(ctx);
  ModelService* models = service(call, "flat");
  if (!models) return TN_NULL;
  auto r = models->flat(*call.graph, model ? model : "");
  if (r) return call.handle(*r);
  call.fail(r.status());
  return TN_NULL;
}

int32_t model_assign_flat(tn_ctx* ctx, const char* model, tn_tensor value) {
  Call& call = Call::of(ctx);
  ModelService* models = service(call, "assign_flat");
  if (!models) return to_abi(call.status());
  const Tensor t = call.tensor(value);
  if (!call.status().is_ok()) return to_abi(call.status());
  if (!t.valid()) return call.fail(invalid("assign_flat: the value is null"));
  return call.fail(models->assign_flat(model ? model : "", t));
}

int32_t model_assign(tn_ctx* ctx, const char* model, uint32_t index, tn_tensor value) {
  Call& call = Call::of(ctx);
  ModelService* models = service(call, "assign");
  if (!models) return to_abi(call.status());
  const Tensor t = call.tensor(value);
  if (!call.status().is_ok()) return to_abi(call.status());
  return call.fail(models->assign(model ? model : "", index, t));
}

int32_t model_train_only(tn_ctx* ctx, const char* model, const char* const* prefixes, uint32_t n, int32_t reset_slots) {
  Call& call = Call::of(ctx);
  if (!call.models) return call.fail(unsupported("train_only: there is no model here"));
  return call.fail(call.models->train_only(model ? model : "", {prefixes, prefixes + n}, reset_slots != 0));
}

int32_t model_reinitialize(tn_ctx* ctx, const char* model, uint64_t key) {
  Call& call = Call::of(ctx);
  if (!call.models) return call.fail(unsupported("reinitialize: there is no model here"));
  return call.fail(call.models->reinitialize(model ? model : "", key));
}

constexpr tn_model_api kModel = {sizeof(tn_model_api), 0, model_apply, model_parameters, model_flat, model_assign_flat,
                                 model_assign, model_train_only, model_reinitialize};

}  // namespace

const tn_state_api& state_table() { return kState; }
const tn_rng_api& rng_table() { return kRng; }
const tn_metrics_api& metrics_table() { return kMetrics; }
const tn_model_api& model_table() { return kModel; }

}  // namespace tenon
