// Matrix products.
#pragma once

#include "core/graph/graph.h"

namespace tenon {

// a: [.., M, K]  b: [.., K, N]  ->  [.., M, N]; the leading dimensions broadcast as numpy's do. With
// transpose_a a is [.., K, M], with transpose_b b is [.., N, K]. Equal dtypes: f32, f64, bf16 (summed in
// f32), i32, i64.
Tensor matmul(Tensor a, Tensor b, bool transpose_a = false, bool transpose_b = false);

// x: [.., I]  w: [O, I]  b: [O] or null  ->  [.., O]: x w^T + b, one matrix product for all leading
// dimensions.
Tensor linear(Tensor x, Tensor w, Tensor b = {});
// The same in mixed precision (core/ops/mixed_matmul.h), of x's dtype.
Tensor mixed_linear(Tensor x, Tensor w, Tensor b = {});

}  // namespace tenon
