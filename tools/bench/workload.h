// The workloads of `tenon bench`: eight, and three of them again in sizes that no vector or block divides. Each is a whole training step (forward, backward, optimizer) in f32,
// on data that stays in memory, through the engine and the plugins that every run uses.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/data/dataset.h"
#include "core/plugin/catalog.h"
#include "core/runtime.h"

namespace tenon::bench {

class Workload {
 public:
  virtual ~Workload() = default;
  // One training step, to its end.
  virtual Status step() = 0;
  // What PyTorch's step gives too: the loss of the last step, and more where a loss alone does not show that
  // the step was right. Not timed.
  virtual Result<std::vector<double>> outcome() = 0;
};

struct Setup {
  Runtime& runtime;
  Catalog& catalog;
  std::string precision = "f32";  // or bf16: matrix products in bf16, where the workload is a recipe
};
struct WorkloadInfo {
  std::string_view name;
  std::string_view what;  // in a line
  Result<std::unique_ptr<Workload>> (*make)(const Setup&);
};
std::span<const WorkloadInfo> workloads();
// Error: no such workload, with the nearest.
Result<const WorkloadInfo*> find_workload(std::string_view name);

// A recipe's training step on one batch: parameters begin with the values of values.h.
Result<std::unique_ptr<Workload>> recipe_workload(const Setup& setup, const std::string& recipe, Columns batch);
// For the others. Error: it is asked for in bf16.
Status expect_f32(const Setup& setup);

// One file each.
Result<std::unique_ptr<Workload>> mlp_tabular(const Setup& setup);
Result<std::unique_ptr<Workload>> mlp_mnist(const Setup& setup);
Result<std::unique_ptr<Workload>> cnn_cifar(const Setup& setup);
Result<std::unique_ptr<Workload>> gpt_char(const Setup& setup);
Result<std::unique_ptr<Workload>> moe_gpt_char(const Setup& setup);
Result<std::unique_ptr<Workload>> ldr_chain(const Setup& setup);
Result<std::unique_ptr<Workload>> adamw_25m(const Setup& setup);
Result<std::unique_ptr<Workload>> grad_penalty(const Setup& setup);
Result<std::unique_ptr<Workload>> mlp_odd(const Setup& setup);
Result<std::unique_ptr<Workload>> cnn_odd(const Setup& setup);
Result<std::unique_ptr<Workload>> gpt_odd(const Setup& setup);

}  // namespace tenon::bench
