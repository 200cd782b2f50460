// Attacks: from an input to a perturbed one that makes the recipe's loss worse.
#pragma once

#include <functional>

#include "core/plugin/instance.h"

namespace tenon {

// What is attacked, as a function of the model's input: parameters frozen, running statistics untouched.
struct AttackTarget {
  struct At {
    Tensor per_sample;  // [B] losses; null where none was asked for
    Tensor output;
  };
  std::function<Result<At>(Graph&, Tensor x, bool wants_loss)> evaluate;
};

struct PerturbedInput {
  Tensor x_adv;  // of the input's type; no gradient passes
  Emissions emitted;
};

// inputs: by role, "input" among them. Errors: roles, what the plugin says, x_adv of another type than the input.
Result<PerturbedInput> perturb_input(Instance& attack, Graph& graph, const CallInfo& info, const AttackTarget& target,
                                     std::span<const NamedTensor> inputs);

}  // namespace tenon
