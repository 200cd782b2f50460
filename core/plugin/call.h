// One callback into a plugin: what stands behind its tn_ctx. Handles, errors and results live here and die with it.
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "core/abi/tenon_plugin.h"
#include "core/graph/graph.h"

namespace tenon {

class Instance;
class RunService;

// A tensor under the name of a role, part, slot or parameter.
struct NamedTensor {
  std::string name;
  Tensor value;
};

// Where in the run a callback happens.
struct CallInfo {
  int64_t epoch = 0, step = 0, total_steps = 0;
  double lr = 0;
  uint64_t key = 0;  // of this plugin in this step
  bool train = true;
  bool replay = false;
};

// Applies the recipe's models inside a step; the trainer provides it.
class ModelService {
 public:
  struct Apply {
    std::string model;  // "" = the plugin's own
    std::vector<NamedTensor> in;
    std::vector<Tensor> params;  // instead of its own, in the order of parameters(); empty: its own
    std::vector<std::string> wanted;
    bool frozen = false, eval = false, freeze_stats = false;
    Tensor key;
  };
  virtual ~ModelService() = default;
  virtual Result<std::vector<Tensor>> apply(Graph& graph, const Apply& call) = 0;
  virtual Result<std::vector<NamedTensor>> parameters(Graph& graph, const std::string& model) = 0;
  // A new value for one parameter when the step is evaluated; it overrides the optimizer's.
  virtual Status assign(const std::string& model, size_t index, Tensor value) = 0;
  // All trainable parameters as one vector [P], and a new value for all of them.
  virtual Result<Tensor> flat(Graph& graph, const std::string& model) = 0;
  virtual Status assign_flat(const std::string& model, Tensor value) = 0;
  // Both take effect after the step: which parameters are trained from then on (by name prefix; none: all), with fresh
  // optimizer slots if asked; new initial values.
  virtual Status train_only(const std::string& model, const std::vector<std::string>& prefixes, bool reset_slots) = 0;
  virtual Status reinitialize(const std::string& model, uint64_t key) = 0;
};

struct Emitted {
  std::string name;
  Tensor value;
  int32_t as;
};
// Numbers and text that a plugin knew at once.
using EmittedValue = std::variant<int64_t, double, std::string, std::vector<int64_t>, std::vector<double>>;
// All that a callback emitted, in its order.
struct Emissions {
  std::vector<Emitted> tensors;
  std::vector<std::pair<std::string, EmittedValue>> values;
  Tensor find(std::string_view name) const;  // null when there is none
  // Conditions that must hold (TN_OUT_CHECK), under the message for when they don't: "<who>: <name>".
  std::vector<NamedTensor> checks(const std::string& who) const;
};
// The message of the first condition that does not hold. values: of the checks, in their order.
Status verify(std::span<const NamedTensor> checks, std::span<const Array> values);

// TN_STATUS_* of a status.
int32_t to_abi(const Status& s);
// What a plugin reports. Its own defects and states that don't fit it are bad input, as the plugin itself is.
Status from_abi(int32_t code, const std::string& message);
tn_dtype to_abi(DType t);
Result<DType> dtype_from_abi(int64_t code);

class Call {
 public:
  // `graph` null: outside [build].
  Call(Instance& instance, Graph* graph, const CallInfo& info, ModelService* models = nullptr);
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  tn_ctx* ctx() { return &ctx_; }
  static Call& of(tn_ctx* ctx) { return *static_cast<Call*>(ctx->self); }
  static const Call& of(const tn_ctx* ctx) { return *static_cast<const Call*>(ctx->self); }

  // Handles. tensor() records an error for a handle of another callback.
  tn_tensor handle(Tensor t);
  Tensor tensor(tn_tensor h);
  tn_tensor keep(Tensor t);

  int32_t fail(Status s);  // keeps the first; returns its code
  // The first error of the callback or of the graph under it.
  Status status() const;
  bool is_ok() const { return status_.is_ok() && (!graph || graph->status().is_ok()); }
  // The outcome of a callback that returned `code`, with the plugin's name in front.
  Status outcome(int32_t code) const;

  Instance& instance;
  Graph* graph;
  CallInfo info;
  ModelService* models;
  RunService* run = nullptr;  // what a procedure may ask for; null elsewhere
  Emissions emitted;
  std::vector<std::pair<std::string, double>> reported;
  std::vector<std::string> parameter_names;  // what tn_model_api.parameters handed out
  std::vector<int64_t> numbers;              // what tn_supernet_api.choices handed out

 private:
  tn_ctx ctx_{};
  std::vector<Tensor> handles_;
  uint32_t generation_;
  Status status_;
};

// Runs a callback, turning an exception that escapes into an error.
template <class F>
int32_t guarded(Call& call, F&& f) {
  try {
    return f();
  } catch (...) {
    return call.fail(invalid("the plugin threw an exception out of a callback"));
  }
}

}  // namespace tenon
