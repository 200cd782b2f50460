// Walking several strided tensors of one shape: merging dimensions, and copying runs into contiguous memory.
#pragma once

#include <cstddef>
#include <vector>

#include "core/tensor/shape.h"

namespace tenon::cpu {

// Strides with which `shape` with `strides` is read when broadcast to `to` (numpy's rule).
Strides broadcast_strides(const Shape& shape, const Strides& strides, const Shape& to);

// Merges neighbouring dimensions that every operand walks evenly, and drops those of size 1. At least one is
// left. `strides` holds one list per operand; an operand that is contiguous in `shape` stays so.
void collapse(Shape& shape, std::vector<Strides>& strides);

// Copies elements [start, start + n) in row-major order of `shape` from a strided tensor at `from` to `to`.
void gather(const Shape& shape, const Strides& strides, size_t element_bytes, const void* from, int64_t start,
            int64_t n, void* to);

}  // namespace tenon::cpu
