// batch_norm/1 (Ioffe & Szegedy 2015) with the statistics of the batch; x: [B, C, ..], N elements per
// channel.
//   r = (var + eps)^-1/2   h = (x - mean) r   y = gamma h + beta
// batch_norm_grad/1 is the derivative through y, a function of (x, gamma, mean, var, dy):
//   dx = gamma r (dy - mean(dy) - h mean(dy h))    dgamma = sum dy h    dbeta = sum dy
// Cotangents of the outputs mean and var come on top: dx += dmean / N + 2 (x - mean) dvar / N.
// All of one dtype; or x and dx bf16 and the rest f32, as if x was cast to f32 and dx to bf16.
#include <cmath>
#include <string>

#include "core/ops/compose.h"
#include "core/ops/dense.h"
#include "core/ops/elementwise.h"
#include "core/ops/norm.h"
#include "core/ops/norm_ops.h"
#include "core/ops/reduce.h"
#include "core/ops/sample_values.h"
#include "core/ops/shape.h"

namespace tenon {
namespace {

constexpr AttrSpec kAttrs[] = {{"eps", AttrKind::f64, false, 0, 1e-5}};

// [B, C, R]: trailing axes as one.
struct Extents {
  int64_t batch, channels, run = 1;
  explicit Extents(const Shape& s) : batch(s[0]), channels(s[1]) {
    for (int i = 2; i < s.rank(); ++i) run *= s[i];
  }
  int64_t per_channel() const { return batch * run; }
  // Calls f(offset of the first of `run` elements) for each piece of channel c.
  template <class F>
  void for_each_run(int64_t c, F&& f) const {
    for (int64_t b = 0; b < batch; ++b) f((b * channels + c) * run);
  }
};

// x and inputs [first, last) of shape [C].
Status check(std::string_view op, const InferArgs& a, size_t first, size_t last) {
  TN_RETURN_IF_ERROR(want_floating(op, a.in[0]));
  const bool narrow = a.in[0].dtype == DType::bf16 && a.in[1].dtype == DType::f32;
  TN_RETURN_IF_ERROR(want_same_dtype(op, narrow ? a.in.subspan(1) : a.in));
  const Shape& x = a.in[0].shape;
  if (x.rank() < 2) return invalid(std::string(op) + ": x is " + to_string(x) + ", it must be [B, C, ..]");
  if (x[1] > 0 && x.numel() == 0)
    return invalid(std::string(op) + ": x is " + to_string(x) + "; an empty batch has no statistics");
  for (size_t i = first; i < last; ++i)
    if (a.in[i].shape != Shape{x[1]})
      return invalid(std::string(op) + ": x is " + to_string(x) + ", so its parameters must have shape [" +
                     std::to_string(x[1]) + "], got " + to_string(a.in[i].shape));
  return Status::ok();
}

Status infer_batch_norm(const InferArgs& a) {
  TN_RETURN_IF_ERROR(check("batch_norm", a, 1, 3));
  a.out = {{a.in[1].dtype, a.in[0].shape}, a.in[1], a.in[1]};
  return Status::ok();
}

Status infer_batch_norm_grad(const InferArgs& a) {
  TN_RETURN_IF_ERROR(check("batch_norm_grad", a, 1, 4));
  if (a.in[4].shape != a.in[0].shape)
    return invalid("batch_norm_grad: the cotangent is " + to_string(a.in[4]) + ", x is " +
                   to_string(a.in[0]));
  a.out = {a.in[0], a.in[1], a.in[1]};
  return Status::ok();
}

// Calls f with the C++ types of x and of the rest.
template <class F>
Status dispatch(const KernelArgs& a, F&& f) {
  if (a.in[0].dtype != a.in[1].dtype) return f(bf16{}, float{});
  return dispatch_floating(a.in[0].dtype, [&](auto t) { return f(t, t); });
}

Status plain_batch_norm(const KernelArgs& a) {
  return dispatch(a, [&](auto tx, auto t) {
    using T = decltype(t);
    using A = Arith<T>;
    const Extents e(a.in[0].shape);
    const A eps = static_cast<A>(a.attrs.f("eps")), count = static_cast<A>(e.per_channel());
    const DenseView<decltype(tx)> x(a.in[0]);
    const DenseView<T> gamma(a.in[1]), beta(a.in[2]);
    T* y = a.out[0].as<T>();
    for (int64_t c = 0; c < e.channels; ++c) {
      A mean = 0, var = 0;
      e.for_each_run(c, [&](int64_t o) {
        A part = 0;  // sums of runs keep the rounding error of a long channel small
        for (int64_t i = 0; i < e.run; ++i) part += x[o + i];
        mean += part;
      });
      mean /= count;
      e.for_each_run(c, [&](int64_t o) {
        A part = 0;
        for (int64_t i = 0; i < e.run; ++i) part += (x[o + i] - mean) * (x[o + i] - mean);
        var += part;
      });
      var /= count;
      const A scale = gamma[c] / std::sqrt(var + eps);
      e.for_each_run(c, [&](int64_t o) {
        for (int64_t i = 0; i < e.run; ++i) y[o + i] = store<T>((x[o + i] - mean) * scale + beta[c]);
      });
      a.out[1].template as<T>()[c] = store<T>(mean);
      a.out[2].template as<T>()[c] = store<T>(var);
    }
    return Status::ok();
  });
}

Status plain_batch_norm_grad(const KernelArgs& a) {
  return dispatch(a, [&](auto tx, auto t) {
    using X = decltype(tx);
    using T = decltype(t);
    using A = Arith<T>;
    const Extents e(a.in[0].shape);
    const A eps = static_cast<A>(a.attrs.f("eps")), count = static_cast<A>(e.per_channel());
    const DenseView<X> x(a.in[0]);
    const DenseView<T> gamma(a.in[1]), mean(a.in[2]), var(a.in[3]), dy(a.in[4]);
    X* dx = a.out[0].template as<X>();
    for (int64_t c = 0; c < e.channels; ++c) {
      const A r = 1 / std::sqrt(var[c] + eps);
      A sum_dy = 0, sum_dy_h = 0;
      e.for_each_run(c, [&](int64_t o) {
        A part = 0, part_h = 0;
        for (int64_t i = 0; i < e.run; ++i) {
          part += dy[o + i];
          part_h += dy[o + i] * ((x[o + i] - mean[c]) * r);
        }
        sum_dy += part;
        sum_dy_h += part_h;
      });
      const A mean_dy = sum_dy / count, mean_dy_h = sum_dy_h / count, scale = gamma[c] * r;
      e.for_each_run(c, [&](int64_t o) {
        for (int64_t i = 0; i < e.run; ++i)
          dx[o + i] = store<X>(scale * (dy[o + i] - mean_dy - (x[o + i] - mean[c]) * r * mean_dy_h));
      });
      a.out[1].template as<T>()[c] = store<T>(sum_dy_h);
      a.out[2].template as<T>()[c] = store<T>(sum_dy);
    }
    return Status::ok();
  });
}

// All axes but the second, and [C] as it broadcasts against x.
struct Channels {
  Axes others;
  Shape shape;
  explicit Channels(const Shape& x) : shape(Dims::filled(x.rank() - 1, 1)) {
    shape[0] = x[1];
    for (int i = 0; i < x.rank(); ++i)
      if (i != 1) others.push_back(i);
  }
};

void vjp_batch_norm_grad(VjpArgs& a) {
  const double eps = a.attrs.f("eps");
  vjp_of_composition(a, [&](std::span<const Tensor> in) -> std::vector<Tensor> {
    const Tensor x = cast(in[0], in[1].dtype()), dy = in[4];
    const Channels c(x.shape());
    const auto wide = [&](Tensor t) { return reshape(t, c.shape); };
    const auto channel_mean = [&](Tensor t) { return wide(mean(t, c.others)); };
    const Tensor r = rsqrt(wide(in[3]) + eps), h = (x - wide(in[2])) * r;
    const Tensor dx = wide(in[1]) * r * (dy - channel_mean(dy) - h * channel_mean(dy * h));
    return {cast(dx, in[0].dtype()), sum(dy * h, c.others), sum(dy, c.others)};
  });
}

void vjp_batch_norm(VjpArgs& a) {
  const Tensor x = a.in[0], gamma = a.in[1], mean = a.out[1], var = a.out[2];
  if (a.cotangents[0].valid()) {
    const Tensor g =
        a.graph.apply(kBatchNormGrad, {x, gamma, mean, var, a.cotangents[0]}, AttrList().f(a.attrs.f("eps")));
    for (int i = 0; i < 3; ++i)
      if (a.needed[static_cast<size_t>(i)]) a.grads[static_cast<size_t>(i)] = g.output(i);
  }
  if (!a.needed[0]) return;
  const Shape shape = x.shape();
  const Channels c(shape);
  const double count = static_cast<double>(Extents(shape).per_channel());
  const auto add_dx = [&](Tensor t) {
    t = cast(t, x.dtype());
    a.grads[0] = a.grads[0].valid() ? a.grads[0] + t : t;
  };
  if (a.cotangents[1].valid()) add_dx(broadcast_to(reshape(a.cotangents[1] / count, c.shape), shape));
  if (a.cotangents[2].valid())
    add_dx((cast(x, mean.dtype()) - reshape(mean, c.shape)) * reshape(a.cotangents[2] * (2 / count), c.shape));
}

std::vector<Sample> batch_norm_samples() {
  std::vector<Sample> samples;
  for (const Shape& s : {Shape{4, 3}, Shape{3, 2, 5}, Shape{2, 3, 2, 3}, Shape{5, 1}})
    samples.push_back(
        {{sample_f64(s, -2, 2, 1), sample_f64({s[1]}, 0.5, 1.5, 2), sample_f64({s[1]}, -1, 1, 3)},
         AttrList().f(0.01)});
  return samples;
}

std::vector<Sample> batch_norm_grad_samples() {
  std::vector<Sample> samples;
  for (const Shape& s : {Shape{4, 3}, Shape{3, 2, 5}, Shape{2, 3, 2, 3}, Shape{1, 1}})
    samples.push_back(
        {{sample_f64(s, -2, 2, 1), sample_f64({s[1]}, 0.5, 1.5, 2), sample_f64({s[1]}, -0.5, 0.5, 3),
          sample_f64({s[1]}, 0.5, 2, 4), sample_f64(s, -1, 1, 5)},
         AttrList().f(0.01)});
  return samples;
}

}  // namespace

constinit const OpDef kBatchNorm = {.id = "batch_norm/1",
                                    .min_in = 3,
                                    .max_in = 3,
                                    .n_out = 3,
                                    .attrs = kAttrs,
                                    .infer = infer_batch_norm,
                                    .vjp = vjp_batch_norm,
                                    .plain = plain_batch_norm,
                                    .samples = batch_norm_samples};
constinit const OpDef kBatchNormGrad = {.id = "batch_norm_grad/1",
                                        .min_in = 5,
                                        .max_in = 5,
                                        .n_out = 3,
                                        .attrs = kAttrs,
                                        .infer = infer_batch_norm_grad,
                                        .vjp = vjp_batch_norm_grad,
                                        .plain = plain_batch_norm_grad,
                                        .samples = batch_norm_grad_samples};

BatchNorm batch_norm(Tensor x, Tensor gamma, Tensor beta, double eps) {
  if (!x.valid()) return {};
  const Tensor y = x.graph().apply(kBatchNorm, {x, gamma, beta}, AttrList().f(eps));
  return {y, y.output(1), y.output(2)};
}

Tensor batch_norm_eval(Tensor x, Tensor gamma, Tensor beta, Tensor mean, Tensor var, double eps) {
  if (!x.valid() || !gamma.valid() || !beta.valid() || !mean.valid() || !var.valid()) return {};
  const Shape shape = x.shape();
  for (const Tensor& p : {gamma, beta, mean, var})
    if (shape.rank() < 2 || p.shape() != Shape{shape[1]}) {
      x.graph().fail(invalid("batch_norm_eval: x is " + to_string(shape) +
                             "; it must be [B, C, ..] and its parameters [C], got " + to_string(p.shape())));
      return {};
    }
  const Shape wide = Channels(shape).shape;
  const Tensor scale = gamma * rsqrt(var + eps);
  return cast(x, scale.dtype()) * reshape(scale, wide) + reshape(beta - mean * scale, wide);
}

}  // namespace tenon
