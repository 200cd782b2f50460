// Ops that lay tensors side by side: concat/1 and pad/1.
#include "core/ops/dense.h"
#include "core/ops/sample_values.h"
#include "core/ops/shape_ops.h"
#include "core/tensor/saturate.h"

namespace tenon {
namespace {

// Writes `from` into the box of `to` that begins at `at`.
void place(const View& from, const View& to, const Dims& at) {
  int64_t offset = 0;
  for (int i = 0; i < at.size(); ++i) offset += at[i] * to.strides[i];
  dispatch(to.dtype, [&](auto t) {
    using T = decltype(t);
    for_each_offset<2>(from.shape, {from.strides, to.strides}, [&](int64_t i, int64_t o) {
      to.template as<T>()[offset + o] = from.template as<T>()[i];
    });
  });
}

// --- concat: xs: equal but along `axis` ---

constexpr AttrSpec kConcatAttrs[] = {{"axis", AttrKind::i64}};

int axis_of(const Attrs& attrs, int rank) {
  const int64_t axis = attrs.i("axis");
  return static_cast<int>(axis < 0 ? axis + rank : axis);
}

Status infer_concat(const InferArgs& a) {
  TN_RETURN_IF_ERROR(want_same_dtype("concat", a.in));
  TN_ASSIGN(const int axis, normalize_axis("concat", a.attrs.i("axis"), a.in[0].shape.rank()));
  a.out = {a.in[0]};
  Shape& shape = a.out[0].shape;
  for (const TensorType& t : a.in.subspan(1)) {
    Shape expected = shape;
    if (t.shape.rank() == shape.rank()) expected[axis] = t.shape[axis];
    if (t.shape != expected)
      return invalid("concat: " + to_string(a.in[0]) + " and " + to_string(t) + " differ in more than axis " +
                     std::to_string(axis));
    shape[axis] += t.shape[axis];
  }
  return check_shape("concat", shape);
}
Status plain_concat(const KernelArgs& a) {
  const View& out = a.out[0];
  const int axis = axis_of(a.attrs, out.shape.rank());
  Dims at = Dims::filled(out.shape.rank(), 0);
  for (const View& x : a.in) {
    place(x, out, at);
    at[axis] += x.shape[axis];
  }
  return Status::ok();
}
void vjp_concat(VjpArgs& a) {
  const int axis = axis_of(a.attrs, a.out[0].rank());
  int64_t at = 0;
  for (size_t k = 0; k < a.in.size(); ++k) {
    const int64_t n = a.in[k].dim(axis);
    if (a.needed[k]) a.grads[k] = narrow(a.cotangents[0], axis, at, n);
    at += n;
  }
}
std::vector<Sample> concat_samples() {
  return {{{sample_f64({2, 3}, -1, 1), sample_f64({1, 3}, -1, 1, 2)}, AttrList().i(0)},
          {{sample_f64({2, 3}, -1, 1), sample_f64({2, 1}, -1, 1, 2), sample_f64({2, 0}, -1, 1)},
           AttrList().i(-1)},
          {{sample_f64({1}, -1, 1)}, AttrList().i(0)},
          {{sample_f64({0, 2}, -1, 1), sample_f64({0, 2}, -1, 1)}, AttrList().i(0)}};
}

// --- pad: `low` elements of `value` before and `high` after, per axis ---

constexpr AttrSpec kPadAttrs[] = {
    {"low", AttrKind::ints, true}, {"high", AttrKind::ints, true}, {"value", AttrKind::f64}};

Status infer_pad(const InferArgs& a) {
  const TensorType& x = a.in[0];
  TN_ASSIGN(const Dims low, short_list("pad", "low", a.attrs.ints("low")));
  TN_ASSIGN(const Dims high, short_list("pad", "high", a.attrs.ints("high")));
  a.out = {x};
  bool fits = low.size() == x.shape.rank() && high.size() == x.shape.rank();
  for (int i = 0; fits && i < low.size(); ++i) {
    fits = low[i] >= 0 && high[i] >= 0 && low[i] < INT64_MAX / 4 && high[i] < INT64_MAX / 4;
    if (fits) a.out[0].shape[i] += low[i] + high[i];
  }
  if (!fits)
    return invalid("pad: low " + to_string(low) + " and high " + to_string(high) +
                   " must have one non-negative entry for each axis of " + to_string(x));
  return check_shape("pad", a.out[0].shape);
}
Status plain_pad(const KernelArgs& a) {
  const View &x = a.in[0], &out = a.out[0];
  dispatch(out.dtype, [&](auto t) {
    using T = decltype(t);
    const double value = a.attrs.f("value");
    T fill;
    if constexpr (std::is_same_v<T, bool>)
      fill = value != 0;
    else if constexpr (std::is_integral_v<T>)
      fill = saturate<T>(value);
    else
      fill = store<T>(value);
    std::fill_n(out.as<T>(), out.numel(), fill);
  });
  place(x, out, a.attrs.dims("low"));
  return Status::ok();
}
void vjp_pad(VjpArgs& a) {
  const Dims low = a.attrs.dims("low");
  Dims stop = low;
  for (int i = 0; i < low.size(); ++i) stop[i] += a.in[0].dim(i);
  a.grads[0] = slice(a.cotangents[0], low, stop);
}
std::vector<Sample> pad_samples() {
  return {{{sample_f64({2, 3}, -1, 1)}, AttrList().ints(Dims{1, 0}).ints(Dims{0, 2}).f(0)},
          {{sample_f64({3}, -1, 1)}, AttrList().ints(Dims{2}).ints(Dims{1}).f(-1.5)},
          {{sample_f64({1}, -1, 1)}, AttrList().ints(Dims{0}).ints(Dims{0}).f(1)},
          {{sample_f64({}, -1, 1)}, AttrList().ints(Dims{}).ints(Dims{}).f(0)},
          {{sample_f64({0, 2}, -1, 1)}, AttrList().ints(Dims{1, 1}).ints(Dims{1, 0}).f(2)}};
}

constinit const OpDef kConcat{.id = "concat/1",
                              .max_in = -1,
                              .attrs = kConcatAttrs,
                              .infer = infer_concat,
                              .vjp = vjp_concat,
                              .plain = plain_concat,
                              .samples = concat_samples};
constinit const OpDef kPad{.id = "pad/1",
                           .attrs = kPadAttrs,
                           .infer = infer_pad,
                           .vjp = vjp_pad,
                           .plain = plain_pad,
                           .samples = pad_samples};

}  // namespace

constinit const OpDef* const kJoinOps[] = {&kConcat, &kPad};

Tensor concat(std::span<const Tensor> xs, int axis) {
  for (const Tensor& x : xs)
    if (!x.valid()) return {};
  return xs.empty() ? Tensor() : xs[0].graph().apply(kConcat, xs, AttrList().i(axis));
}

Tensor stack(std::span<const Tensor> xs, int axis) {
  std::vector<Tensor> columns;
  for (const Tensor& x : xs) columns.push_back(unsqueeze(x, axis));
  return concat(columns, axis);
}

Tensor pad(Tensor x, const Dims& low, const Dims& high, double value) {
  return x.valid() ? x.graph().apply(kPad, {x}, AttrList().ints(low).ints(high).f(value)) : Tensor();
}

}  // namespace tenon
