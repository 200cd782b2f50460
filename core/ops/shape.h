// Shape operations. Those marked [view] only re-address memory where the layout allows it. Negative axes
// count from the end.
#pragma once

#include <optional>

#include "core/graph/graph.h"

namespace tenon {

Tensor reshape(Tensor x, const Shape& shape);       // [view] one dimension may be -1
Tensor flatten(Tensor x, int from_axis = 1);        // x: [B, ...] -> [B, prod(...)]
Tensor transpose(Tensor x, const Axes& perm = {});  // [view] empty: reverse all axes
Tensor swap_axes(Tensor x, int a, int b);           // [view]
Tensor squeeze(Tensor x, int axis);
Tensor unsqueeze(Tensor x, int axis);
Tensor broadcast_to(Tensor x, const Shape& shape);  // [view]
// Elements start, start+step, ... before stop, per axis; all axes given. step may be negative. [view]
Tensor slice(Tensor x, const Dims& start, const Dims& stop, const Dims& step = {});
// Zeros of `shape` with g's elements at the positions of that slice: the derivative of slice.
Tensor slice_grad(Tensor g, const Shape& shape, const Dims& start, const Dims& stop, const Dims& step = {});
Tensor narrow(Tensor x, int axis, int64_t start, int64_t length);  // [view] one axis
Tensor flip(Tensor x, const Axes& axes);                           // [view]
Tensor concat(std::span<const Tensor> xs, int axis);
Tensor stack(std::span<const Tensor> xs, int axis);
std::vector<Tensor> split(Tensor x, std::span<const int64_t> sizes, int axis);
Tensor pad(Tensor x, const Dims& low, const Dims& high, double value = 0);
Tensor contiguous(Tensor x);  // a row-major copy; identity in value

// The value is part of the structure; for one that changes from step to step, broadcast a Graph::scalar.
Tensor full(Graph& g, const Shape& shape, double value, DType dtype = DType::f32);
inline Tensor zeros(Graph& g, const Shape& s, DType t = DType::f32) { return full(g, s, 0, t); }
inline Tensor ones(Graph& g, const Shape& s, DType t = DType::f32) { return full(g, s, 1, t); }
Tensor zeros_like(Tensor x);
Tensor ones_like(Tensor x);
Tensor arange(Graph& g, int64_t n, DType dtype = DType::i64);  // 0 .. n-1
Tensor eye(Graph& g, int64_t n, DType dtype = DType::f32);
Tensor tril(Tensor x, int64_t diagonal = 0);  // last two axes; zero above the diagonal
Tensor triu(Tensor x, int64_t diagonal = 0);

// Shape that a and b broadcast to, numpy's rule; nullopt when they don't.
std::optional<Shape> broadcast_shapes(const Shape& a, const Shape& b);

}  // namespace tenon
