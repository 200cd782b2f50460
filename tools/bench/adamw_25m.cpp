// The optimizer alone: AdamW on five parameters of 5,000,000 elements whose gradients are given.
#include "core/ops/ops.h"
#include "core/train/optimize.h"
#include "tools/bench/values.h"
#include "tools/bench/workload.h"

namespace tenon::bench {
namespace {

constexpr int64_t kParameters = 5, kElements = 5'000'000;

class AdamW25M final : public Workload {
 public:
  AdamW25M(Runtime& runtime, Optimizers optimizers, std::vector<Array> gradients)
      : optimizers_(std::move(optimizers)), gradients_(std::move(gradients)), graph_(runtime) {}

  Status step() override {
    graph_.reset();
    Gradients given;
    for (size_t i = 0; i < gradients_.size(); ++i)
      given.of[optimizers_.parameters()[i].parameter.get()] = graph_.input(gradients_[i]);
    TN_ASSIGN(auto appended, optimizers_.append(graph_, {.step = step_++}, given));
    optimizers_.take_next_values({}, appended.updates);
    TN_RETURN_IF_ERROR(graph_.eval({}, appended.updates).status());
    optimizers_.advance();
    return Status::ok();
  }

  // There is no loss. The mean of parameter times gradient falls with every step, and shows whether it was
  // the right one.
  Result<std::vector<double>> outcome() override {
    graph_.reset();
    Tensor total;
    for (size_t i = 0; i < gradients_.size(); ++i) {
      const Tensor p = graph_.input(optimizers_.parameters()[i].parameter->value);
      const Tensor one = mean(p * graph_.input(gradients_[i]));
      total = total.valid() ? total + one : one;
    }
    TN_ASSIGN(const double value, graph_.value(total));
    return std::vector{value};
  }

 private:
  Optimizers optimizers_;
  std::vector<Array> gradients_;
  Graph graph_;
  int64_t step_ = 0;
};

}  // namespace

Result<std::unique_ptr<Workload>> adamw_25m(const Setup& setup) {
  TN_RETURN_IF_ERROR(expect_f32(setup));
  TN_ASSIGN(
      const Recipe recipe,
      parse_recipe(R"(optimizer { id: "adamw" options { lr: 0.001 weight_decay: 0.01 } })", "workload"));
  TN_ASSIGN(Optimizers optimizers, Optimizers::create(setup.catalog, recipe));
  std::vector<NamedParameter> parameters;
  for (int64_t i = 0; i < kParameters; ++i) {
    const std::string name = "parameter" + std::to_string(i);
    TN_ASSIGN(Array value, Array::from_host(setup.runtime.backend(), data(name, {kElements})));
    parameters.push_back(
        {name, std::make_shared<nn::Parameter>(nn::Parameter{.name = name, .value = value})});
  }
  TN_RETURN_IF_ERROR(optimizers.bind(setup.runtime, std::move(parameters)));
  std::vector<Array> gradients;
  for (int64_t i = 0; i < kParameters; ++i) {
    TN_ASSIGN(Array g,
              Array::from_host(setup.runtime.backend(), data("gradient" + std::to_string(i), {kElements})));
    gradients.push_back(std::move(g));
  }
  return std::unique_ptr<Workload>(new AdamW25M(setup.runtime, std::move(optimizers), std::move(gradients)));
}

}  // namespace tenon::bench
