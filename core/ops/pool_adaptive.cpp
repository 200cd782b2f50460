// Adaptive average pooling: output i of n covers the elements floor(i N / n) .. ceil((i + 1) N / n). It is
// linear, and its derivative's derivative is itself.
#include <algorithm>
#include <string>

#include "core/ops/dense.h"
#include "core/ops/pool.h"
#include "core/ops/pool_ops.h"
#include "core/ops/sample_values.h"

namespace tenon {
namespace {

constexpr AttrSpec kShapeAttrs[] = {{"shape", AttrKind::ints, true}};

// Elements that output i of `out` covers, as [first, last).
int64_t first_of(int64_t i, int64_t n, int64_t out) { return i * n / out; }
int64_t last_of(int64_t i, int64_t n, int64_t out) { return ((i + 1) * n + out - 1) / out; }

// Calls f(element of y's plane, of x's plane, 1 / size of the window) for each pair that belongs together.
template <class F>
void for_each_pair(const Shape& x, const Shape& y, F&& f) {
  for (int64_t i = 0; i < y[2]; ++i)
    for (int64_t j = 0; j < y[3]; ++j) {
      const int64_t r0 = first_of(i, x[2], y[2]), r1 = last_of(i, x[2], y[2]);
      const int64_t c0 = first_of(j, x[3], y[3]), c1 = last_of(j, x[3], y[3]);
      const double share = 1 / static_cast<double>((r1 - r0) * (c1 - c0));
      for (int64_t r = r0; r < r1; ++r)
        for (int64_t c = c0; c < c1; ++c) f(i * y[3] + j, r * x[3] + c, share);
    }
}

Status infer_adaptive(const InferArgs& a) {
  TN_RETURN_IF_ERROR(want_floating("adaptive_avg_pool2d", a.in[0]));
  const auto out = a.attrs.ints("shape");
  const Shape& x = a.in[0].shape;
  if (x.rank() != 4 || out.size() != 2 || std::min(out[0], out[1]) < 1 || std::min(x[2], x[3]) < 1)
    return invalid("adaptive_avg_pool2d: wants x [B, C, H, W] and two output extents of at least 1, got " +
                   to_string(a.in[0]) + " and " +
                   (out.size() == 2 ? to_string(Dims(out)) : std::to_string(out.size()) + " numbers"));
  a.out = {{a.in[0].dtype, {x[0], x[1], out[0], out[1]}}};
  return Status::ok();
}

Status infer_adaptive_grad(const InferArgs& a) {
  TN_RETURN_IF_ERROR(want_floating("adaptive_avg_pool2d_grad", a.in[0]));
  TN_ASSIGN(const Shape x, pooled_shape("adaptive_avg_pool2d_grad", a.attrs));
  const Shape& y = a.in[0].shape;
  if (y.rank() != 4 || y[0] != x[0] || y[1] != x[1] || std::min({x[2], x[3], y[2], y[3]}) < 1)
    return invalid("adaptive_avg_pool2d_grad: dy is " + to_string(y) + ", which no pooling of " +
                   to_string(x) + " gives");
  a.out = {{a.in[0].dtype, x}};
  return Status::ok();
}

Status plain_adaptive(const KernelArgs& a) {
  const Shape &xs = a.in[0].shape, &ys = a.out[0].shape;
  return dispatch_floating(a.in[0].dtype, [&](auto t) {
    using T = decltype(t);
    const DenseView<T> x(a.in[0]);
    const DenseResult<T> y(a.out[0]);
    for (int64_t p = 0; p < xs[0] * xs[1]; ++p)
      for_each_pair(xs, ys, [&](int64_t yi, int64_t xi, double share) {
        y[p * ys[2] * ys[3] + yi] += x[p * xs[2] * xs[3] + xi] * static_cast<Arith<T>>(share);
      });
    return Status::ok();
  });
}

Status plain_adaptive_grad(const KernelArgs& a) {
  const Shape &xs = a.out[0].shape, &ys = a.in[0].shape;
  return dispatch_floating(a.in[0].dtype, [&](auto t) {
    using T = decltype(t);
    const DenseView<T> dy(a.in[0]);
    const DenseResult<T> dx(a.out[0]);
    for (int64_t p = 0; p < xs[0] * xs[1]; ++p)
      for_each_pair(xs, ys, [&](int64_t yi, int64_t xi, double share) {
        dx[p * xs[2] * xs[3] + xi] += dy[p * ys[2] * ys[3] + yi] * static_cast<Arith<T>>(share);
      });
    return Status::ok();
  });
}

void vjp_adaptive(VjpArgs& a) {
  const Shape x = a.in[0].shape();
  a.grads[0] = adaptive_avg_pool2d_grad(a.cotangents[0], x);
}

void vjp_adaptive_grad(VjpArgs& a) {
  const Shape y = a.in[0].shape();
  a.grads[0] = adaptive_avg_pool2d(a.cotangents[0], {y[2], y[3]});
}

std::vector<Sample> adaptive_samples() {
  const auto sample = [](const Shape& x, const Dims& out) {
    return Sample{{sample_f64(x, -2, 2, 1)}, AttrList().ints(out)};
  };
  return {sample({2, 3, 6, 4}, {3, 2}), sample({1, 2, 5, 7}, {3, 4}), sample({1, 2, 2, 3}, {3, 5}),
          sample({1, 1, 1, 1}, {1, 1}), sample({0, 2, 3, 3}, {2, 2})};
}

std::vector<Sample> adaptive_grad_samples() {
  const auto sample = [](const Shape& y, const Shape& x) {
    return Sample{{sample_f64(y, -2, 2, 1)}, AttrList().ints(x)};
  };
  return {sample({2, 3, 3, 2}, {2, 3, 6, 4}), sample({1, 2, 3, 4}, {1, 2, 5, 7}),
          sample({1, 2, 3, 5}, {1, 2, 2, 3}), sample({0, 2, 2, 2}, {0, 2, 3, 3})};
}

}  // namespace

constinit const OpDef kAdaptiveAvgPool2d = {.id = "adaptive_avg_pool2d/1",
                                            .attrs = kShapeAttrs,
                                            .infer = infer_adaptive,
                                            .vjp = vjp_adaptive,
                                            .plain = plain_adaptive,
                                            .samples = adaptive_samples};
constinit const OpDef kAdaptiveAvgPool2dGrad = {.id = "adaptive_avg_pool2d_grad/1",
                                                .attrs = kShapeAttrs,
                                                .infer = infer_adaptive_grad,
                                                .vjp = vjp_adaptive_grad,
                                                .plain = plain_adaptive_grad,
                                                .samples = adaptive_grad_samples};

Tensor adaptive_avg_pool2d(Tensor x, const Dims& out) {
  return x.valid() ? x.graph().apply(kAdaptiveAvgPool2d, {x}, AttrList().ints(out)) : Tensor();
}

Tensor adaptive_avg_pool2d_grad(Tensor dy, const Shape& x_shape) {
  return dy.valid() ? dy.graph().apply(kAdaptiveAvgPool2dGrad, {dy}, AttrList().ints(x_shape)) : Tensor();
}

}  // namespace tenon
