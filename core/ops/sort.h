// Ordering along one axis. Stable: equal elements keep their order; NaN counts as larger than every number.
#pragma once

#include "core/graph/graph.h"

namespace tenon {

struct Ranked {
  Tensor values;   // x's elements in order; differentiable
  Tensor indices;  // i64: where they were along the axis
};

// x: [.., N, ..] -> i64 [.., N, ..]: the indices that put x in order along `axis`.
Tensor argsort(Tensor x, int axis = -1, bool descending = false);
Tensor sort(Tensor x, int axis = -1, bool descending = false);
Ranked sort_with_indices(Tensor x, int axis = -1, bool descending = false);
// x: [.., N, ..] -> [.., k, ..]: the k largest, largest first; among equal ones the lowest index first. 0 <=
// k <= N.
Ranked top_k(Tensor x, int64_t k, int axis = -1);

// Quantile q in [0, 1] along `axis`, linear between the two nearest order statistics (numpy's default); axis
// dropped.
Tensor quantile(Tensor x, double q, int axis = -1);
Tensor median(Tensor x, int axis = -1);

// edges: [N] ascending, x: any shape -> i64, x's shape: how many edges are < x (right: <= x).
Tensor searchsorted(Tensor edges, Tensor x, bool right = false);

}  // namespace tenon
