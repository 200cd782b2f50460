// What element-wise op definitions share: an op is a struct with an id, a range for its sample values, a
// scalar function and its derivative as graph; unary<Op>() and binary<Op>() make the OpDef.
//
//   struct Exp {
//     static constexpr std::string_view id = "exp/1";
//     static constexpr double low = -2, high = 2;
//     static auto f(auto x) { return std::exp(x); }
//     static Tensor d(Tensor x, Tensor y, Tensor g) { return g * y; }   // x, y = f(x), cotangent of y
//   };
//
// `static constexpr bool ints = true` admits integers; an op without d (binary: da and db) is piecewise
// constant.
#pragma once

#include <cmath>
#include <string>

#include "core/ops/dense.h"
#include "core/ops/elementwise.h"
#include "core/ops/reduce.h"
#include "core/ops/sample_values.h"
#include "core/ops/shape.h"

namespace tenon {

// The op lists of the element-wise files; elementwise_ops() joins them.
extern const OpDef* const kUnaryOps[30];
extern const OpDef* const kBinaryOps[15];

template <class Op>
constexpr std::string_view op_name() {
  return Op::id.substr(0, Op::id.rfind('/'));
}
template <class Op>
concept TakesIntegers = requires {
  requires Op::ints;
};
template <class Op>
concept HasUnaryDerivative = requires {
  &Op::d;
};
template <class Op>
concept HasBinaryDerivative = requires {
  &Op::da;
};

// Integer arithmetic wraps around.
template <class A>
A wrap_add(A a, A b) {
  if constexpr (std::is_integral_v<A>)
    return static_cast<A>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
  else
    return a + b;
}
template <class A>
A wrap_sub(A a, A b) {
  if constexpr (std::is_integral_v<A>)
    return static_cast<A>(static_cast<uint64_t>(a) - static_cast<uint64_t>(b));
  else
    return a - b;
}
template <class A>
A wrap_mul(A a, A b) {
  if constexpr (std::is_integral_v<A>)
    return static_cast<A>(static_cast<uint64_t>(a) * static_cast<uint64_t>(b));
  else
    return a * b;
}

// Calls f with the C++ type of t: any number, or floating ones only.
template <bool kInts, class F>
Status dispatch_numbers(DType t, F&& f) {
  if constexpr (kInts) {
    if (t == DType::i32) return f(int32_t{});
    if (t == DType::i64) return f(int64_t{});
    if (t == DType::u8) return f(uint8_t{});
  }
  return dispatch_floating(t, f);
}

template <bool kInts>
Status want_numbers(std::string_view op, const TensorType& t) {
  if (is_floating(t.dtype) || (kInts && is_integer(t.dtype))) return Status::ok();
  return invalid(
      std::string(op) + ": got " + to_string(t) +
      (kInts ? "; it wants numbers (cast it first)" : "; it wants f32, f64 or bf16 (cast it first)"));
}

// Shape that the operands broadcast to.
inline Result<Shape> broadcast_operands(std::string_view op, std::span<const TensorType> in) {
  Shape shape = in[0].shape;
  for (const TensorType& t : in.subspan(1)) {
    const auto both = broadcast_shapes(shape, t.shape);
    if (!both)
      return invalid(std::string(op) + ": shapes " + to_string(shape) + " and " + to_string(t.shape) +
                     " do not broadcast; aligned at the last axis, sizes must be equal or 1");
    shape = *both;
  }
  return shape;
}

// out[i] = f(in[i]), types X -> R.
template <class X, class R, class F>
void map_elements(const View& in, const View& out, F f) {
  const X* x = in.as<X>();
  R* r = out.as<R>();
  for_each_offset<2>(out.shape, {broadcast_strides(in, out.shape), out.strides},
                     [&](int64_t i, int64_t o) { r[o] = store<R>(f(load(x[i]))); });
}
template <class X, class R, class F>
void map_elements(const View& in_a, const View& in_b, const View& out, F f) {
  const X *a = in_a.as<X>(), *b = in_b.as<X>();
  R* r = out.as<R>();
  for_each_offset<3>(out.shape,
                     {broadcast_strides(in_a, out.shape), broadcast_strides(in_b, out.shape), out.strides},
                     [&](int64_t i, int64_t j, int64_t o) { r[o] = store<R>(f(load(a[i]), load(b[j]))); });
}

// --- Unary ---

template <class Op>
Status infer_unary(const InferArgs& a) {
  TN_RETURN_IF_ERROR(want_numbers<TakesIntegers<Op>>(op_name<Op>(), a.in[0]));
  a.out = {a.in[0]};
  return Status::ok();
}

template <class Op>
Status plain_unary(const KernelArgs& a) {
  return dispatch_numbers<TakesIntegers<Op>>(a.in[0].dtype, [&](auto t) {
    using T = decltype(t);
    map_elements<T, T>(a.in[0], a.out[0], [](Arith<T> x) { return Op::f(x); });
    return Status::ok();
  });
}

template <class Op>
void vjp_unary(VjpArgs& a) {
  a.grads[0] = Op::d(a.in[0], a.out[0], a.cotangents[0]);
}

template <class Op>
std::vector<Sample> unary_samples() {
  std::vector<Sample> samples;
  for (const Shape& shape : {Shape{3, 5}, Shape{1}, Shape{}, Shape{2, 0}})
    samples.push_back({{sample_f64(shape, Op::low, Op::high)}});
  return samples;
}

template <class Op>
constexpr OpDef unary() {
  OpDef op{.id = Op::id,
           .infer = infer_unary<Op>,
           .plain = plain_unary<Op>,
           .samples = unary_samples<Op>,
           .elementwise = true};
  if constexpr (HasUnaryDerivative<Op>) op.vjp = vjp_unary<Op>;
  return op;
}

// --- Binary ---

template <class Op>
Status infer_binary(const InferArgs& a) {
  TN_RETURN_IF_ERROR(want_same_dtype(op_name<Op>(), a.in));
  TN_RETURN_IF_ERROR(want_numbers<TakesIntegers<Op>>(op_name<Op>(), a.in[0]));
  TN_ASSIGN(const Shape shape, broadcast_operands(op_name<Op>(), a.in));
  a.out = {{a.in[0].dtype, shape}};
  return Status::ok();
}

template <class Op>
Status plain_binary(const KernelArgs& a) {
  return dispatch_numbers<TakesIntegers<Op>>(a.in[0].dtype, [&](auto t) {
    using T = decltype(t);
    using A = Arith<T>;
    map_elements<T, T>(a.in[0], a.in[1], a.out[0], [](A x, A y) { return Op::f(x, y); });
    return Status::ok();
  });
}

template <class Op>
void vjp_binary(VjpArgs& a) {
  const Tensor x = a.in[0], y = a.in[1], r = a.out[0], g = a.cotangents[0];
  if (a.needed[0]) a.grads[0] = sum_to(Op::da(x, y, r, g), x.shape());
  if (a.needed[1]) a.grads[1] = sum_to(Op::db(x, y, r, g), y.shape());
}

// Both operands in [low, high], without ties between them.
template <class Op>
std::vector<Sample> binary_samples() {
  const auto pair = [](const Shape& a, const Shape& b) {
    const double shift = (Op::high - Op::low) / 64;
    return Sample{{sample_f64(a, Op::low, Op::high), sample_f64(b, Op::low + shift, Op::high + shift, 2)}};
  };
  return {pair({3, 5}, {3, 5}), pair({3, 1}, {5}), pair({2, 1, 4}, {3, 1}), pair({}, {4}),
          pair({1}, {1}),       pair({0, 3}, {3}), pair({2, 3}, {})};
}

template <class Op>
constexpr OpDef binary() {
  OpDef op{.id = Op::id,
           .min_in = 2,
           .max_in = 2,
           .infer = infer_binary<Op>,
           .plain = plain_binary<Op>,
           .samples = binary_samples<Op>,
           .elementwise = true};
  if constexpr (HasBinaryDerivative<Op>) op.vjp = vjp_binary<Op>;
  return op;
}

// Applies an op without attributes; null in, null out.
inline Tensor apply_plainly(const OpDef& op, std::initializer_list<Tensor> in) {
  for (const Tensor& t : in)
    if (!t.valid()) return {};
  return in.begin()->graph().apply(op, in);
}

}  // namespace tenon
