// Optimizers of plugins, as the trainer uses them. One instance serves one parameter group.
#pragma once

#include <functional>

#include "core/plugin/instance.h"

namespace tenon {

// The step's batch again, at other parameters: what closure optimizers evaluate.
struct ClosureService {
  // Loss at these parameters (empty: the current ones); `scalar` "" is the loss, else an emitted value by name.
  std::function<Result<Tensor>(Graph&, std::span<const Tensor> params, const std::string& scalar)> loss;
  std::function<Result<Tensor>(Graph&, std::span<const Tensor> params)> forward;
  struct LossAt {
    Tensor loss, per_sample;
  };
  std::function<Result<LossAt>(Graph&, Tensor output)> loss_at;
};

// One gradient per objective.
struct Objectives {
  std::vector<std::string> names;
  std::vector<Tensor> values;              // rank 0
  std::vector<std::vector<Tensor>> grads;  // [objective][parameter]
  std::vector<double> weights;
};

class OptimizerPlugin {
 public:
  static Result<std::unique_ptr<OptimizerPlugin>> create(Catalog& catalog, const std::string& id, const std::string& name,
                                                         const Options& options);
  Instance& instance() { return *instance_; }
  bool elementwise() const;
  bool wants_closure() const { return closure_ != nullptr; }
  bool wants_objectives() const { return multi_loss_ != nullptr; }
  double learning_rate() const { return instance_->options().number("lr", 0); }

  // Declares slots for these parameters.
  Status init(Graph& graph, std::span<const std::string> names, std::span<const Array> params);
  struct Step {
    std::span<const std::string> names;
    std::span<const Tensor> params, grads;  // grads empty for closure optimizers
    int64_t count = 1;                      // steps of this group, this one included
    const ClosureService* closure = nullptr;
    const Objectives* objectives = nullptr;
    Tensor loss = {};  // of the batch at params; may be null
  };
  struct StepResult {
    std::vector<Tensor> params;
    std::vector<NamedTensor> metrics;
    Emissions emitted;  // all of it, as the plugin gave it
  };
  // Appends the step; slot updates are collected by instance().take_updates().
  Result<StepResult> step(Graph& graph, const CallInfo& info, const Step& s);

 private:
  std::unique_ptr<Instance> instance_;
  const tn_optimizer* table_ = nullptr;
  const tn_optimizer_closure* closure_ = nullptr;
  const tn_optimizer_multi_loss* multi_loss_ = nullptr;
};

}  // namespace tenon
