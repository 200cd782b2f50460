// layer_norm/1 (Ba et al. 2016), rms_norm/1 (Zhang & Sennrich 2019) and their first derivatives as ops, so
// that one kernel can do each; higher derivatives differentiate the composed form. group_norm (Wu & He 2018)
// is composed.
//   r = (var + eps)^-1/2   h = (x - mean) r   y = gamma h + beta
//   dx = r (u - mean(u) - h mean(u h)), u = gamma dy        dgamma = sum dy h    dbeta = sum dy
// rms_norm is the same without the mean and without beta.
#include "core/ops/norm.h"

#include <cmath>
#include <string>

#include "core/ops/compose.h"
#include "core/ops/dense.h"
#include "core/ops/elementwise.h"
#include "core/ops/families.h"
#include "core/ops/norm_ops.h"
#include "core/ops/reduce.h"
#include "core/ops/sample_values.h"
#include "core/ops/shape.h"

namespace tenon {
namespace {

constexpr AttrSpec kLayerAttrs[] = {{"eps", AttrKind::f64, false, 0, 1e-5}};
constexpr AttrSpec kRmsAttrs[] = {{"eps", AttrKind::f64, false, 0, 1e-6}};

// x: [.., C] and n_params inputs of [C].
Status check_rows(std::string_view op, const InferArgs& a, size_t n_params) {
  TN_RETURN_IF_ERROR(want_floating(op, a.in[0]));
  TN_RETURN_IF_ERROR(want_same_dtype(op, a.in));
  const Shape& x = a.in[0].shape;
  if (x.rank() == 0) return invalid(std::string(op) + ": x must have at least one dimension");
  for (size_t i = 1; i <= n_params; ++i)
    if (a.in[i].shape != Shape{x.back()})
      return invalid(std::string(op) + ": x is " + to_string(a.in[0]) +
                     ", so gamma and beta must have shape [" + std::to_string(x.back()) + "], got " +
                     to_string(a.in[i].shape));
  return Status::ok();
}

// x, gamma, dy -> dx, dgamma (, dbeta)
Status infer_grad(std::string_view op, const InferArgs& a) {
  TN_RETURN_IF_ERROR(check_rows(op, a, 1));
  if (a.in[2] != a.in[0])
    return invalid(std::string(op) + ": the cotangent is " + to_string(a.in[2]) + ", x is " +
                   to_string(a.in[0]));
  a.out = {a.in[0], a.in[1]};
  return Status::ok();
}

Status infer_layer_norm(const InferArgs& a) {
  TN_RETURN_IF_ERROR(check_rows("layer_norm", a, 2));
  a.out = {a.in[0]};
  return Status::ok();
}
Status infer_layer_norm_grad(const InferArgs& a) {
  TN_RETURN_IF_ERROR(infer_grad("layer_norm_grad", a));
  a.out.push_back(a.in[1]);
  return Status::ok();
}
Status infer_rms_norm(const InferArgs& a) {
  TN_RETURN_IF_ERROR(check_rows("rms_norm", a, 1));
  a.out = {a.in[0]};
  return Status::ok();
}
Status infer_rms_norm_grad(const InferArgs& a) { return infer_grad("rms_norm_grad", a); }

// Mean (zero for RMS norm) and 1 / sqrt(mean square deviation from it + eps) of a row.
template <class A>
struct RowStats {
  A mean = 0, scale = 0;
  RowStats(const A* x, int64_t n, bool centred, A eps) {
    const A count = static_cast<A>(n);
    if (centred) {
      for (int64_t i = 0; i < n; ++i) mean += x[i];
      mean /= count;
    }
    A square = 0;
    for (int64_t i = 0; i < n; ++i) square += (x[i] - mean) * (x[i] - mean);
    scale = 1 / std::sqrt(square / count + eps);
  }
};

template <bool kCentred>
Status plain_norm(const KernelArgs& a) {
  return dispatch_floating(a.in[0].dtype, [&](auto t) {
    using T = decltype(t);
    using A = Arith<T>;
    const int64_t n = a.in[0].shape.back(), numel = a.in[0].numel();
    const A eps = static_cast<A>(a.attrs.f("eps"));
    const DenseView<T> x(a.in[0]), gamma(a.in[1]), beta(a.in[kCentred ? 2 : 1]);
    T* y = a.out[0].as<T>();
    for (int64_t o = 0; o < numel; o += n) {
      const RowStats<A> s(x.data() + o, n, kCentred, eps);
      for (int64_t i = 0; i < n; ++i) {
        const A v = (x[o + i] - s.mean) * s.scale * gamma[i];
        y[o + i] = store<T>(kCentred ? v + beta[i] : v);
      }
    }
    return Status::ok();
  });
}

template <bool kCentred>
Status plain_norm_grad(const KernelArgs& a) {
  return dispatch_floating(a.in[0].dtype, [&](auto t) {
    using T = decltype(t);
    using A = Arith<T>;
    const int64_t n = a.in[0].shape.back(), numel = a.in[0].numel();
    const A eps = static_cast<A>(a.attrs.f("eps")), count = static_cast<A>(n);
    const DenseView<T> x(a.in[0]), gamma(a.in[1]), dy(a.in[2]);
    const DenseResult<T> dx(a.out[0]), dgamma(a.out[1]);
    std::vector<A> dbeta(static_cast<size_t>(n)), h(static_cast<size_t>(n));
    for (int64_t o = 0; o < numel; o += n) {
      const RowStats<A> s(x.data() + o, n, kCentred, eps);
      A mean_u = 0, mean_uh = 0;
      for (int64_t i = 0; i < n; ++i) {
        const auto iu = static_cast<size_t>(i);
        const A d = dy[o + i], u = gamma[i] * d;
        h[iu] = (x[o + i] - s.mean) * s.scale;
        mean_u += u;
        mean_uh += u * h[iu];
        dgamma[i] += d * h[iu];
        dbeta[iu] += d;
      }
      mean_u = kCentred ? mean_u / count : A(0);
      mean_uh /= count;
      for (int64_t i = 0; i < n; ++i)
        dx[o + i] = s.scale * (gamma[i] * dy[o + i] - mean_u - h[static_cast<size_t>(i)] * mean_uh);
    }
    if constexpr (kCentred)
      for (int64_t i = 0; i < n; ++i) a.out[2].template as<T>()[i] = store<T>(dbeta[static_cast<size_t>(i)]);
    return Status::ok();
  });
}

// The grad ops' outputs from their inputs (x, gamma, dy), written with public ops.
std::vector<Tensor> compose_grad(std::span<const Tensor> in, double eps, bool centred) {
  const Tensor x = in[0], gamma = in[1], dy = in[2];
  const Shape params = gamma.shape();
  const auto row_mean = [](Tensor t) { return mean(t, {-1}, true); };
  const Tensor deviation = centred ? x - row_mean(x) : x;
  const Tensor r = rsqrt(row_mean(square(deviation)) + eps);
  const Tensor h = deviation * r, u = dy * gamma;
  const Tensor inner = centred ? u - row_mean(u) : u;
  std::vector<Tensor> out = {r * (inner - h * row_mean(u * h)), sum_to(dy * h, params)};
  if (centred) out.push_back(sum_to(dy, params));
  return out;
}

void vjp_layer_norm_grad(VjpArgs& a) {
  const double eps = a.attrs.f("eps");
  vjp_of_composition(a, [&](std::span<const Tensor> in) { return compose_grad(in, eps, true); });
}
void vjp_rms_norm_grad(VjpArgs& a) {
  const double eps = a.attrs.f("eps");
  vjp_of_composition(a, [&](std::span<const Tensor> in) { return compose_grad(in, eps, false); });
}

template <bool kCentred>
std::vector<Sample> norm_samples() {
  std::vector<Sample> samples;
  for (const Shape& s : {Shape{3, 5}, Shape{2, 3, 4}, Shape{6}, Shape{4, 1}, Shape{0, 3}}) {
    Sample sample{{sample_f64(s, -2, 2, 1), sample_f64({s.back()}, 0.5, 1.5, 2)}, AttrList().f(0.01)};
    if (kCentred) sample.in.push_back(sample_f64({s.back()}, -1, 1, 3));
    samples.push_back(std::move(sample));
  }
  return samples;
}

std::vector<Sample> norm_grad_samples() {
  std::vector<Sample> samples = norm_samples<false>();
  for (Sample& s : samples) s.in.push_back(sample_f64(s.in[0].shape(), -1, 1, 4));
  return samples;
}

constinit const OpDef kLayerNormGrad = {.id = "layer_norm_grad/1",
                                        .min_in = 3,
                                        .max_in = 3,
                                        .n_out = 3,
                                        .attrs = kLayerAttrs,
                                        .infer = infer_layer_norm_grad,
                                        .vjp = vjp_layer_norm_grad,
                                        .plain = plain_norm_grad<true>,
                                        .samples = norm_grad_samples};
constinit const OpDef kRmsNormGrad = {.id = "rms_norm_grad/1",
                                      .min_in = 3,
                                      .max_in = 3,
                                      .n_out = 2,
                                      .attrs = kRmsAttrs,
                                      .infer = infer_rms_norm_grad,
                                      .vjp = vjp_rms_norm_grad,
                                      .plain = plain_norm_grad<false>,
                                      .samples = norm_grad_samples};

void vjp_norm(VjpArgs& a, const OpDef& grad_op) {
  const Tensor g =
      a.graph.apply(grad_op, {a.in[0], a.in[1], a.cotangents[0]}, AttrList().f(a.attrs.f("eps")));
  for (size_t i = 0; i < a.in.size(); ++i)
    if (a.needed[i]) a.grads[i] = g.output(static_cast<int>(i));
}
void vjp_layer_norm(VjpArgs& a) { vjp_norm(a, kLayerNormGrad); }
void vjp_rms_norm(VjpArgs& a) { vjp_norm(a, kRmsNormGrad); }

constinit const OpDef kLayerNorm = {.id = "layer_norm/1",
                                    .min_in = 3,
                                    .max_in = 3,
                                    .attrs = kLayerAttrs,
                                    .infer = infer_layer_norm,
                                    .vjp = vjp_layer_norm,
                                    .plain = plain_norm<true>,
                                    .samples = norm_samples<true>};
constinit const OpDef kRmsNorm = {.id = "rms_norm/1",
                                  .min_in = 2,
                                  .max_in = 2,
                                  .attrs = kRmsAttrs,
                                  .infer = infer_rms_norm,
                                  .vjp = vjp_rms_norm,
                                  .plain = plain_norm<false>,
                                  .samples = norm_samples<false>};

}  // namespace

Tensor layer_norm(Tensor x, Tensor gamma, Tensor beta, double eps) {
  return x.valid() ? x.graph().apply(kLayerNorm, {x, gamma, beta}, AttrList().f(eps)) : Tensor();
}

Tensor rms_norm(Tensor x, Tensor gamma, double eps) {
  return x.valid() ? x.graph().apply(kRmsNorm, {x, gamma}, AttrList().f(eps)) : Tensor();
}

Tensor group_norm(Tensor x, int64_t groups, Tensor gamma, Tensor beta, double eps) {
  if (!x.valid()) return {};
  const Shape shape = x.shape();
  const auto fail = [&](const std::string& what) {
    x.graph().fail(invalid("group_norm: " + what));
    return Tensor();
  };
  if (gamma.valid() != beta.valid()) return fail("gamma and beta must be given both or neither");
  if (shape.rank() < 2 || groups < 1 || shape[1] % groups != 0)
    return fail("x is " + to_string(shape) + "; it must be [B, C, ..] with C a multiple of the " +
                std::to_string(groups) + " groups");
  if (gamma.valid() && (gamma.shape() != Shape{shape[1]} || beta.shape() != Shape{shape[1]}))
    return fail("gamma and beta must have shape [" + std::to_string(shape[1]) + "], got " +
                to_string(gamma.shape()) + " and " + to_string(beta.shape()));
  int64_t run = shape[1] / groups;
  for (int i = 2; i < shape.rank(); ++i) run *= shape[i];
  const Tensor rows = reshape(x, {shape[0], groups, run});
  const Tensor deviation = rows - mean(rows, {-1}, true);
  const Tensor r = rsqrt(mean(square(deviation), {-1}, true) + eps);
  const Tensor h = reshape(deviation * r, shape);
  if (!gamma.valid()) return h;
  Shape per_channel(Dims::filled(shape.rank() - 1, 1));
  per_channel[0] = shape[1];
  return h * reshape(gamma, per_channel) + reshape(beta, per_channel);
}

OpList norm_ops() {
  static constexpr const OpDef* ops[] = {&kLayerNorm,   &kLayerNormGrad, &kRmsNorm,
                                         &kRmsNormGrad, &kBatchNorm,     &kBatchNormGrad};
  return ops;
}

}  // namespace tenon
