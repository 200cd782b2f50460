// Gradient checkpointing (Chen, Xu, Zhang, Guestrin 2016, arXiv 1604.06174): less memory for a second forward pass.
#pragma once

#include <functional>
#include <span>

#include "core/graph/graph.h"

namespace tenon {

// y = f(xs), whose derivative computes f once more instead of keeping the values between xs and y until it needs them. The
// derivative has the same bits, and can be differentiated again. `parameters`: further tensors that f reads and that want
// a gradient. f must give the same graph each time; it is called when gradients are taken, before the graph is reset.
// Values between xs and y that something else reads are kept for that as ever.
using Recomputation = std::function<Tensor(std::span<const Tensor> xs)>;
Tensor checkpoint(Tensor y, Recomputation f, std::span<const Tensor> xs, std::span<const Tensor> parameters = {});

// x, so marked that the planner does not take what is made of it for what was made of x before. Equal marks are equal.
Tensor apart(Tensor x, int64_t mark);

}  // namespace tenon
