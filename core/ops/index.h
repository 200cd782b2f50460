// Gather and scatter. Indices are i32 or i64; one out of range is an error that names it, never a wild read.
#pragma once

#include "core/graph/graph.h"

namespace tenon {

// x: [.., N, ..] (axis), idx: any shape S -> [.., S.., ..]: x's slices along `axis`. Derivative: scatter_add.
Tensor gather(Tensor x, Tensor idx, int axis = 0);
// base with src's slices added at idx along axis; duplicates add up. src: base's shape with S in place of
// `axis`.
Tensor scatter_add(Tensor base, Tensor idx, Tensor src, int axis = 0);
// idx has x's rank; out[i][j] = x[idx[i][j]][j] along `axis`, as numpy's take_along_axis.
Tensor take_along_axis(Tensor x, Tensor idx, int axis);
// base plus src put at idx along axis (inverse of take_along_axis; duplicates add up).
Tensor put_along_axis_add(Tensor base, Tensor idx, Tensor src, int axis);
// idx: S -> S + [depth], 1 at the index. Out-of-range indices give a row of zeros (ignore labels).
Tensor one_hot(Tensor idx, int64_t depth, DType dtype = DType::f32);
// table: [V, D], idx: S -> S + [D]
Tensor embedding(Tensor table, Tensor idx);
// How often each value 0..n-1 occurs: idx: S -> i64 [n]
Tensor bincount(Tensor idx, int64_t n);
// x: [N, ..], segment: [N] (any order) -> [n, ..]: sums of the rows of each segment.
Tensor segment_sum(Tensor x, Tensor segment, int64_t n);

}  // namespace tenon
