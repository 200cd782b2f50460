// Matrix products of mixed precision.
#pragma once

#include "core/graph/graph.h"

namespace tenon {

struct MixedMatmulOptions {
  bool transpose_a = false, transpose_b = false;
  DType result = DType::f32;  // or bf16
};

// a, b: f32 or bf16, of shapes as for matmul; f32 is rounded to bf16. bias: f32 [N], added to each row, or
// null.
// -> the products summed in f32, rounded once if the result is bf16. The derivative in an operand has its
// dtype: in f32 it is not rounded. f64 (both, and the bias): matmul and add in f64.
Tensor mixed_matmul(Tensor a, Tensor b, Tensor bias = {}, const MixedMatmulOptions& options = {});

}  // namespace tenon
