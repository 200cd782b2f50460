// Reweighters: from the losses of a batch to the weights of its samples.
#pragma once

#include "core/plugin/instance.h"

namespace tenon {

struct SampleWeights {
  Tensor factors;  // [B]: the loss is the sum of factor times loss
  Emissions emitted;
};

// inputs: by role, "losses" [B] among them. The factors are what the plugin emits as "coefficients", or else as "weights".
// Errors: roles, what the plugin says, factors of another type than the losses.
Result<SampleWeights> weigh_samples(Instance& reweighter, Graph& graph, const CallInfo& info,
                                    std::span<const NamedTensor> inputs, ModelService* models);

}  // namespace tenon
