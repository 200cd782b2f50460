// Convolution (cross-correlation, as deep learning has it). It is bilinear: the three two-dimensional
// products below are each other's derivatives.
#pragma once

#include "core/graph/graph.h"

namespace tenon {

struct Conv2dOptions {
  Dims stride = {1, 1};
  Dims padding = {0, 0};  // zeros on both sides of [H, W], or [top, left, bottom, right]
  Dims dilation = {1, 1};
  int64_t groups = 1;
};

// x: [B, C, H, W]  w: [O, C/groups, kh, kw]  ->  y: [B, O, H', W'] with
// H' = (H + top + bottom - dilation (kh - 1) - 1) / stride + 1. f32, f64, bf16.
Tensor conv2d(Tensor x, Tensor w, const Conv2dOptions& options = {});
// w, dy: y's shape -> x_shape: the derivative in x, which is also the transposed convolution of dy.
Tensor conv2d_input_grad(Tensor w, Tensor dy, const Shape& x_shape, const Conv2dOptions& options = {});
// x, dy: y's shape -> [O, C/groups, kh, kw]: the derivative in w. kernel: [kh, kw].
Tensor conv2d_weight_grad(Tensor x, Tensor dy, const Dims& kernel, const Conv2dOptions& options = {});

// x: [B, C, T]  w: [O, C/groups, k]  ->  [B, O, T']
Tensor conv1d(Tensor x, Tensor w, int64_t stride = 1, int64_t padding = 0, int64_t dilation = 1,
              int64_t groups = 1);

}  // namespace tenon
