// Inclusive scans along one axis: cumsum/1, cumprod/1, cummax/1.
#include "core/ops/compose.h"
#include "core/ops/elementwise.h"
#include "core/ops/index.h"
#include "core/ops/reduce_ops.h"
#include "core/ops/sample_values.h"
#include "core/ops/shape.h"

namespace tenon {
namespace {

constexpr AttrSpec kAxisAttrs[] = {{"axis", AttrKind::i64, true}};
constexpr AttrSpec kCumsumAttrs[] = {{"axis", AttrKind::i64, true}, {"reverse", AttrKind::i64}};

int axis_of(const Attrs& attrs, int rank) {
  const int64_t axis = attrs.i("axis");
  return static_cast<int>(axis < 0 ? axis + rank : axis);
}

Status infer_scan(std::string_view op, const InferArgs& a) {
  TN_RETURN_IF_ERROR(normalize_axis(op, a.attrs.i("axis"), a.in[0].shape.rank()).status());
  a.out = {{accumulated_dtype(a.in[0].dtype), a.in[0].shape}};
  return Status::ok();
}

// out[i] = step(out[i - 1], x[i]) along the axis, beginning with `start`; integers in i64, wrapping around.
template <class F>
Status scan(const KernelArgs& a, int start, bool reverse, F step) {
  const View &x = a.in[0], &out = a.out[0];
  const int axis = axis_of(a.attrs, x.shape.rank());
  const int64_t n = x.shape[axis], from_step = x.strides[axis], to_step = out.strides[axis];
  dispatch(x.dtype, [&](auto t) {
    using T = decltype(t);
    using R = std::conditional_t<std::is_integral_v<T>, int64_t, T>;
    using A = std::conditional_t<std::is_integral_v<T>, uint64_t, Arith<T>>;
    for_each_line<2>(x.shape, axis, {x.strides, out.strides}, [&](int64_t from, int64_t to) {
      A acc = static_cast<A>(start);
      for (int64_t k = 0; k < n; ++k) {
        const int64_t i = reverse ? n - 1 - k : k;
        acc = step(acc, static_cast<A>(load(x.template as<T>()[from + i * from_step])));
        out.template as<R>()[to + i * to_step] = store<R>(acc);
      }
    });
  });
  return Status::ok();
}

Status infer_cumsum(const InferArgs& a) { return infer_scan("cumsum", a); }
Status plain_cumsum(const KernelArgs& a) {
  return scan(a, 0, a.attrs.flag("reverse"), [](auto acc, auto v) { return acc + v; });
}
void vjp_cumsum(VjpArgs& a) {
  a.grads[0] = cumsum(a.cotangents[0], axis_of(a.attrs, a.in[0].rank()), !a.attrs.flag("reverse"));
}
std::vector<Sample> cumsum_samples() {
  return {{{sample_f64({3, 5}, -2, 2)}, AttrList().i(1).i(0)},
          {{sample_f64({2, 3, 4}, -2, 2)}, AttrList().i(0).i(1)},
          {{sample_f64({2, 3, 4}, -2, 2)}, AttrList().i(-2).i(0)},
          {{sample_f64({1}, -2, 2)}, AttrList().i(0).i(1)},
          {{sample_f64({0, 3}, -2, 2)}, AttrList().i(0).i(0)}};
}

Status infer_cumprod(const InferArgs& a) { return infer_scan("cumprod", a); }
Status plain_cumprod(const KernelArgs& a) {
  return scan(a, 1, false, [](auto acc, auto v) { return acc * v; });
}
// The scan in log2 n doubling steps (Hillis & Steele 1986); differentiating it is right at zeros, unlike a
// division by x.
void vjp_cumprod(VjpArgs& a) {
  vjp_of_composition(a, [&](std::span<const Tensor> in) -> std::vector<Tensor> {
    Tensor y = in[0];
    const int axis = axis_of(a.attrs, y.rank());
    const int64_t n = y.dim(axis);
    for (int64_t shift = 1; shift < n; shift *= 2) {
      const Tensor head = narrow(y, axis, 0, shift);
      const Tensor rest = narrow(y, axis, shift, n - shift) * narrow(y, axis, 0, n - shift);
      y = concat(std::vector<Tensor>{head, rest}, axis);
      if (!y.valid()) break;
    }
    return {y};
  });
}
std::vector<Sample> cumprod_samples() {
  HostArray zeros_inside = sample_f64({2, 5}, 0.5, 1.5);
  zeros_inside.set(2, 0);
  zeros_inside.set(5, 0), zeros_inside.set(8, 0);
  return {{{sample_f64({3, 5}, -1.5, 1.2)}, AttrList().i(1)},
          {{sample_f64({3, 2, 2}, -1.5, 1.2)}, AttrList().i(0)},
          {{zeros_inside}, AttrList().i(-1)},
          {{sample_f64({1}, -2, 2)}, AttrList().i(0)},
          {{sample_f64({0, 3}, -2, 2)}, AttrList().i(0)}};
}

// Outputs: the largest element so far, and its (lowest) index.
Status infer_cummax(const InferArgs& a) {
  if (a.in[0].dtype == DType::boolean)
    return invalid("cummax: got " + to_string(a.in[0]) + "; cast it to u8 first");
  TN_RETURN_IF_ERROR(normalize_axis("cummax", a.attrs.i("axis"), a.in[0].shape.rank()).status());
  a.out = {a.in[0], {DType::i64, a.in[0].shape}};
  return Status::ok();
}
Status plain_cummax(const KernelArgs& a) {
  const View &x = a.in[0], &values = a.out[0], &indices = a.out[1];
  const int axis = axis_of(a.attrs, x.shape.rank());
  const int64_t n = x.shape[axis], from_step = x.strides[axis], to_step = values.strides[axis];
  dispatch(x.dtype, [&](auto t) {
    using T = decltype(t);
    for_each_line<2>(x.shape, axis, {x.strides, values.strides}, [&](int64_t from, int64_t to) {
      const T* p = x.template as<T>() + from;
      int64_t best = 0;
      for (int64_t i = 0; i < n; ++i) {
        const Arith<T> v = load(p[i * from_step]), b = load(p[best * from_step]);
        if (b == b && (v > b || v != v)) best = i;  // from the first NaN on, NaN
        values.template as<T>()[to + i * to_step] = p[best * from_step];
        indices.as<int64_t>()[to + i * to_step] = best;
      }
    });
  });
  return Status::ok();
}
void vjp_cummax(VjpArgs& a) {
  if (!a.cotangents[0].valid()) return;
  const int axis = axis_of(a.attrs, a.in[0].rank());
  a.grads[0] = put_along_axis_add(zeros_like(a.in[0]), a.out[1], a.cotangents[0], axis);
}
std::vector<Sample> cummax_samples() {
  return {{{sample_f64({3, 5}, -2, 2)}, AttrList().i(1)},
          {{sample_f64({3, 2, 2}, -2, 2)}, AttrList().i(0)},
          {{sample_f64({1}, -2, 2)}, AttrList().i(-1)},
          {{sample_f64({0, 3}, -2, 2)}, AttrList().i(0)}};
}

constinit const OpDef kCumsum{.id = "cumsum/1",
                              .attrs = kCumsumAttrs,
                              .infer = infer_cumsum,
                              .vjp = vjp_cumsum,
                              .plain = plain_cumsum,
                              .samples = cumsum_samples};
constinit const OpDef kCumprod{.id = "cumprod/1",
                               .attrs = kAxisAttrs,
                               .infer = infer_cumprod,
                               .vjp = vjp_cumprod,
                               .plain = plain_cumprod,
                               .samples = cumprod_samples};
constinit const OpDef kCummax{.id = "cummax/1",
                              .n_out = 2,
                              .attrs = kAxisAttrs,
                              .infer = infer_cummax,
                              .vjp = vjp_cummax,
                              .plain = plain_cummax,
                              .samples = cummax_samples};

}  // namespace

constinit const OpDef* const kCumulativeOps[] = {&kCumsum, &kCumprod, &kCummax};

Tensor cumsum(Tensor x, int axis, bool reverse) {
  return x.valid() ? x.graph().apply(kCumsum, {x}, AttrList().i(axis).i(reverse)) : Tensor();
}
Tensor cumprod(Tensor x, int axis) {
  return x.valid() ? x.graph().apply(kCumprod, {x}, AttrList().i(axis)) : Tensor();
}
Tensor cummax(Tensor x, int axis) {
  return x.valid() ? x.graph().apply(kCummax, {x}, AttrList().i(axis)) : Tensor();
}

}  // namespace tenon
