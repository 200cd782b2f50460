#include "core/plugin/loss.h"

#include "core/ops/elementwise.h"
#include "core/ops/reduce.h"

namespace tenon {

Result<std::unique_ptr<LossPlugin>> LossPlugin::create(Catalog& catalog, const std::string& id, const std::string& name,
                                                       const Options& options) {
  auto loss = std::make_unique<LossPlugin>();
  TN_ASSIGN(loss->instance_, Instance::create(catalog, TN_KIND_LOSS, id, name, options));
  loss->table_ = static_cast<const tn_loss*>(loss->instance_->descriptor().vtable);
  if (!TN_HAS(loss->table_, build)) return invalid(loss->instance_->who() + ": the plugin has no build function");
  return loss;
}

namespace {

// x, through which a gradient may pass once: a derivative of that gradient is an error.
Tensor once_differentiable(Tensor x, const std::string& refusal) {
  return custom_gradient(x, std::vector{x}, [refusal](Tensor cotangent) -> std::vector<Tensor> {
    return {custom_gradient(cotangent, std::vector{cotangent}, [refusal](Tensor c) -> std::vector<Tensor> {
      c.graph().fail(unsupported(refusal));
      return {c};
    })};
  });
}

}  // namespace

Result<LossResult> LossPlugin::build(Graph& graph, const CallInfo& info, std::span<const NamedTensor> inputs, ModelService* models) {
  TN_ASSIGN(auto in, instance_->arrange(inputs));
  const Graph::Scope scope(graph, instance_->who());
  if (!instance_->initialised()) TN_RETURN_IF_ERROR(instance_->init(graph, info, in, models).status());
  Call call(*instance_, &graph, info, models);
  if (instance_->has_cap(TN_CAP_FIRST_ORDER))
    for (NamedTensor& t : in)
      if (t.value.valid() && is_floating(t.value.dtype())) t.value = once_differentiable(t.value, instance_->second_order_refusal());
  std::vector<tn_named> named;
  for (const NamedTensor& t : in) named.push_back({t.name.c_str(), call.handle(t.value)});
  const int32_t code = guarded(call, [&] {
    return table_->build(instance_->pointer(), call.ctx(), named.data(), static_cast<uint32_t>(named.size()));
  });
  TN_RETURN_IF_ERROR(call.outcome(code));

  LossResult r;
  r.numbers = call.reported;
  const auto scalar = [](Tensor t) { return t.rank() == 0 ? t : mean(t); };
  for (const Emitted& e : call.emitted.tensors) {
    switch (e.as) {
      case TN_OUT_LOSS:
        if (r.value.valid()) return invalid(instance_->who() + ": emitted two losses");
        if (e.value.rank() > 1)
          return invalid(instance_->who() + ": the loss has shape " + to_string(e.value.shape()) + "; it must be a number or one number a sample");
        r.value = scalar(e.value);
        if (e.value.rank() == 1) r.per_sample = e.value;
        break;
      case TN_OUT_REPORT: r.report = scalar(e.value); break;
      case TN_OUT_PER_SAMPLE: r.per_sample = e.value; break;
      case TN_OUT_PART: r.parts.push_back({e.name, scalar(e.value)}); break;
      case TN_OUT_METRIC: r.metrics.push_back({e.name, scalar(e.value)}); break;
      default: break;
    }
  }
  if (!r.value.valid())
    for (const NamedTensor& p : r.parts) r.value = r.value.valid() ? add(r.value, p.value) : p.value;
  if (!graph.status().is_ok()) return graph.status();
  if (!r.value.valid()) return invalid(instance_->who() + ": the plugin emitted no loss");
  if (!is_floating(r.value.dtype())) return invalid(instance_->who() + ": the loss is of dtype " + std::string(name_of(r.value.dtype())));
  if (!r.report.valid()) r.report = r.value;
  r.emitted = std::move(call.emitted);
  return r;
}

}  // namespace tenon
