// Pooling over the last two axes of x: [B, C, H, W]  ->  [B, C, H', W'], H' = (H + 2 padding - kernel) /
// stride + 1. f32, f64, bf16.
#pragma once

#include "core/graph/graph.h"

namespace tenon {

struct Pool2dOptions {
  Dims kernel;            // [kh, kw]
  Dims stride = {};       // empty: the kernel
  Dims padding = {0, 0};  // on both sides of [H, W], at most half the kernel
};

// Padding counts as minus infinity; among equal elements the first in row-major order gets the gradient.
Tensor max_pool2d(Tensor x, const Pool2dOptions& options);
// i64 [B, C, H', W']: where in its flattened H x W plane each maximum lies.
Tensor max_pool2d_indices(Tensor x, const Pool2dOptions& options);
// x, dy: y's shape -> x's shape: the derivative of max_pool2d.
Tensor max_pool2d_grad(Tensor x, Tensor dy, const Pool2dOptions& options);

// Padding counts as zeros, in the divisor too (PyTorch's count_include_pad).
Tensor avg_pool2d(Tensor x, const Pool2dOptions& options);
// dy: y's shape -> x_shape: the derivative of avg_pool2d.
Tensor avg_pool2d_grad(Tensor dy, const Shape& x_shape, const Pool2dOptions& options);

// -> [B, C, out[0], out[1]]; output i averages rows floor(i H / out) .. ceil((i+1) H / out), as PyTorch.
Tensor adaptive_avg_pool2d(Tensor x, const Dims& out);
Tensor adaptive_avg_pool2d_grad(Tensor dy, const Shape& x_shape);
// -> [B, C]: the mean over H and W.
Tensor global_avg_pool2d(Tensor x);

}  // namespace tenon
