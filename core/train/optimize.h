// Parameter groups and their optimizers: which parameter is trained by whom, and the graph of one step.
//
// Parameters of an element-wise optimizer's group lie in one flat buffer per dtype, and the modules' arrays are slices
// of it; so a step over hundreds of tensors is a few fused kernels over one vector.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "core/plugin/optimizer.h"
#include "core/train/recipe.h"
#include "core/train/schedule.h"

namespace tenon {

// A trainable tensor under its full name, "model.linear0.weight".
struct NamedParameter {
  std::string name;
  nn::ParameterPtr parameter;
  std::string optimizer = {};  // who must train it, by name; "": whoever takes it
  double lr_scale = 1;         // of the rate that its group has
  bool no_decay = false;       // no weight decay, whatever its group has
};

// Gradients of a step by parameter, and what special optimizers ask for.
struct Gradients {
  Tensor loss;  // whose gradients these are
  std::map<const nn::Parameter*, Tensor> of;
  struct Objective {
    std::string name;
    Tensor value;
    double weight = 1;
    std::map<const nn::Parameter*, Tensor> grads;
  };
  std::vector<Objective> objectives;  // filled when wants_objectives()
  // Makes a closure over the parameters of one group, in the group's order; null when the run offers none.
  std::function<ClosureService(const std::vector<nn::ParameterPtr>&)> closure;
};

class Optimizers {
 public:
  // Creates all plugin instances, so that options are checked before any data is read.
  static Result<Optimizers> create(Catalog& catalog, const Recipe& recipe);
  // Gives every parameter to the optimizer it asks for, or else the first that takes it, and there to the first such
  // group; declares slots. Errors: a pattern that matches nothing, a parameter that nobody takes, no such optimizer.
  Status bind(Runtime& runtime, std::vector<NamedParameter> parameters);

  // From now on only these of the bound parameters are trained; the others, and their slots, stay as they are until
  // they are trained again. `reset`: all slots and step counts begin anew.
  Status train_only(Runtime& runtime, const std::function<bool(const NamedParameter&)>& trained, bool reset);

  bool wants_objectives() const;
  bool wants_closure() const;
  // Whether some bound optimizer needs ordinary gradients.
  bool wants_gradients() const;
  // Appends the step of every group.
  struct Appended {
    std::vector<Update> updates;       // of slots
    std::vector<NamedTensor> metrics;  // diagnostics
    std::vector<NamedTensor> checks;   // must hold
  };
  Result<Appended> append(Graph& graph, const CallInfo& info, const Gradients& gradients);
  // The new value of a parameter in the step appended; null if it has none.
  Tensor next_value(const nn::Parameter& p) const;
  // New parameters into `updates`, those in `assigned` with the values given there.
  void take_next_values(const std::map<nn::ParameterPtr, Tensor>& assigned, std::vector<Update>& updates);
  // After a step was evaluated.
  void advance();

  const std::vector<NamedParameter>& parameters() const { return parameters_; }  // those that are trained
  double learning_rate(int64_t step, int64_t total) const;  // of the first group

  // State for checkpoints: "adamw.0/m" -> array; and step counts.
  std::vector<std::pair<std::string, Array>> saved_slots() const;
  std::map<std::string, int64_t> counts() const;
  void set_counts(const std::map<std::string, int64_t>& counts);
  std::vector<Instance*> instances() const;

 private:
  struct Group {
    size_t optimizer = 0;  // of the recipe
    std::string name;      // "adamw.0"
    std::unique_ptr<OptimizerPlugin> plugin;
    std::vector<std::string> patterns;  // empty: everything the optimizer takes
    bool no_decay = false;
    double lr_scale = 1;
    bool skip_unused = false;
    Options options;
    std::vector<NamedParameter> all;      // bound to it
    std::vector<NamedParameter> members;  // of these, the ones that are trained now
    bool flat = false;
    std::vector<std::string> tensor_names;
    std::vector<Array> tensors;                  // flat: one a dtype; else one a member
    std::vector<std::vector<size_t>> contents;   // members in each tensor
    std::vector<Tensor> next;                    // of each tensor, in the step being built
    int64_t count = 0;
  };
  struct Settings {
    std::string name;
    std::vector<std::string> params, no_decay;
    Schedule schedule;
    double clip_norm = 0, clip_value = 0;
    std::string where;
  };
  Status place(Runtime& runtime, Group& group);
  // Takes back what a step would do to parameters whose gradients are zero.
  static void keep_unused(Graph& graph, Group& group, std::span<const Tensor> params, std::span<const Tensor> grads, std::vector<Update>& slots);
  // The group like `base` for parameters that want another rate or no decay; made when it is first asked for.
  Result<size_t> variant(size_t base, double lr_scale, bool no_decay);
  std::vector<Tensor> clipped(size_t optimizer, Graph& graph, std::vector<Tensor> grads) const;

  Catalog* catalog_ = nullptr;
  std::vector<Settings> settings_;
  std::vector<Group> groups_;
  std::vector<NamedParameter> parameters_;
  // Slots by parameter, "group/slot" -> value, of the last time that the choice of what is trained changed.
  std::map<const nn::Parameter*, std::map<std::string, HostArray>> parked_;
};

}  // namespace tenon
