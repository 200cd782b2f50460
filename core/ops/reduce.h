// Reductions over any set of axes (empty = all), and cumulative ops. f32 and bf16 are summed in f32, pairwise
// or in blocks, in an order that depends on the sizes alone; sums and products of integers and bool are i64.
#pragma once

#include "core/graph/graph.h"

namespace tenon {

// Reduced axes are dropped, or kept with size 1.
Tensor sum(Tensor x, const Axes& axes = {}, bool keepdims = false);
Tensor mean(Tensor x, const Axes& axes = {}, bool keepdims = false);
// The gradient is shared equally among ties.
Tensor reduce_max(Tensor x, const Axes& axes = {}, bool keepdims = false);
Tensor reduce_min(Tensor x, const Axes& axes = {}, bool keepdims = false);
Tensor prod(Tensor x, const Axes& axes = {}, bool keepdims = false);  // derivative is right at zeros, too
Tensor logsumexp(Tensor x, const Axes& axes = {}, bool keepdims = false);
// Divides by n - ddof (population variance by default).
Tensor var(Tensor x, const Axes& axes = {}, bool keepdims = false, int64_t ddof = 0);
Tensor any(Tensor x, const Axes& axes = {}, bool keepdims = false);  // bool -> bool
Tensor all(Tensor x, const Axes& axes = {}, bool keepdims = false);
// -> i64; the lowest index among ties.
Tensor argmax(Tensor x, int axis, bool keepdims = false);
Tensor argmin(Tensor x, int axis, bool keepdims = false);

// Inclusive, along one axis.
Tensor cumsum(Tensor x, int axis, bool reverse = false);
Tensor cumprod(Tensor x, int axis);
Tensor cummax(Tensor x, int axis);

// Sums x down to `shape` (undoes a broadcast): the derivative of broadcast_to.
Tensor sum_to(Tensor x, const Shape& shape);

}  // namespace tenon
