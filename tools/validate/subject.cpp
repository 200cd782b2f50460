#include "tools/validate/subject.h"

#include <algorithm>
#include <cmath>

#include "core/ops/elementwise.h"
#include "core/ops/index.h"
#include "core/ops/matmul.h"
#include "core/ops/reduce.h"
#include "core/ops/shape.h"
#include "core/ops/softmax.h"
#include "core/plugin/aggregator.h"
#include "core/plugin/attack.h"
#include "core/plugin/build.h"
#include "core/plugin/loss.h"
#include "core/plugin/parametrization.h"
#include "core/plugin/quantizer.h"
#include "core/plugin/reweighter.h"
#include "core/plugin/router.h"
#include "tools/validate/model.h"

namespace tenon::validate {
namespace {

Tensor input_of(std::span<const NamedTensor> inputs, std::string_view name) {
  for (const NamedTensor& t : inputs)
    if (t.name == name) return t.value;
  return {};
}

// Rows of per-sample tables: as many as the inputs have.
int64_t rows_of(std::span<const NamedTensor> inputs) {
  return !inputs.empty() && inputs[0].value.rank() > 0 ? std::max<int64_t>(inputs[0].value.dim(0), 1) : 1;
}

// Floating ones of `out`, and the scalars that the trainer adds to the objective.
Tensor objective(Graph& graph, Tensor out, const Emissions& emitted) {
  std::vector<Tensor> all{out};
  for (const Emitted& e : emitted.tensors)
    if (e.as == TN_OUT_PART || e.as == TN_OUT_LOSS) all.push_back(e.value);
  return projection(graph, all);
}

// Kinds with an instance that Instance::create makes.
class Made : public Subject {
 public:
  explicit Made(std::unique_ptr<Instance> instance) : instance_(std::move(instance)) {}
  Instance& instance() override { return *instance_; }

 protected:
  std::unique_ptr<Instance> instance_;
};
template <class T>
Result<std::unique_ptr<Subject>> make(const Host& host, const tn_descriptor& d, const Options& options) {
  TN_ASSIGN(auto instance, Instance::create(host.catalog, d.kind, d.id, d.id, options));
  return std::unique_ptr<Subject>(std::make_unique<T>(std::move(instance)));
}

class Loss : public Subject {
 public:
  explicit Loss(std::unique_ptr<LossPlugin> plugin) : plugin_(std::move(plugin)) {}
  static Result<std::unique_ptr<Subject>> make(const Host& host, const tn_descriptor& d, const Options& options) {
    TN_ASSIGN(auto plugin, LossPlugin::create(host.catalog, d.id, d.id, options));
    return std::unique_ptr<Subject>(std::make_unique<Loss>(std::move(plugin)));
  }
  Instance& instance() override { return plugin_->instance(); }
  Result<Built> build(Graph& graph, const CallInfo& info, std::span<const NamedTensor> inputs) override {
    if (!instance().initialised()) instance().table_rows = rows_of(inputs);
    TN_ASSIGN(const LossResult loss, plugin_->build(graph, info, inputs, &model_));
    Built b = built_from(instance(), loss.emitted);
    b.results.push_back({"value of the loss", loss.value});
    b.objective = loss.value;
    return b;
  }
  ModelService* models() override { return &model_; }
  std::vector<Update> own_updates() override { return model_.take_updates(); }
  std::vector<std::pair<std::string, Array>> own_arrays() const override { return model_.arrays(); }

 private:
  std::unique_ptr<LossPlugin> plugin_;
  SmallModel model_;
};

class Reweighter : public Made {
 public:
  using Made::Made;
  Result<Built> build(Graph& graph, const CallInfo& info, std::span<const NamedTensor> inputs) override {
    if (!instance_->initialised()) instance_->table_rows = rows_of(inputs);
    TN_ASSIGN(const SampleWeights w, weigh_samples(*instance_, graph, info, inputs, &model_));
    return built_from(*instance_, w.emitted);
  }
  ModelService* models() override { return &model_; }

 private:
  SmallModel model_;
};

// The cross-entropy of a linear classifier is attacked.
class Attack : public Made {
 public:
  using Made::Made;
  static std::vector<Wanted> inputs(const tn_descriptor& d) {
    std::vector<Wanted> all = wanted_by_roles(d);
    if (std::none_of(all.begin(), all.end(), [](const Wanted& w) { return w.name == "labels"; }))
      all.push_back(wanted_input("labels", "[B]", TN_CLASS_INTEGER));
    return all;
  }
  Result<Built> build(Graph& graph, const CallInfo& info, std::span<const NamedTensor> inputs) override {
    const Tensor labels = input_of(inputs, "labels");
    AttackTarget target;
    target.evaluate = [&](Graph& g, Tensor x, bool wants_loss) -> Result<AttackTarget::At> {
      ModelService::Apply call;
      call.in = {{"", x}};
      TN_ASSIGN(const auto out, model_.apply(g, call));
      return AttackTarget::At{wants_loss ? cross_entropy(out[0], labels) : Tensor{}, out[0]};
    };
    TN_ASSIGN(const PerturbedInput p, perturb_input(*instance_, graph, info, target, inputs));
    return built_from(*instance_, p.emitted);
  }

 private:
  SmallModel model_;
};

class Router : public Made {
 public:
  using Made::Made;
  Result<Built> build(Graph& graph, const CallInfo& info, std::span<const NamedTensor> inputs) override {
    TN_ASSIGN(const RoutedTokens r, route_tokens(*instance_, graph, info, input_of(inputs, "logits"), 0));
    Built b = built_from(*instance_, r.emitted);
    b.objective = objective(graph, r.gates, r.emitted);
    return b;
  }
  Status inspect(const Inputs& inputs, const Inputs& results) const override {
    const int64_t experts = inputs.at(0).second.shape()[1];
    for (const auto& [name, a] : results)
      for (int64_t i = 0; name == "indices" && i < a.numel(); ++i)
        if (a.at(i) < 0 || a.at(i) >= static_cast<double>(experts))
          return invalid(instance_->who() + ": a token goes to expert " + std::to_string(static_cast<int64_t>(a.at(i))) + " of " + std::to_string(experts));
    return Status::ok();
  }
};

class Parametrization : public Made {
 public:
  using Made::Made;
  Result<Built> build(Graph& graph, const CallInfo& info, std::span<const NamedTensor> inputs) override {
    const Tensor raw = input_of(inputs, "raw");
    Built start;
    if (!instance_->initialised()) {
      TN_ASSIGN(const Tensor first, init_parametrization(*instance_, graph, info, raw));
      if (first.valid()) start.results.push_back({"raw", first});
    }
    TN_ASSIGN(const EffectiveWeight w, effective_weight(*instance_, graph, info, raw));
    Built b = built_from(*instance_, w.emitted);
    b.results.insert(b.results.end(), start.results.begin(), start.results.end());
    b.objective = objective(graph, w.weight, w.emitted);
    return b;
  }
};

class Quantizer : public Made {
 public:
  using Made::Made;
  Result<Built> build(Graph& graph, const CallInfo& info, std::span<const NamedTensor> inputs) override {
    const QuantSite site{.name = "layer.weight", .flags = TN_SITE_WEIGHT};
    const Tensor x = input_of(inputs, "x");
    if (!instance_->initialised()) TN_RETURN_IF_ERROR(init_quantizer(*instance_, graph, info, site, x));
    TN_ASSIGN(const auto choices, quantizer_choices(*instance_, site));
    Built all;
    for (size_t c = 0; c < std::max<size_t>(choices.size(), 1); ++c) {  // every form
      TN_ASSIGN(const QuantizedTensor q, quantize(*instance_, graph, info, site, static_cast<int64_t>(c), x));
      Built b = built_from(*instance_, q.emitted);
      for (NamedTensor& t : b.results) all.results.push_back({t.name + " of form " + std::to_string(c), t.value});
      all.checks.insert(all.checks.end(), b.checks.begin(), b.checks.end());
    }
    return all;
  }
};

// All clients but one take part, another one in each round.
class Aggregator : public Made {
 public:
  using Made::Made;
  static std::vector<Wanted> inputs(const tn_descriptor& d) {
    std::vector<Wanted> all{wanted_input("round's deltas", "[N, P]"), wanted_input("round's params", "[P]")};
    for (Wanted& w : wanted_by_roles(d)) all.push_back(std::move(w));
    return all;
  }
  Result<Built> build(Graph& graph, const CallInfo& info, std::span<const NamedTensor> inputs) override {
    const Tensor deltas = inputs[0].value;
    const int64_t clients = deltas.dim(0);
    FederatedRound round{.round = info.step, .participation = {}, .client_samples = {}, .params = inputs[1].value, .deltas = {},
                         .inputs = {inputs.begin() + 2, inputs.end()}};
    std::vector<int64_t> active;
    for (int64_t i = 0; i < clients; ++i) {
      round.participation.push_back(clients == 1 || i != info.step % clients);
      round.client_samples.push_back(10 + i);
      if (round.participation.back()) active.push_back(i);
    }
    if (!active.empty()) {
      TN_ASSIGN(const Array rows, Array::from_host(graph.backend(), HostArray::of(active)));
      round.deltas = gather(deltas, graph.input(rows));
    }
    TN_ASSIGN(const AggregatedRound out, aggregate_round(*instance_, graph, info, round));
    return built_from(*instance_, out.emitted);
  }
};

class Module : public Made {
 public:
  using Made::Made;
  Result<Built> build(Graph& graph, const CallInfo& info, std::span<const NamedTensor> inputs) override {
    TN_ASSIGN(const Emissions e, build_plugin(*instance_, build_function(*instance_), graph, info, inputs, nullptr));
    TN_ASSIGN(const Tensor y, emitted_tensor(*instance_, e, "y"));
    Built b = built_from(*instance_, e);
    b.objective = objective(graph, y, e);
    return b;
  }
};

constexpr Kind kKinds[] = {
    {TN_KIND_LOSS, wanted_by_roles, Loss::make},
    {TN_KIND_REWEIGHTER, wanted_by_roles, make<Reweighter>, "the weights of samples are constants of a step"},
    {TN_KIND_ATTACK, Attack::inputs, make<Attack>, "no derivative is taken through a perturbed input"},
    {TN_KIND_ROUTER, wanted_by_roles, make<Router>},
    {TN_KIND_PARAMETRIZATION, wanted_by_roles, make<Parametrization>},
    {TN_KIND_QUANTIZER, wanted_by_roles, make<Quantizer>, "the derivative of a quantizer is straight-through, not that of its steps"},
    {TN_KIND_AGGREGATOR, Aggregator::inputs, make<Aggregator>, "no derivative is taken through a round"},
    {TN_KIND_MODULE, wanted_by_roles, make<Module>},
};

}  // namespace

const Kind* find_kind(std::string_view id) {
  for (const Kind* k : {&kOptimizerKind, &kKernelKind})
    if (k->id == id) return k;
  for (const Kind& k : kKinds)
    if (k.id == id) return &k;
  return nullptr;
}

std::vector<const tn_option*> schema_of(const tn_descriptor& d) {
  return TN_COVERS(&d, n_roles) && d.options ? std::vector<const tn_option*>(d.options, d.options + d.n_options) : std::vector<const tn_option*>{};
}

bool has_default(const tn_option& o) { return TN_COVERS(&o, fallback) && o.fallback.type != TN_VALUE_NONE; }

Built built_from(const Instance& instance, const Emissions& emitted) {
  Built b;
  for (const Emitted& e : emitted.tensors)
    if (e.as != TN_OUT_CHECK) b.results.push_back({e.name, e.value});
  b.checks = emitted.checks(instance.who());
  b.values = emitted.values;
  return b;
}

Tensor projection(Graph& graph, std::span<const Tensor> outs) {
  Tensor total;
  int64_t k = 0;
  for (const Tensor& out : outs) {
    if (!is_floating(out.dtype())) continue;
    HostArray w(out.dtype(), out.shape());
    for (int64_t i = 0; i < w.numel(); ++i) w.set(i, std::cos(1.7 * static_cast<double>(++k) + 0.3));
    auto array = Array::from_host(graph.backend(), w);
    if (!array) return graph.fail(array.status()), Tensor{};
    const Tensor term = sum(out * graph.input(*array));
    total = total.valid() ? total + term : term;
  }
  return total;
}

}  // namespace tenon::validate
