// The loss plugin `ldr`, a chain of element-wise ops and reductions, over large logits x [4096, 1000] with
// labels y:
//
//   mean_i T (logsumexp_j((x_ij - x_iy + m [j != y_i]) / T) - ln 1000),  T = 0.7, m = 0.1
//
// and its gradient to the logits. No parameters, no update.
#include "core/graph/grad.h"
#include "core/ops/ops.h"
#include "core/plugin/loss.h"
#include "tools/bench/values.h"
#include "tools/bench/workload.h"

namespace tenon::bench {
namespace {

constexpr int64_t kRows = 4096, kClasses = 1000;

class LdrChain final : public Workload {
 public:
  LdrChain(Runtime& runtime, std::unique_ptr<LossPlugin> loss, Array logits, Array labels)
      : loss_(std::move(loss)), logits_(std::move(logits)), labels_(std::move(labels)), graph_(runtime) {}

  Status step() override {
    graph_.reset();
    const Tensor x = graph_.input(logits_);
    const std::vector<NamedTensor> roles{{"logits", x}, {"labels", graph_.input(labels_)}};
    TN_ASSIGN(const LossResult loss, loss_->build(graph_, {}, roles, nullptr));
    const std::vector<NamedTensor> checks = loss.emitted.checks("ldr");
    std::vector<Tensor> outputs{loss.value, grad(loss.value, {{x}})[0]};
    for (const NamedTensor& c : checks) outputs.push_back(c.value);
    TN_ASSIGN(results_, graph_.eval(outputs));
    loss_->instance().forget_step();
    return verify(checks, std::span(results_).subspan(2));
  }

  // The loss, and the sum of the gradient's magnitudes.
  Result<std::vector<double>> outcome() override {
    TN_ASSIGN(const HostArray loss, results_[0].to_host());
    graph_.reset();
    TN_ASSIGN(const double magnitude, graph_.value(sum(abs(graph_.input(results_[1])))));
    return std::vector{loss.at(0), magnitude};
  }

 private:
  std::unique_ptr<LossPlugin> loss_;
  Array logits_, labels_;
  Graph graph_;
  std::vector<Array> results_;
};

}  // namespace

Result<std::unique_ptr<Workload>> ldr_chain(const Setup& setup) {
  TN_RETURN_IF_ERROR(expect_f32(setup));
  TN_ASSIGN(Array logits, Array::from_host(setup.runtime.backend(), data("logits", {kRows, kClasses})));
  TN_ASSIGN(Array labels, Array::from_host(setup.runtime.backend(), integers("labels", {kRows}, kClasses)));
  TN_ASSIGN(auto loss, LossPlugin::create(setup.catalog, "ldr", "ldr", {{"lambda", 0.7}, {"margin", 0.1}}));
  return std::unique_ptr<Workload>(
      new LdrChain(setup.runtime, std::move(loss), std::move(logits), std::move(labels)));
}

}  // namespace tenon::bench
