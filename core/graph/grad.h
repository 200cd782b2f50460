// Reverse-mode differentiation: the derivative is more graph, so it can be differentiated again, to any order.
#pragma once

#include <span>
#include <vector>

#include "core/graph/graph.h"

namespace tenon {

// d(sum y . seed)/dx for each x, of x's shape and type. `seed` defaults to ones and must have y's shape.
// An x that y does not depend on gets zeros. Null tensors when y is null or not floating.
std::vector<Tensor> grad(Tensor y, std::span<const Tensor> xs, Tensor seed = {});

}  // namespace tenon
