// The derivatives of a matrix product, for every op that is one.
#pragma once

#include "core/ops/reduce.h"
#include "core/ops/shape.h"

namespace tenon {

// C = op(A) op(B): dA = dC op(B)^T, dB = op(A)^T dC, transposed when the operand is, summed over broadcast
// axes. `product(l, r, transpose_l, transpose_r, dtype)` multiplies as the op does, for an operand of that
// dtype.
template <class Product>
void operand_gradients(VjpArgs& args, Product&& product) {
  const Tensor a = args.in[0], b = args.in[1], dc = args.cotangents[0];
  const bool ta = args.attrs.flag("transpose_a"), tb = args.attrs.flag("transpose_b");
  const Shape a_shape = a.shape(), b_shape = b.shape();
  const DType a_type = a.dtype(), b_type = b.dtype();
  if (args.needed[0]) {
    const Tensor da = ta ? product(b, dc, tb, true, a_type) : product(dc, b, false, !tb, a_type);
    args.grads[0] = sum_to(da, a_shape);
  }
  if (args.needed[1]) {
    // One matrix for a whole batch: a single product sums over the batch, too.
    const bool shared = b_shape.rank() == 2 && a_shape.rank() > 2 && !ta && a_shape.numel() > 0;
    const Tensor l = shared ? reshape(a, {-1, a_shape.back()}) : a;
    const Tensor r = shared ? reshape(dc, {-1, b_shape[tb ? 0 : 1]}) : dc;
    args.grads[1] = sum_to(tb ? product(r, l, true, ta, b_type) : product(l, r, !ta, false, b_type), b_shape);
  }
}

}  // namespace tenon
