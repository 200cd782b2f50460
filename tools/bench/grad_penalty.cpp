// A derivative of a derivative: squared error plus the squared norm of its gradient to the input.
#include "core/graph/grad.h"
#include "core/nn/layers.h"
#include "core/ops/ops.h"
#include "core/train/optimize.h"
#include "tools/bench/values.h"
#include "tools/bench/workload.h"

namespace tenon::bench {
namespace {

constexpr int64_t kRows = 256, kFeatures = 64;

class GradPenalty final : public Workload {
 public:
  GradPenalty(Runtime& runtime, nn::Model model, Optimizers optimizers, Array x, Array y)
      : model_(std::move(model)),
        optimizers_(std::move(optimizers)),
        x_(std::move(x)),
        y_(std::move(y)),
        graph_(runtime) {}

  Status step() override {
    graph_.reset();
    nn::Context context(graph_, /*train=*/true);
    const Tensor x = graph_.input(x_);
    const Tensor error = mean(square(model_(context, x) - graph_.input(y_)));
    const Tensor loss = error + sum(square(grad(error, {{x}})[0]));
    std::vector<Tensor> parameters;
    for (const NamedParameter& p : optimizers_.parameters())
      parameters.push_back(graph_.input(p.parameter->value));
    const std::vector<Tensor> gradients = grad(loss, parameters);
    Gradients of;
    for (size_t i = 0; i < gradients.size(); ++i)
      of.of[optimizers_.parameters()[i].parameter.get()] = gradients[i];
    TN_ASSIGN(auto appended, optimizers_.append(graph_, {.step = step_++}, of));
    optimizers_.take_next_values({}, appended.updates);
    TN_ASSIGN(const auto results, graph_.eval({&loss, 1}, appended.updates));
    optimizers_.advance();
    TN_ASSIGN(const HostArray value, results[0].to_host());
    loss_ = value.at(0);
    return Status::ok();
  }

  Result<std::vector<double>> outcome() override { return std::vector{loss_}; }

 private:
  nn::Model model_;
  Optimizers optimizers_;
  Array x_, y_;
  Graph graph_;
  int64_t step_ = 0;
  double loss_ = 0;
};

}  // namespace

Result<std::unique_ptr<Workload>> grad_penalty(const Setup& setup) {
  TN_RETURN_IF_ERROR(expect_f32(setup));
  TN_ASSIGN(nn::Model model, nn::build(setup.runtime, nn::mlp({.hidden = {256, 256}, .output = 1}),
                                       {{DType::f32, {kRows, kFeatures}}}));
  TN_ASSIGN(const Recipe recipe,
            parse_recipe(R"(optimizer { id: "sgd" options { lr: 0.001 } })", "workload"));
  TN_ASSIGN(Optimizers optimizers, Optimizers::create(setup.catalog, recipe));
  std::vector<NamedParameter> parameters;
  for (const nn::ParameterPtr& p : model.parameters) {
    parameters.push_back({"model." + p->name, p});
    TN_RETURN_IF_ERROR(p->value.assign(initial(parameters.back().name, p->value.shape())));
  }
  TN_RETURN_IF_ERROR(optimizers.bind(setup.runtime, std::move(parameters)));
  TN_ASSIGN(Array x, Array::from_host(setup.runtime.backend(), data("x", {kRows, kFeatures})));
  TN_ASSIGN(Array y, Array::from_host(setup.runtime.backend(), data("y", {kRows, 1})));
  return std::unique_ptr<Workload>(
      new GradPenalty(setup.runtime, std::move(model), std::move(optimizers), std::move(x), std::move(y)));
}

}  // namespace tenon::bench
