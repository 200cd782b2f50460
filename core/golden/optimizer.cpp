// Optimizers. Inputs: param:<name> for each parameter, and where the gradients come from:
//   grad_sequence:<name>        [steps, ..], the gradient of each step
//   quadratic:A, quadratic:b    f(w) = w'Aw / 2 - b'w of the only parameter
//   features [N, D], labels     `model` "z = features @ W (no bias)" of the only parameter [D, K], and `loss` one of
//                               "mean binary cross entropy on logits", "mean softmax cross entropy",
//                               "mean over samples of 0.5*||z-y||^2"
// With an objective as function the optimizer gets the loss and, if it wants one, the closure. There are as many steps
// as gradients, or as the longest expected param_sequence has. Expected values:
//   param_sequence:<name>       the parameter after each step; param:<name>: after the last
//   slot:<slot>                 a slot after the last step (slot:<slot>:<name> when there are several parameters)
//   loss_after                  the objective after each step
//   <name>, diagnostic:<name>   what the plugin emits. With one row more than there are steps: at each step's start,
//                               and at the end.
#include <algorithm>

#include "core/golden/run.h"
#include "core/graph/grad.h"
#include "core/ops/ops.h"
#include "core/plugin/optimizer.h"

namespace tenon::golden {
namespace {

constexpr std::string_view kParam = "param:", kGradients = "grad_sequence:", kParams = "param_sequence:";

// What is minimised, as a function of the parameters; empty when the case gives gradients.
class Problem {
 public:
  static Result<Problem> of(const Case& c) {
    Problem p;
    for (const auto& [name, a] : c.inputs)
      if (!name.starts_with(kParam) && !name.starts_with(kGradients)) p.data_[name] = a;
    const auto has = [&](const char* key) { return p.data_.contains(key); };
    if (has("quadratic:A") && has("quadratic:b")) {
      p.kind_ = "quadratic";
    } else if (has("features") && has("labels")) {
      if (c.model != "z = features @ W (no bias)") return unsupported("the model is '" + c.model + "'; there is: z = features @ W (no bias)");
      for (const char* known : {"mean binary cross entropy on logits", "mean softmax cross entropy", "mean over samples of 0.5*||z-y||^2"})
        if (c.loss == known) p.kind_ = known;
      if (p.kind_.empty())
        return unsupported("the loss is '" + c.loss + "'; there are: mean binary cross entropy on logits, mean softmax cross entropy, mean over samples of 0.5*||z-y||^2");
    }
    return p;
  }
  bool is_function() const { return !kind_.empty(); }

  // The model's output z at these parameters: the parameter itself for a quadratic.
  Result<Tensor> forward(Graph& graph, Tensor w) const {
    if (kind_ == "quadratic") return w;
    TN_ASSIGN(const Tensor x, upload(graph, data_.at("features")));
    return matmul(x, w);
  }
  // The objective at output z, and its value for each sample.
  Result<ClosureService::LossAt> loss_at(Graph& graph, Tensor z) const {
    if (kind_ == "quadratic") {
      TN_ASSIGN(const Tensor a, upload(graph, data_.at("quadratic:A")));
      TN_ASSIGN(const Tensor b, upload(graph, data_.at("quadratic:b")));
      const Tensor w = unsqueeze(z, 1);
      return ClosureService::LossAt{sum(matmul(a, w) * w) * 0.5 - sum(b * z), {}};
    }
    TN_ASSIGN(Tensor y, upload(graph, data_.at("labels")));
    Tensor each;
    if (kind_ == "mean softmax cross entropy") {
      each = cross_entropy(z, cast(y, DType::i64));
    } else {
      y = cast(y, z.dtype());
      if (y.rank() + 1 == z.rank()) y = unsqueeze(y, 1);
      each = kind_.starts_with("mean binary") ? sum(softplus(z) - y * z, {1}) : sum(square(z - y), {1}) * 0.5;
    }
    return ClosureService::LossAt{mean(each), each};
  }
  Result<Tensor> loss(Graph& graph, Tensor w) const {
    TN_ASSIGN(const Tensor z, forward(graph, w));
    TN_ASSIGN(const auto at, loss_at(graph, z));
    return at.loss;
  }

 private:
  std::string kind_;
  std::map<std::string, HostArray> data_;
};

struct Parameters {
  std::vector<std::string> names;
  std::vector<Array> values;
};

Result<Parameters> parameters(Runtime& runtime, const Case& c) {
  Parameters p;
  for (const auto& [name, a] : c.inputs)
    if (name.starts_with(kParam)) {
      TN_ASSIGN(Array value, Array::from_host(runtime.backend(), a));
      p.names.push_back(name.substr(kParam.size()));
      p.values.push_back(std::move(value));
    }
  if (p.names.empty()) return invalid("the case has no input param:<name>");
  return p;
}

Result<int64_t> steps_of(const Case& c, const Parameters& p, bool is_function) {
  int64_t steps = -1;
  for (size_t i = 0; i < p.names.size() && !is_function; ++i) {
    const HostArray* g = c.input(std::string(kGradients) + p.names[i]);
    if (!g) return invalid("the case has neither grad_sequence:" + p.names[i] + " nor an objective");
    Shape row;
    for (int d = 1; d < g->shape().rank(); ++d) row.push_back(g->shape()[d]);
    if (g->shape().rank() == 0 || row != p.values[i].shape())
      return invalid("grad_sequence:" + p.names[i] + " has shape " + to_string(g->shape()) + "; it must be [steps, ..] with the parameter's " + to_string(p.values[i].shape()));
    if (steps >= 0 && g->shape()[0] != steps) return invalid("the gradients are of different numbers of steps");
    steps = g->shape()[0];
  }
  if (!is_function) return steps;
  for (const auto& [key, e] : c.expected)
    if (const auto* a = std::get_if<HostArray>(&e.value); a && key.starts_with(kParams) && a->shape().rank() > 0)
      steps = std::max(steps, a->shape()[0]);
  return steps >= 0 ? steps : static_cast<int64_t>(c.number("steps", 1));
}

}  // namespace

Status run_optimizer(Bench& bench, const Case& c, Record& record) {
  TN_ASSIGN(const auto plugin, OptimizerPlugin::create(bench.catalog, c.id, c.id, c.options));
  TN_ASSIGN(const Problem problem, Problem::of(c));
  TN_ASSIGN(const Parameters p, parameters(bench.runtime, c));
  if (problem.is_function() && p.names.size() != 1) return unsupported("the objective is one of a single parameter; the case has " + std::to_string(p.names.size()));
  TN_ASSIGN(const int64_t steps, steps_of(c, p, problem.is_function()));
  {
    Graph graph(bench.runtime);
    TN_RETURN_IF_ERROR(plugin->init(graph, p.names, p.values));
  }
  ClosureService closure;
  closure.loss = [&](Graph& graph, std::span<const Tensor> params, const std::string& scalar) -> Result<Tensor> {
    if (!scalar.empty()) return not_found("the objective reports nothing named '" + scalar + "'");
    return problem.loss(graph, params.empty() ? graph.input(p.values[0]) : params[0]);
  };
  closure.forward = [&](Graph& graph, std::span<const Tensor> params) {
    return problem.forward(graph, params.empty() ? graph.input(p.values[0]) : params[0]);
  };
  closure.loss_at = [&](Graph& graph, Tensor output) { return problem.loss_at(graph, output); };
  const bool at_end = std::any_of(c.expected.begin(), c.expected.end(), [&](const auto& e) {
    const auto* a = std::get_if<HostArray>(&e.second.value);
    return problem.is_function() && a && a->shape().rank() > 0 && a->shape()[0] == steps + 1;
  });

  Graph graph(bench.runtime);
  for (int64_t k = 0; k < steps + (at_end ? 1 : 0); ++k) {
    graph.reset();
    std::vector<Tensor> params, grads;
    for (const Array& a : p.values) params.push_back(graph.input(a));
    OptimizerPlugin::Step step{.names = p.names, .params = params, .grads = {}, .count = k + 1};
    if (problem.is_function()) {
      TN_ASSIGN(step.loss, problem.loss(graph, params[0]));
      grads = grad(step.loss, params);
      step.closure = &closure;
    } else {
      for (const std::string& name : p.names) {
        TN_ASSIGN(const Tensor g, upload(graph, row(*c.input(std::string(kGradients) + name), k)));
        grads.push_back(g);
      }
    }
    if (!plugin->wants_closure()) step.grads = grads;
    const CallInfo info{.step = k, .total_steps = steps, .lr = plugin->learning_rate(), .train = k < steps};
    TN_ASSIGN(const auto result, plugin->step(graph, info, step));
    std::vector<Update> updates = plugin->instance().take_updates();
    if (k < steps)
      for (size_t i = 0; i < p.values.size(); ++i) updates.push_back({p.values[i], result.params[i]});
    else updates.clear();

    record.begin();
    for (const auto& [name, v] : result.emitted.values) record.add(name, value_of(v));
    TN_RETURN_IF_ERROR(record.evaluate(graph, [&](const std::string& key) { return result.emitted.find(key); }, updates,
                                       result.emitted.checks(plugin->instance().who())));
    if (k == steps) break;
    for (size_t i = 0; i < p.values.size(); ++i) {
      TN_ASSIGN(HostArray h, p.values[i].to_host());
      record.add(std::string(kParam) + p.names[i], std::move(h));
    }
    for (const auto& [name, slot] : plugin->instance().slots())
      for (size_t i = 0; i < slot.values.size(); ++i) {
        TN_ASSIGN(HostArray h, slot.values[i].to_host());
        if (slot.values.size() > 1) record.add("slot:" + name + ":" + p.names[i], std::move(h));
        else record.add("slot:" + name, std::move(h));
      }
    if (problem.is_function() && c.expects("loss_after")) {
      graph.reset();
      TN_ASSIGN(const Tensor after, problem.loss(graph, graph.input(p.values[0])));
      TN_ASSIGN(HostArray h, graph.to_host(after));
      record.add("loss_after", std::move(h));
    }
  }
  return Status::ok();
}

}  // namespace tenon::golden
