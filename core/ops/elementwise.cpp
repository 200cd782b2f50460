// Selection, conversion and the ops that are about derivatives: where/1, cast/1, stop_gradient/1 and custom
// gradients.
#include <array>

#include "core/ops/elementwise_table.h"
#include "core/ops/families.h"
#include "core/tensor/saturate.h"

namespace tenon {
namespace {

// --- where ---

Status infer_where(const InferArgs& a) {
  if (a.in[0].dtype != DType::boolean)
    return invalid("where: the condition is " + to_string(a.in[0]) +
                   "; it wants bool (compare or cast first)");
  TN_RETURN_IF_ERROR(want_same_dtype("where", a.in.subspan(1)));
  TN_ASSIGN(const Shape shape, broadcast_operands("where", a.in));
  a.out = {{a.in[1].dtype, shape}};
  return Status::ok();
}
Status plain_where(const KernelArgs& a) {
  const View &c = a.in[0], &x = a.in[1], &y = a.in[2], &out = a.out[0];
  const auto strides = [&](const View& v) { return broadcast_strides(v, out.shape); };
  dispatch(x.dtype, [&](auto t) {
    using T = decltype(t);
    for_each_offset<4>(out.shape, {strides(c), strides(x), strides(y), out.strides},
                       [&](int64_t i, int64_t j, int64_t k, int64_t o) {
                         out.as<T>()[o] = c.as<bool>()[i] ? x.as<T>()[j] : y.as<T>()[k];
                       });
  });
  return Status::ok();
}
void vjp_where(VjpArgs& a) {
  const Tensor cond = a.in[0], g = a.cotangents[0], zero = constant_like(g, 0);
  if (a.needed[1]) a.grads[1] = sum_to(where(cond, g, zero), a.in[1].shape());
  if (a.needed[2]) a.grads[2] = sum_to(where(cond, zero, g), a.in[2].shape());
}
HostArray alternating(const Shape& shape) {
  HostArray a(DType::boolean, shape);
  for (size_t i = 0; i < a.as<bool>().size(); ++i) a.as<bool>()[i] = i % 3 == 0;
  return a;
}
std::vector<Sample> where_samples() {
  const auto sample = [](const Shape& c, const Shape& x, const Shape& y) {
    return Sample{{alternating(c), sample_f64(x, -2, 1.5), sample_f64(y, -2, 1.5, 2)}};
  };
  return {sample({3, 5}, {3, 5}, {3, 5}), sample({3, 1}, {5}, {}), sample({4}, {2, 1}, {4}),
          sample({1}, {1}, {1}),          sample({}, {3}, {3}),    sample({0}, {}, {1})};
}

// --- cast ---

constexpr AttrSpec kCastAttrs[] = {{"dtype", AttrKind::i64, true}};

Status infer_cast(const InferArgs& a) {
  TN_ASSIGN(const DType dtype, dtype_attr("cast", a.attrs.i("dtype")));
  a.out = {{dtype, a.in[0].shape}};
  return Status::ok();
}
template <class R, class A>
R convert(A v) {
  if constexpr (std::is_same_v<R, bool>)
    return v != 0;
  else if constexpr (std::is_floating_point_v<A> && std::is_integral_v<R>)
    return saturate<R>(v);
  else
    return store<R>(v);
}
Status plain_cast(const KernelArgs& a) {
  const View &x = a.in[0], &out = a.out[0];
  dispatch(x.dtype, [&](auto from) {
    using X = decltype(from);
    dispatch(out.dtype, [&](auto to) {
      using R = decltype(to);
      for_each_offset<2>(out.shape, {x.strides, out.strides}, [&](int64_t i, int64_t o) {
        out.template as<R>()[o] = convert<R>(load(x.template as<X>()[i]));
      });
    });
  });
  return Status::ok();
}
void vjp_cast(VjpArgs& a) {
  if (is_floating(a.out[0].dtype())) a.grads[0] = cast(a.cotangents[0], a.in[0].dtype());
}
std::vector<Sample> cast_samples() {
  std::vector<Sample> samples;
  for (DType t : {DType::f64, DType::f32, DType::bf16, DType::i32, DType::i64, DType::boolean}) {
    Sample s{{sample_f64({3, 5}, -4, 3)}, AttrList().i(static_cast<int64_t>(t))};
    // A difference quotient sees the steps of a coarse type, not the slope.
    if (t != DType::f64) s.constant = {0};
    samples.push_back(std::move(s));
  }
  samples.push_back({{sample_i64({0, 7, 255}, {3, 1})}, AttrList().i(static_cast<int64_t>(DType::u8))});
  samples.push_back({{sample_i64({-3}, {})}, AttrList().i(static_cast<int64_t>(DType::f64))});
  samples.push_back({{sample_f64({0, 2}, 0, 1)}, AttrList().i(static_cast<int64_t>(DType::f64))});
  return samples;
}

// --- is_finite, logical_not ---

Status infer_is_finite(const InferArgs& a) {
  TN_RETURN_IF_ERROR(want_floating("is_finite", a.in[0]));
  a.out = {{DType::boolean, a.in[0].shape}};
  return Status::ok();
}
Status plain_is_finite(const KernelArgs& a) {
  return dispatch_floating(a.in[0].dtype, [&](auto t) {
    using T = decltype(t);
    map_elements<T, bool>(a.in[0], a.out[0], [](Arith<T> x) { return std::isfinite(x); });
    return Status::ok();
  });
}
std::vector<Sample> is_finite_samples() {
  constexpr double inf = std::numeric_limits<double>::infinity();
  return {{{HostArray::of(std::vector<double>{0, inf, -inf, std::nan(""), 1e30, -2})}},
          {{sample_f64({2, 1, 3}, -1, 1)}},
          {{sample_f64({}, -1, 1)}},
          {{sample_f64({0}, -1, 1)}}};
}

Status infer_logical_not(const InferArgs& a) {
  if (a.in[0].dtype != DType::boolean)
    return invalid("logical_not: got " + to_string(a.in[0]) + "; it wants bool (compare or cast first)");
  a.out = {a.in[0]};
  return Status::ok();
}
Status plain_logical_not(const KernelArgs& a) {
  map_elements<bool, bool>(a.in[0], a.out[0], [](bool x) { return !x; });
  return Status::ok();
}
std::vector<Sample> logical_not_samples() {
  return {{{alternating({3, 5})}}, {{alternating({1})}}, {{alternating({})}}, {{alternating({0, 2})}}};
}

// --- stop_gradient, custom_gradient ---

Status infer_first(const InferArgs& a) {
  a.out = {a.in[0]};
  return Status::ok();
}
std::optional<ViewSpec> view_first(const Layout& in, const Attrs&, const TensorType&) {
  return ViewSpec{0, in.strides};
}
Status plain_copy_first(const KernelArgs& a) {
  dispatch(a.in[0].dtype, [&](auto t) {
    using T = decltype(t);
    for_each_offset<2>(a.out[0].shape, {a.in[0].strides, a.out[0].strides}, [&](int64_t i, int64_t o) {
      a.out[0].template as<T>()[o] = a.in[0].template as<T>()[i];
    });
  });
  return Status::ok();
}
std::vector<Sample> stop_gradient_samples() {
  std::vector<Sample> samples;
  // Constant: by design the derivative is not that of the value.
  for (const Shape& shape : {Shape{3, 5}, Shape{1}, Shape{}, Shape{2, 0}})
    samples.push_back({.in = {sample_f64(shape, -2, 1.5)}, .constant = {0}});
  return samples;
}

// Inputs: y, then the xs that its derivative is given for.
constexpr AttrSpec kCustomGradientAttrs[] = {{"index", AttrKind::i64, true}};  // of Graph::custom_vjp

void vjp_custom_gradient(VjpArgs& a) {
  // A copy: the rule may register others, which moves them.
  const Graph::CustomVjp rule = a.graph.custom_vjp(a.attrs.i("index"));
  const std::vector<Tensor> grads = rule(a.cotangents[0]);
  if (grads.size() + 1 != a.in.size())
    return a.graph.fail(invalid("custom_gradient: the rule returned " + std::to_string(grads.size()) +
                                " cotangents for " + std::to_string(a.in.size() - 1) + " inputs"));
  for (size_t i = 0; i < grads.size(); ++i) {
    const Tensor x = a.in[i + 1], d = grads[i];
    if (!d.valid() || !a.needed[i + 1]) continue;
    if (d.dtype() != x.dtype() || d.shape() != x.shape())
      return a.graph.fail(invalid("custom_gradient: the rule returned " +
                                  to_string(TensorType{d.dtype(), d.shape()}) + " as cotangent of input " +
                                  std::to_string(i) + ", which is " +
                                  to_string(TensorType{x.dtype(), x.shape()})));
    a.grads[i + 1] = d;
  }
}

constinit const OpDef kWhere{.id = "where/1",
                             .min_in = 3,
                             .max_in = 3,
                             .infer = infer_where,
                             .vjp = vjp_where,
                             .plain = plain_where,
                             .samples = where_samples,
                             .elementwise = true};
constinit const OpDef kCast{.id = "cast/1",
                            .attrs = kCastAttrs,
                            .infer = infer_cast,
                            .vjp = vjp_cast,
                            .plain = plain_cast,
                            .samples = cast_samples,
                            .elementwise = true};
constinit const OpDef kIsFinite{.id = "is_finite/1",
                                .infer = infer_is_finite,
                                .plain = plain_is_finite,
                                .samples = is_finite_samples,
                                .elementwise = true};
constinit const OpDef kLogicalNot{.id = "logical_not/1",
                                  .infer = infer_logical_not,
                                  .plain = plain_logical_not,
                                  .samples = logical_not_samples,
                                  .elementwise = true};
constinit const OpDef kStopGradient{.id = "stop_gradient/1",
                                    .infer = infer_first,
                                    .plain = plain_copy_first,
                                    .samples = stop_gradient_samples,
                                    .elementwise = true,
                                    .view = view_first};
// Not in the list: it means nothing without the rule that custom_gradient() registers.
constinit const OpDef kCustomGradient{.id = "custom_gradient/1",
                                      .max_in = -1,
                                      .attrs = kCustomGradientAttrs,
                                      .infer = infer_first,
                                      .vjp = vjp_custom_gradient,
                                      .plain = plain_copy_first,
                                      .view = view_first};

}  // namespace

Tensor where(Tensor cond, Tensor a, Tensor b) { return apply_plainly(kWhere, {cond, a, b}); }
Tensor is_finite(Tensor x) { return apply_plainly(kIsFinite, {x}); }
Tensor logical_not(Tensor a) { return apply_plainly(kLogicalNot, {a}); }
Tensor stop_gradient(Tensor x) { return apply_plainly(kStopGradient, {x}); }

Tensor cast(Tensor x, DType dtype) {
  if (!x.valid() || x.dtype() == dtype) return x;
  return x.graph().apply(kCast, {x}, AttrList().i(static_cast<int64_t>(dtype)));
}

Tensor custom_gradient(Tensor y, std::span<const Tensor> xs, Graph::CustomVjp vjp) {
  if (!y.valid()) return {};
  std::vector<Tensor> in{y};
  in.insert(in.end(), xs.begin(), xs.end());
  for (const Tensor& x : xs)
    if (!x.valid()) return {};
  return y.graph().apply(kCustomGradient, in, AttrList().i(y.graph().add_custom_vjp(std::move(vjp))));
}

Tensor scalar_like(Tensor like, double v) {
  return like.valid() ? like.graph().scalar(v, like.dtype()) : Tensor();
}
Tensor constant_like(Tensor like, double v) {
  return like.valid() ? like.graph().constant(v, like.dtype()) : Tensor();
}

OpList elementwise_ops() {
  static const auto ops = [] {
    std::array<const OpDef*, std::size(kUnaryOps) + std::size(kBinaryOps) + 5> all{};
    auto to = std::copy(std::begin(kUnaryOps), std::end(kUnaryOps), all.begin());
    to = std::copy(std::begin(kBinaryOps), std::end(kBinaryOps), to);
    for (const OpDef* op : {&kWhere, &kCast, &kIsFinite, &kLogicalNot, &kStopGradient}) *to++ = op;
    return all;
  }();
  return ops;
}

}  // namespace tenon
