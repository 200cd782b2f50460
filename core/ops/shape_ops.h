// What the shape files share.
#pragma once

#include "core/ops/kernel_util.h"
#include "core/ops/shape.h"

namespace tenon {

// Those that only re-address memory (shape_view.cpp), and those that join or pad (shape_join.cpp).
extern const OpDef* const kViewOps[9];
extern const OpDef* const kJoinOps[2];

// Copies a strided view into contiguous elements, in row-major order of the view.
inline Status copy_elements(const View& from, const View& to) {
  dispatch(to.dtype, [&](auto t) {
    using T = decltype(t);
    const T* x = from.as<T>();
    T* out = to.as<T>();
    if (from.contiguous()) {
      std::copy_n(x, from.numel(), out);
      return;
    }
    int64_t i = 0;
    for_each_offset<1>(from.shape, {from.strides}, [&](int64_t o) { out[i++] = x[o]; });
  });
  return Status::ok();
}

// Start, stop and step of slice/1 for every axis.
struct SliceRange {
  Dims start, stop, step;
};
// Elements that start, start + step, .. before stop counts; step is not 0.
inline int64_t slice_length(int64_t start, int64_t stop, int64_t step) {
  if (step > 0) return stop > start ? (stop - start - 1) / step + 1 : 0;
  return start > stop ? (start - stop - 1) / -step + 1 : 0;
}

}  // namespace tenon
