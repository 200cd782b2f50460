// Optimizers: two parameters w, which are pulled towards the inputs t and -t by two objectives, |w - t|^2 / 2 and
// |w + t|^2 / 8. Their sum is the loss. An optimizer whose option names a loss of the recipe gets one of that name, |w|^2 / 4.
#include "core/plugin/optimizer.h"

#include "core/graph/grad.h"
#include "core/ops/elementwise.h"
#include "core/ops/reduce.h"
#include "tools/validate/subject.h"

namespace tenon::validate {
namespace {

Tensor distance(Tensor w, Tensor t, double factor) { return sum(square(w - t)) * factor; }

class Optimizer : public Subject {
 public:
  explicit Optimizer(std::unique_ptr<OptimizerPlugin> plugin) : plugin_(std::move(plugin)) {}

  static std::vector<Wanted> inputs(const tn_descriptor&) { return {wanted_input("a", "[B, C]"), wanted_input("b", "[C]")}; }
  static Result<std::unique_ptr<Subject>> make(const Host& host, const tn_descriptor& d, const Options& options) {
    TN_ASSIGN(auto plugin, OptimizerPlugin::create(host.catalog, d.id, d.id, options));
    return std::unique_ptr<Subject>(std::make_unique<Optimizer>(std::move(plugin)));
  }
  Instance& instance() override { return plugin_->instance(); }

  Result<Built> build(Graph& graph, const CallInfo& info, std::span<const NamedTensor> inputs) override {
    if (params_.empty()) TN_RETURN_IF_ERROR(start(graph, inputs));
    std::vector<Tensor> targets, params;
    for (const NamedTensor& t : inputs) targets.push_back(t.value);
    for (const Array& a : params_) params.push_back(graph.input(a));
    const auto objective = [&](std::span<const Tensor> w, double sign, double factor) {
      Tensor total;
      for (size_t i = 0; i < w.size(); ++i) {
        const Tensor term = distance(w[i], targets[i] * sign, factor);
        total = total.valid() ? total + term : term;
      }
      return total;
    };
    const Tensor near = objective(params, 1, 0.5), far = objective(params, -1, 0.125);
    OptimizerPlugin::Step step{.names = names_, .params = params, .grads = {}, .count = info.step + 1};
    step.loss = near + far;
    const std::vector<Tensor> grads = grad(step.loss, params);
    if (!plugin_->wants_closure()) step.grads = grads;

    ClosureService closure;
    closure.loss = [&](Graph&, std::span<const Tensor> at, const std::string& scalar) -> Result<Tensor> {
      if (!scalar.empty()) return not_found("the objective here reports nothing named '" + scalar + "'");
      const std::span<const Tensor> w = at.empty() ? std::span<const Tensor>(params) : at;
      return objective(w, 1, 0.5) + objective(w, -1, 0.125);
    };
    closure.forward = [&](Graph&, std::span<const Tensor> at) -> Result<Tensor> { return at.empty() ? params[0] : at[0]; };
    closure.loss_at = [&](Graph&, Tensor z) -> Result<ClosureService::LossAt> {
      const Tensor each = sum(square(z - targets[0]) * 0.5 + square(z + targets[0]) * 0.125, {1});
      return ClosureService::LossAt{sum(each), each};
    };
    step.closure = &closure;
    Objectives all{.names = {"near", "far"}, .values = {near, far}, .grads = {grad(near, params), grad(far, params)}, .weights = {1, 1}};
    for (const std::string& name : named_losses()) {
      const Tensor size = objective(params, 0, 0.25);
      all.names.push_back(name);
      all.values.push_back(size);
      all.grads.push_back(grad(size, params));
      all.weights.push_back(1);
    }
    step.objectives = &all;

    CallInfo with_rate = info;
    with_rate.lr = plugin_->learning_rate();
    TN_ASSIGN(auto result, plugin_->step(graph, with_rate, step));
    Built b = built_from(instance(), result.emitted);
    for (size_t i = 0; i < params_.size(); ++i) {
      b.results.push_back({"new " + names_[i], result.params[i]});
      updates_.push_back({params_[i], result.params[i]});
    }
    return b;
  }
  std::vector<Update> own_updates() override { return std::move(updates_); }
  std::vector<std::pair<std::string, Array>> own_arrays() const override {
    std::vector<std::pair<std::string, Array>> out;
    for (size_t i = 0; i < params_.size(); ++i) out.emplace_back(names_[i], params_[i]);
    return out;
  }

 private:
  // Free text among the options.
  std::vector<std::string> named_losses() {
    const tn_descriptor& d = instance().descriptor();
    std::vector<std::string> out;
    for (uint32_t i = 0; TN_COVERS(&d, n_roles) && i < d.n_options; ++i) {
      const tn_option& o = *d.options[i];
      if (o.type == TN_VALUE_STR && o.n_choices == 0 && o.fallback.type == TN_VALUE_STR && o.fallback.count > 0) out.emplace_back(o.fallback.as.str, o.fallback.count);
    }
    return out;
  }
  Status start(Graph& graph, std::span<const NamedTensor> inputs) {
    for (const NamedTensor& t : inputs) {
      HostArray h(t.value.dtype(), t.value.shape());
      for (int64_t i = 0; i < h.numel(); ++i) h.set(i, 0.3 + 0.1 * static_cast<double>(i % 7));
      TN_ASSIGN(Array a, Array::from_host(graph.backend(), h));
      names_.push_back(t.name);
      params_.push_back(std::move(a));
    }
    return plugin_->init(graph, names_, params_);
  }

  std::unique_ptr<OptimizerPlugin> plugin_;
  std::vector<std::string> names_;
  std::vector<Array> params_;
  std::vector<Update> updates_;
};

}  // namespace

const Kind kOptimizerKind{TN_KIND_OPTIMIZER, Optimizer::inputs, Optimizer::make, "no derivative is taken through a step"};

}  // namespace tenon::validate
