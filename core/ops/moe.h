// Mixture of experts without dynamic shapes: rows are permuted into one segment per expert, then multiplied
// by segment.
#pragma once

#include "core/graph/graph.h"

namespace tenon {

struct ExpertOrder {
  Tensor
      order;  // i64 [T*K]: flattened slots t*K+k, those of expert 0 first, each expert's in ascending order
  Tensor offsets;  // i64 [E+1]: expert e has order[offsets[e] .. offsets[e+1])
};

// idx: integers [T, K] in [0, E) (any rank; an index outside is an error).
ExpertOrder sort_by_expert(Tensor idx, int64_t n_experts);

// x: [R, I]  w: [E, I, O] (transpose_w: [E, O, I])  offsets: i64 [E+1], from 0 to R, non-decreasing  ->  [R,
// O] Rows offsets[e] .. offsets[e+1] of x times w[e]. Bilinear in x and w.
Tensor grouped_matmul(Tensor x, Tensor w, Tensor offsets, bool transpose_w = false);
// x: [R, I]  y: [R, O]  offsets: i64 [E+1]  ->  [E, I, O]: per segment x^T y; the derivative of
// grouped_matmul in w.
Tensor grouped_matmul_weight(Tensor x, Tensor y, Tensor offsets);

}  // namespace tenon
