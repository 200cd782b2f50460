// A loss of element-wise ops and reductions over large logits x [4096, 1000] with labels y:
//
//   mean_i T (logsumexp_j((x_ij - x_iy + m [j != y_i]) / T) - ln 1000),  T = 0.7, m = 0.1
//
// and its gradient to the logits. No parameters, no update.
#include <cmath>

#include "core/graph/grad.h"
#include "core/ops/ops.h"
#include "tools/bench/values.h"
#include "tools/bench/workload.h"

namespace tenon::bench {
namespace {

constexpr int64_t kRows = 4096, kClasses = 1000;

class LdrChain final : public Workload {
 public:
  LdrChain(Runtime& runtime, Array logits, Array labels)
      : logits_(std::move(logits)), labels_(std::move(labels)), graph_(runtime) {}

  Status step() override {
    graph_.reset();
    const Tensor x = graph_.input(logits_), y = unsqueeze(graph_.input(labels_), 1);
    const Tensor wrong = cast(not_equal(unsqueeze(arange(graph_, kClasses, y.dtype()), 0), y), x.dtype());
    const Tensor z = (x - take_along_axis(x, y, 1) + 0.1 * wrong) / 0.7;
    const Tensor loss = mean(0.7 * (logsumexp(z, {1}) - std::log(static_cast<double>(kClasses))));
    const std::vector<Tensor> outputs{loss, grad(loss, {{x}})[0]};
    TN_ASSIGN(results_, graph_.eval(outputs));
    return Status::ok();
  }

  // The loss, and the sum of the gradient's magnitudes.
  Result<std::vector<double>> outcome() override {
    TN_ASSIGN(const HostArray loss, results_[0].to_host());
    graph_.reset();
    TN_ASSIGN(const double magnitude, graph_.value(sum(abs(graph_.input(results_[1])))));
    return std::vector{loss.at(0), magnitude};
  }

 private:
  Array logits_, labels_;
  Graph graph_;
  std::vector<Array> results_;
};

}  // namespace

Result<std::unique_ptr<Workload>> ldr_chain(Runtime& runtime, Catalog&) {
  TN_ASSIGN(Array logits, Array::from_host(runtime.backend(), data("logits", {kRows, kClasses})));
  TN_ASSIGN(Array labels, Array::from_host(runtime.backend(), integers("labels", {kRows}, kClasses)));
  return std::unique_ptr<Workload>(new LdrChain(runtime, std::move(logits), std::move(labels)));
}

}  // namespace tenon::bench
