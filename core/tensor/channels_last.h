// Channels-last: a tensor [B, C, ..] that lies in memory as [B, .., C]. The shape stays; only the strides say
// so.
#pragma once

#include "core/tensor/view.h"

namespace tenon {

// Dimensions, or strides, [B, C, ..] in the order of memory.
template <class D>
D in_memory_order(D dims) {
  const int64_t channels = dims[1];
  dims.erase(1);
  dims.push_back(channels);
  return dims;
}

inline Strides channels_last_strides(const Shape& shape) {
  Strides s = in_memory_order(shape).strides();
  const int64_t channels = s.back();
  s.pop_back();
  s.insert(1, channels);
  return s;
}

// Not so where it would be row-major as well: with one channel, or one place.
inline bool is_channels_last(const Layout& l) {
  return l.shape.rank() > 2 && !l.contiguous() &&
         is_contiguous(in_memory_order(l.shape), in_memory_order(l.strides));
}
// Whether the two layouts of a tensor of this shape differ.
inline bool has_channels_last(const Shape& shape) {
  return shape.rank() > 2 && !is_contiguous(shape, channels_last_strides(shape));
}

}  // namespace tenon
