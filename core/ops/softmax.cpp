// softmax/1, log_softmax/1 and their derivatives as ops of their own, each along one axis.
//   y = softmax(x):      dx = y (dy - <dy, y>)
//   y = log_softmax(x):  dx = dy - e^y <dy, 1>
#include "core/ops/softmax.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "core/ops/dense.h"
#include "core/ops/elementwise.h"
#include "core/ops/families.h"
#include "core/ops/reduce.h"
#include "core/ops/sample_values.h"
#include "core/ops/softmax_ops.h"

namespace tenon {
namespace {

constexpr AttrSpec kAxisAttrs[] = {{"axis", AttrKind::i64, false, -1}};

int axis_of(const Attrs& attrs, int rank) {
  const int64_t axis = attrs.i("axis");
  return static_cast<int>(axis < 0 ? axis + rank : axis);
}

Status infer_axis(std::string_view op, const InferArgs& a) {
  TN_RETURN_IF_ERROR(want_floating(op, a.in[0]));
  TN_RETURN_IF_ERROR(normalize_axis(op, a.attrs.i("axis"), a.in[0].shape.rank()).status());
  if (a.in.size() > 1 && a.in[0] != a.in[1])
    return invalid(std::string(op) + ": wants an output and a cotangent of one type, got " +
                   to_string(a.in[0]) + " and " + to_string(a.in[1]));
  a.out = {a.in[0]};
  return Status::ok();
}
Status infer_softmax(const InferArgs& a) { return infer_axis("softmax", a); }
Status infer_log_softmax(const InferArgs& a) { return infer_axis("log_softmax", a); }
Status infer_softmax_grad(const InferArgs& a) { return infer_axis("softmax_grad", a); }
Status infer_log_softmax_grad(const InferArgs& a) { return infer_axis("log_softmax_grad", a); }

template <bool kLog>
Status plain_softmax(const KernelArgs& a) {
  const View &x = a.in[0], &y = a.out[0];
  const int axis = axis_of(a.attrs, x.shape.rank());
  return dispatch_floating(x.dtype, [&](auto t) {
    using T = decltype(t);
    using A = Arith<T>;
    const int64_t n = x.shape[axis], sx = x.strides[axis], sy = y.strides[axis];
    std::vector<A> line(static_cast<size_t>(n));
    for_each_line<2>(x.shape, axis, {x.strides, y.strides}, [&](int64_t ox, int64_t oy) {
      const T* in = x.as<T>() + ox;
      T* out = y.as<T>() + oy;
      A max = -std::numeric_limits<A>::infinity(), sum = 0;
      for (int64_t i = 0; i < n; ++i) {
        line[static_cast<size_t>(i)] = load(in[i * sx]);
        max = std::max(max, line[static_cast<size_t>(i)]);
      }
      for (A& v : line) {
        v -= max;
        const A e = std::exp(v);
        sum += e;
        if constexpr (!kLog) v = e;
      }
      const A shift = kLog ? std::log(sum) : 1 / sum;
      for (int64_t i = 0; i < n; ++i) {
        const A v = line[static_cast<size_t>(i)];
        out[i * sy] = store<T>(kLog ? v - shift : v * shift);
      }
    });
    return Status::ok();
  });
}

template <bool kLog>
Status plain_softmax_grad(const KernelArgs& a) {
  const View &y = a.in[0], &dy = a.in[1], &dx = a.out[0];
  const int axis = axis_of(a.attrs, y.shape.rank());
  return dispatch_floating(y.dtype, [&](auto t) {
    using T = decltype(t);
    using A = Arith<T>;
    const int64_t n = y.shape[axis], sy = y.strides[axis], sd = dy.strides[axis], sx = dx.strides[axis];
    for_each_line<3>(y.shape, axis, {y.strides, dy.strides, dx.strides},
                     [&](int64_t oy, int64_t od, int64_t ox) {
                       const T *p = y.as<T>() + oy, *d = dy.as<T>() + od;
                       T* out = dx.as<T>() + ox;
                       double exact = 0;  // long rows of like numbers lose digits in f32, always the same way
                       for (int64_t i = 0; i < n; ++i)
                         exact += kLog ? load(d[i * sd]) : load(d[i * sd]) * load(p[i * sy]);
                       const A sum = static_cast<A>(exact);
                       for (int64_t i = 0; i < n; ++i) {
                         const A di = load(d[i * sd]), yi = load(p[i * sy]);
                         out[i * sx] = store<T>(kLog ? di - std::exp(yi) * sum : yi * (di - sum));
                       }
                     });
    return Status::ok();
  });
}

void vjp_softmax(VjpArgs& a) {
  a.grads[0] = softmax_grad(a.out[0], a.cotangents[0], axis_of(a.attrs, a.in[0].rank()));
}

void vjp_log_softmax(VjpArgs& a) {
  a.grads[0] = log_softmax_grad(a.out[0], a.cotangents[0], axis_of(a.attrs, a.in[0].rank()));
}

// dx = y (dy - <dy, y>) is symmetric as a map of dy.
void vjp_softmax_grad(VjpArgs& a) {
  const Tensor y = a.in[0], dy = a.in[1], g = a.cotangents[0];
  const int axis = axis_of(a.attrs, y.rank());
  const auto along = [&](Tensor t) { return sum(t, {axis}, true); };
  if (a.needed[0]) a.grads[0] = g * (dy - along(dy * y)) - dy * along(g * y);
  if (a.needed[1]) a.grads[1] = softmax_grad(y, g, axis);
}

void vjp_log_softmax_grad(VjpArgs& a) {
  const Tensor y = a.in[0], dy = a.in[1], g = a.cotangents[0];
  const int axis = axis_of(a.attrs, y.rank());
  const Tensor gp = g * exp(y);
  if (a.needed[0]) a.grads[0] = neg(gp * sum(dy, {axis}, true));
  if (a.needed[1]) a.grads[1] = g - sum(gp, {axis}, true);
}

std::vector<Sample> softmax_samples() {
  return {{{sample_f64({3, 5}, -2, 2)}, AttrList().i(-1)}, {{sample_f64({2, 4, 3}, -2, 2)}, AttrList().i(1)},
          {{sample_f64({7}, -2, 2)}, AttrList().i(0)},     {{sample_f64({3, 1}, -2, 2)}, AttrList().i(1)},
          {{sample_f64({0, 3}, -2, 2)}, AttrList().i(1)},  {{sample_f64({3, 0}, -2, 2)}, AttrList().i(1)}};
}

std::vector<Sample> softmax_grad_samples() {
  return {{{sample_f64({3, 5}, 0.05, 0.6), sample_f64({3, 5}, -1, 1, 2)}, AttrList().i(-1)},
          {{sample_f64({2, 4, 3}, 0.05, 0.6), sample_f64({2, 4, 3}, -1, 1, 2)}, AttrList().i(1)},
          {{sample_f64({1}, 0.05, 0.6), sample_f64({1}, -1, 1, 2)}, AttrList().i(0)},
          {{sample_f64({0, 3}, 0, 1), sample_f64({0, 3}, -1, 1)}, AttrList().i(1)}};
}

constinit const OpDef kSoftmax = {.id = "softmax/1",
                                  .attrs = kAxisAttrs,
                                  .infer = infer_softmax,
                                  .vjp = vjp_softmax,
                                  .plain = plain_softmax<false>,
                                  .samples = softmax_samples};
constinit const OpDef kLogSoftmax = {.id = "log_softmax/1",
                                     .attrs = kAxisAttrs,
                                     .infer = infer_log_softmax,
                                     .vjp = vjp_log_softmax,
                                     .plain = plain_softmax<true>,
                                     .samples = softmax_samples};
constinit const OpDef kSoftmaxGrad = {.id = "softmax_grad/1",
                                      .min_in = 2,
                                      .max_in = 2,
                                      .attrs = kAxisAttrs,
                                      .infer = infer_softmax_grad,
                                      .vjp = vjp_softmax_grad,
                                      .plain = plain_softmax_grad<false>,
                                      .samples = softmax_grad_samples};
constinit const OpDef kLogSoftmaxGrad = {.id = "log_softmax_grad/1",
                                         .min_in = 2,
                                         .max_in = 2,
                                         .attrs = kAxisAttrs,
                                         .infer = infer_log_softmax_grad,
                                         .vjp = vjp_log_softmax_grad,
                                         .plain = plain_softmax_grad<true>,
                                         .samples = softmax_grad_samples};

Tensor apply_axis(const OpDef& op, std::initializer_list<Tensor> in, int axis) {
  for (const Tensor& t : in)
    if (!t.valid()) return {};
  return in.begin()->graph().apply(op, in, AttrList().i(axis));
}

}  // namespace

Tensor softmax(Tensor x, int axis) { return apply_axis(kSoftmax, {x}, axis); }
Tensor log_softmax(Tensor x, int axis) { return apply_axis(kLogSoftmax, {x}, axis); }
Tensor softmax_grad(Tensor y, Tensor dy, int axis) { return apply_axis(kSoftmaxGrad, {y, dy}, axis); }
Tensor log_softmax_grad(Tensor y, Tensor dy, int axis) { return apply_axis(kLogSoftmaxGrad, {y, dy}, axis); }

OpList softmax_ops() {
  static constexpr const OpDef* ops[] = {&kSoftmax,        &kLogSoftmax,   &kSoftmaxGrad,
                                         &kLogSoftmaxGrad, &kCrossEntropy, &kCrossEntropyGrad};
  return ops;
}

}  // namespace tenon
