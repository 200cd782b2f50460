// Pooling ops, listed with the convolutions.
#pragma once

#include <algorithm>
#include <string>

#include "core/graph/op.h"

namespace tenon {

extern const OpDef kMaxPool2d, kMaxPool2dIndices, kMaxPool2dGrad, kAvgPool2d, kAvgPool2dGrad,
    kAdaptiveAvgPool2d, kAdaptiveAvgPool2dGrad;

// The `shape` attribute of a derivative: that of the pooled input, [B, C, H, W].
inline Result<Shape> pooled_shape(std::string_view op, const Attrs& attrs) {
  const auto s = attrs.ints("shape");
  if (s.size() != 4 || *std::min_element(s.begin(), s.end()) < 0)
    return invalid(std::string(op) + ": shape must be that of the pooled input, [B, C, H, W]");
  return Shape(s);
}

}  // namespace tenon
