// Perceptrons: one so small that a step is all overhead, one that is matrix products, and one of odd sizes.
#include "tools/bench/values.h"
#include "tools/bench/workload.h"

namespace tenon::bench {

Result<std::unique_ptr<Workload>> mlp_tabular(const Setup& setup) {
  return recipe_workload(setup, R"(
    model { layer { mlp { hidden: [64, 64] output: 2 } } }
    loss { id: "cross_entropy" }
    optimizer { id: "adamw" options { lr: 0.001 weight_decay: 0.01 } }
  )",
                         {{"x", data("x", {64, 123})}, {"y", integers("y", {64}, 2)}});
}

Result<std::unique_ptr<Workload>> mlp_mnist(const Setup& setup) {
  return recipe_workload(setup, R"(
    model { layer { mlp { hidden: [512, 256] output: 10 } } }
    loss { id: "cross_entropy" }
    optimizer { id: "adamw" options { lr: 0.001 weight_decay: 0.01 } }
  )",
                         {{"x", data("x", {128, 784})}, {"y", integers("y", {128}, 10)}});
}

Result<std::unique_ptr<Workload>> mlp_odd(const Setup& setup) {
  return recipe_workload(setup, R"(
    model { layer { mlp { hidden: [300, 300] output: 7 } } }
    loss { id: "cross_entropy" }
    optimizer { id: "adamw" options { lr: 0.001 weight_decay: 0.01 } }
  )",
                         {{"x", data("x", {37, 301})}, {"y", integers("y", {37}, 7)}});
}

}  // namespace tenon::bench
