// Losses of plugins, as the trainer uses them.
#pragma once

#include "core/plugin/instance.h"

namespace tenon {

struct LossResult {
  Tensor value;       // rank 0: what is differentiated
  Tensor report;      // rank 0: what is shown (the value itself, unless the plugin reports another)
  Tensor per_sample;  // [B], or null
  std::vector<NamedTensor> parts;    // objectives, rank 0
  std::vector<NamedTensor> metrics;  // rank 0
  std::vector<std::pair<std::string, double>> numbers;  // metrics that the plugin computed itself
  Emissions emitted;  // all of it, as the plugin gave it
};

class LossPlugin {
 public:
  static Result<std::unique_ptr<LossPlugin>> create(Catalog& catalog, const std::string& id, const std::string& name,
                                                    const Options& options);
  Instance& instance() { return *instance_; }
  // Appends the loss of `inputs` (by role name) to the graph; runs hooks.init before the first time.
  // Errors: roles, what the plugin says, nothing emitted.
  Result<LossResult> build(Graph& graph, const CallInfo& info, std::span<const NamedTensor> inputs, ModelService* models);

 private:
  std::unique_ptr<Instance> instance_;
  const tn_loss* table_ = nullptr;
};

}  // namespace tenon
