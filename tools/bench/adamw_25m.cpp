// The optimizer alone: AdamW on five parameters of 5,000,000 elements whose gradients are given.
#include "core/ops/ops.h"
#include "core/train/optimize.h"
#include "tools/bench/values.h"
#include "tools/bench/workload.h"

namespace tenon::bench {
namespace {

constexpr int64_t kParameters = 5, kElements = 5'000'000;

// data(), a part after the other, so that the peak of memory is that of a step and not that of a copy before
// it.
Result<Array> data_in_parts(Backend& backend, const std::string& name) {
  constexpr int64_t kPart = 50'000;
  static_assert(kElements % kPart == 0);
  TN_ASSIGN(Array all, Array::allocate(backend, DType::f32, {kElements}));
  for (int64_t first = 0; first < kElements; first += kPart) {
    const HostArray part = data(name, {kPart}, first);
    auto* to = static_cast<std::byte*>(all.data()) + first * static_cast<int64_t>(sizeof(float));
    TN_RETURN_IF_ERROR(backend.upload(to, part.data(), part.size_bytes()));
  }
  return all;
}

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
      // In rows, whose products are added up where they are computed.
      const Shape rows{kElements / 1000, 1000};
      const Tensor one = mean(mean(reshape(p, rows) * reshape(graph_.input(gradients_[i]), rows), {1}));
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
    TN_ASSIGN(Array value, data_in_parts(setup.runtime.backend(), name));
    parameters.push_back(
        {name, std::make_shared<nn::Parameter>(nn::Parameter{.name = name, .value = value})});
  }
  TN_RETURN_IF_ERROR(optimizers.bind(setup.runtime, std::move(parameters)));
  std::vector<Array> gradients;
  for (int64_t i = 0; i < kParameters; ++i) {
    TN_ASSIGN(Array g, data_in_parts(setup.runtime.backend(), "gradient" + std::to_string(i)));
    gradients.push_back(std::move(g));
  }
  return std::unique_ptr<Workload>(new AdamW25M(setup.runtime, std::move(optimizers), std::move(gradients)));
}

}  // namespace tenon::bench
