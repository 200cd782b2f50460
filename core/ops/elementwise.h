// Element-wise operations. Binary ones broadcast as numpy does and want equal dtypes; a C++ number takes the
// dtype of the tensor beside it.
#pragma once

#include "core/graph/graph.h"

namespace tenon {

// x -> f(x), same shape and dtype. Integers: neg, abs, sign, square, clamp, relu only.
Tensor neg(Tensor x);
Tensor exp(Tensor x);
Tensor log(Tensor x);
Tensor log1p(Tensor x);
Tensor expm1(Tensor x);
Tensor sqrt(Tensor x);
Tensor rsqrt(Tensor x);
Tensor square(Tensor x);
Tensor reciprocal(Tensor x);
Tensor tanh(Tensor x);
Tensor sigmoid(Tensor x);
Tensor softplus(Tensor x);  // log(1 + e^x), without overflow
Tensor erf(Tensor x);
Tensor gelu(Tensor x);       // x Phi(x), exact (erf)
Tensor gelu_tanh(Tensor x);  // the tanh approximation
Tensor silu(Tensor x);
Tensor relu(Tensor x);
Tensor leaky_relu(Tensor x, double slope);
Tensor sin(Tensor x);
Tensor cos(Tensor x);
Tensor asin(Tensor x);
Tensor acos(Tensor x);
Tensor atan(Tensor x);
Tensor abs(Tensor x);
Tensor sign(Tensor x);
Tensor floor(Tensor x);
Tensor ceil(Tensor x);
Tensor round(Tensor x);  // half to even
// Bounds may be tensors of rank 0 (runtime scalars) through minimum/maximum; these are structural.
Tensor clamp(Tensor x, double lo, double hi);
Tensor is_finite(Tensor x);  // -> bool

Tensor add(Tensor a, Tensor b);
Tensor sub(Tensor a, Tensor b);
Tensor mul(Tensor a, Tensor b);
Tensor div(Tensor a, Tensor b);
Tensor pow(Tensor a, Tensor b);
Tensor minimum(Tensor a, Tensor b);
Tensor maximum(Tensor a, Tensor b);

// -> bool
Tensor equal(Tensor a, Tensor b);
Tensor not_equal(Tensor a, Tensor b);
Tensor less(Tensor a, Tensor b);
Tensor less_equal(Tensor a, Tensor b);
Tensor greater(Tensor a, Tensor b);
Tensor greater_equal(Tensor a, Tensor b);
Tensor logical_and(Tensor a, Tensor b);
Tensor logical_or(Tensor a, Tensor b);
Tensor logical_not(Tensor a);

// cond: bool; a, b: equal dtypes; all broadcast.
Tensor where(Tensor cond, Tensor a, Tensor b);
// Value conversion; to an integer truncates towards zero. The derivative casts back (zero through integers).
Tensor cast(Tensor x, DType dtype);
// Identity with a zero derivative.
Tensor stop_gradient(Tensor x);
// Rounds half to even; the derivative is that of the identity (straight-through).
Tensor round_ste(Tensor x);
// y's value with a derivative of one's own: `vjp(cotangent of y)` returns one cotangent (or null) per x.
Tensor custom_gradient(Tensor y, std::span<const Tensor> xs, Graph::CustomVjp vjp);

// A number of like's dtype, rank 0. scalar_like: bound at run time, so that it may differ from step to step
// without a new plan. constant_like: part of the structure, for what never changes.
Tensor scalar_like(Tensor like, double v);
Tensor constant_like(Tensor like, double v);

inline Tensor operator+(Tensor a, Tensor b) { return add(a, b); }
inline Tensor operator-(Tensor a, Tensor b) { return sub(a, b); }
inline Tensor operator*(Tensor a, Tensor b) { return mul(a, b); }
inline Tensor operator/(Tensor a, Tensor b) { return div(a, b); }
inline Tensor operator-(Tensor a) { return neg(a); }
inline Tensor operator+(Tensor a, double b) { return add(a, scalar_like(a, b)); }
inline Tensor operator-(Tensor a, double b) { return sub(a, scalar_like(a, b)); }
inline Tensor operator*(Tensor a, double b) { return mul(a, scalar_like(a, b)); }
inline Tensor operator/(Tensor a, double b) { return div(a, scalar_like(a, b)); }
inline Tensor operator+(double a, Tensor b) { return add(scalar_like(b, a), b); }
inline Tensor operator-(double a, Tensor b) { return sub(scalar_like(b, a), b); }
inline Tensor operator*(double a, Tensor b) { return mul(scalar_like(b, a), b); }
inline Tensor operator/(double a, Tensor b) { return div(scalar_like(b, a), b); }

}  // namespace tenon
