// Parameter groups and their optimizers: which parameter is trained by whom, and the graph of one step.
//
// Parameters of an element-wise optimizer's group lie in one flat buffer per dtype, and the modules' arrays are slices
// of it; so a step over hundreds of tensors is a few fused kernels over one vector.
#pragma once

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
};

// Gradients of a step by parameter, and what special optimizers ask for.
struct Gradients {
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
  // Gives every parameter to the first optimizer and group that takes it, and declares slots. Errors: a pattern that
  // matches nothing, a parameter that nobody takes.
  Status bind(Runtime& runtime, std::vector<NamedParameter> parameters);

  bool wants_objectives() const;
  bool wants_closure() const;
  // Whether some bound optimizer needs ordinary gradients.
  bool wants_gradients() const;
  // Appends the step of every group; `updates` gets new parameters and slots, `metrics` diagnostics.
  Status append(Graph& graph, const CallInfo& info, const Gradients& gradients, std::vector<Update>& updates,
                std::vector<NamedTensor>& metrics);
  // After a step was evaluated.
  void advance();

  const std::vector<NamedParameter>& parameters() const { return parameters_; }
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
    std::vector<NamedParameter> members;
    bool flat = false;
    std::vector<std::string> tensor_names;
    std::vector<Array> tensors;                  // flat: one a dtype; else one a member
    std::vector<std::vector<size_t>> contents;   // members in each tensor
    int64_t count = 0;
  };
  struct Settings {
    std::vector<std::string> params, no_decay;
    Schedule schedule;
    double clip_norm = 0, clip_value = 0;
    std::string where;
  };
  Status place(Runtime& runtime, Group& group);
  std::vector<Tensor> clipped(size_t optimizer, Graph& graph, std::vector<Tensor> grads) const;

  std::vector<Settings> settings_;
  std::vector<Group> groups_;
  std::vector<NamedParameter> parameters_;
};

}  // namespace tenon
