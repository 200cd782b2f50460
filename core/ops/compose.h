// A fused op carries its composed form: its derivative differentiates the same formula written with public
// ops.
#pragma once

#include <functional>

#include "core/graph/graph.h"

namespace tenon {

// Fills a.grads by differentiating `compose`, which gets stand-ins for the op's inputs and returns tensors
// equal to its outputs (null for one that has no cotangent: see a.cotangents).
void vjp_of_composition(VjpArgs& a,
                        const std::function<std::vector<Tensor>(std::span<const Tensor> in)>& compose);

// x itself under another id, so that a derivative can stop there. The planner removes it.
Tensor alias(Tensor x);

}  // namespace tenon
