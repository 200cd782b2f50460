#include "core/plugin/optimizer.h"

namespace tenon {
namespace {

std::vector<const char*> c_strings(std::span<const std::string> names) {
  std::vector<const char*> out;
  for (const std::string& s : names) out.push_back(s.c_str());
  return out;
}

std::vector<tn_tensor> handles(Call& call, std::span<const Tensor> ts) {
  std::vector<tn_tensor> out;
  for (const Tensor& t : ts) out.push_back(call.handle(t));
  return out;
}

// Behind a tn_closure: forwards to the trainer's service.
struct ClosureState {
  const ClosureService* service;
  uint32_t n;

  std::vector<Tensor> params(Call& call, const tn_tensor* hs) const {
    std::vector<Tensor> out;
    for (uint32_t i = 0; hs && i < n; ++i) out.push_back(call.tensor(hs[i]));
    return out;
  }
};
const ClosureState& state(const tn_closure* c) { return *static_cast<const ClosureState*>(c->self); }

int32_t closure_loss(const tn_closure* c, tn_ctx* ctx, const tn_tensor* params, const char* scalar, tn_tensor* out) {
  Call& call = Call::of(ctx);
  auto r = state(c).service->loss(*call.graph, state(c).params(call, params), scalar ? scalar : "");
  if (!r) return call.fail(r.status());
  *out = call.handle(*r);
  return to_abi(call.status());
}

int32_t closure_forward(const tn_closure* c, tn_ctx* ctx, const tn_tensor* params, tn_tensor* out) {
  Call& call = Call::of(ctx);
  auto r = state(c).service->forward(*call.graph, state(c).params(call, params));
  if (!r) return call.fail(r.status());
  *out = call.handle(*r);
  return to_abi(call.status());
}

int32_t closure_loss_at(const tn_closure* c, tn_ctx* ctx, tn_tensor output, tn_tensor* loss, tn_tensor* per_sample) {
  Call& call = Call::of(ctx);
  auto r = state(c).service->loss_at(*call.graph, call.tensor(output));
  if (!r) return call.fail(r.status());
  *loss = call.handle(r->loss);
  if (per_sample) *per_sample = call.handle(r->per_sample);
  return to_abi(call.status());
}

}  // namespace

Result<std::unique_ptr<OptimizerPlugin>> OptimizerPlugin::create(Catalog& catalog, const std::string& id, const std::string& name,
                                                                 const Options& options) {
  auto opt = std::make_unique<OptimizerPlugin>();
  TN_ASSIGN(opt->instance_, Instance::create(catalog, TN_KIND_OPTIMIZER, id, name, options));
  const Instance& inst = *opt->instance_;
  opt->table_ = static_cast<const tn_optimizer*>(inst.descriptor().vtable);
  if (const auto* c = inst.extension<tn_optimizer_closure>(TN_EXT_CLOSURE); c && TN_HAS(c, step)) opt->closure_ = c;
  else if (const auto* m = inst.extension<tn_optimizer_multi_loss>(TN_EXT_MULTI_LOSS); m && TN_HAS(m, step)) opt->multi_loss_ = m;
  else if (!TN_HAS(opt->table_, step)) return invalid(inst.who() + ": the plugin has no step function");
  return opt;
}

bool OptimizerPlugin::elementwise() const {
  if (closure_ || multi_loss_) return false;
  return TN_HAS(table_, is_elementwise) ? table_->is_elementwise(instance_->pointer()) != 0 : (table_->flags & TN_OPT_ELEMENTWISE) != 0;
}

Status OptimizerPlugin::init(Graph& graph, std::span<const std::string> names, std::span<const Array> params) {
  const Graph::Scope scope(graph, instance_->who());
  instance_->slot_params.assign(params.begin(), params.end());
  if (TN_HAS(table_, init)) {
    Call call(*instance_, &graph, {});
    std::vector<tn_named> named;
    for (size_t i = 0; i < params.size(); ++i) named.push_back({names[i].c_str(), call.handle(graph.input(params[i]))});
    instance_->declaring = true;
    const int32_t code = guarded(call, [&] { return table_->init(instance_->pointer(), call.ctx(), named.data(), static_cast<uint32_t>(named.size())); });
    instance_->declaring = false;
    TN_RETURN_IF_ERROR(call.outcome(code));
  }
  instance_->slot_params.clear();
  return Status::ok();
}

Result<OptimizerPlugin::StepResult> OptimizerPlugin::step(Graph& graph, const CallInfo& info, const Step& s) {
  const Graph::Scope scope(graph, instance_->who());
  Call call(*instance_, &graph, info);
  const auto names = c_strings(s.names);
  const auto params = handles(call, s.params);
  const auto grads = handles(call, s.grads);
  std::vector<tn_tensor> next = params;
  tn_step step{};
  step.struct_size = sizeof step;
  step.n = static_cast<uint32_t>(params.size());
  step.names = names.data();
  step.params = params.data();
  step.grads = grads.empty() ? nullptr : grads.data();
  step.new_params = next.data();
  step.count = s.count;
  step.loss = call.handle(s.loss);

  int32_t code = TN_STATUS_INTERNAL;
  if (closure_ && s.closure) {
    const ClosureState closure_state{s.closure, step.n};
    tn_closure c{};
    c.struct_size = sizeof c;
    c.n = step.n;
    c.self = const_cast<ClosureState*>(&closure_state);
    c.names = names.data();
    c.params = params.data();
    c.loss = closure_loss;
    c.forward = closure_forward;
    c.loss_at = closure_loss_at;
    code = guarded(call, [&] { return closure_->step(instance_->pointer(), call.ctx(), &step, &c); });
  } else if (multi_loss_ && s.objectives) {
    const auto objective_names = c_strings(s.objectives->names);
    const auto values = handles(call, s.objectives->values);
    std::vector<tn_tensor> all;
    for (const auto& row : s.objectives->grads)
      for (const Tensor& t : row) all.push_back(call.handle(t));
    tn_objectives o{};
    o.struct_size = sizeof o;
    o.n = static_cast<uint32_t>(values.size());
    o.names = objective_names.data();
    o.values = values.data();
    o.grads = all.data();
    o.weights = s.objectives->weights.data();
    code = guarded(call, [&] { return multi_loss_->step(instance_->pointer(), call.ctx(), &step, &o); });
  } else if (TN_HAS(table_, step)) {
    code = guarded(call, [&] { return table_->step(instance_->pointer(), call.ctx(), &step); });
  } else {
    return unsupported(instance_->who() + ": wants " + (closure_ ? "a closure" : "one gradient per objective") + ", which this run does not offer");
  }
  TN_RETURN_IF_ERROR(call.outcome(code));

  StepResult r;
  for (size_t i = 0; i < next.size(); ++i) {
    const Tensor t = call.tensor(next[i]);
    if (!t.valid()) return invalid(instance_->who() + ": the new value of '" + std::string(s.names[i]) + "' is null");
    if (t.dtype() != s.params[i].dtype() || t.shape() != s.params[i].shape())
      return invalid(instance_->who() + ": the new value of '" + std::string(s.names[i]) + "' is " +
                            to_string(TensorType{t.dtype(), t.shape()}) + ", the parameter " +
                            to_string(TensorType{s.params[i].dtype(), s.params[i].shape()}));
    r.params.push_back(t);
  }
  for (const Emitted& e : call.emitted.tensors)
    if (e.as == TN_OUT_METRIC) r.metrics.push_back({e.name, e.value});
  r.emitted = std::move(call.emitted);
  if (!graph.status().is_ok()) return graph.status();
  return r;
}

}  // namespace tenon
