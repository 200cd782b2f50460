// How far results of each dtype may be apart, in one table.
#pragma once

#include "core/tensor/dtype.h"

namespace tenon::test {

// Relative to an element's size plus the mean size of the tensor's elements.
//
// between_kernels: two kernels of one op in the same dtype, which may sum in another order and round a
// function's last bits differently. against_f64: the op in this dtype against f64 on the same (representable)
// inputs.
struct Tolerance {
  double between_kernels, against_f64;
};

constexpr Tolerance tolerance(DType t) {
  switch (t) {
    case DType::f64:
      return {1e-12, 1e-12};
    case DType::f32:
      return {1e-5, 2e-5};
    case DType::bf16:
      return {1.0 / 128, 1.0 / 64};  // half a unit in the last place is 1/512
    default:
      return {0, 0};
  }
}

}  // namespace tenon::test
