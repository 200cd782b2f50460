// Reductions over any axes: sum/1, mean/1, max/1, min/1, prod/1, logsumexp/1, var/1.
// x: any shape -> the shape without `axes`, or with size 1 there. f32 and bf16 are accumulated in f32,
// pairwise.
#include "core/ops/reduce.h"

#include <array>
#include <cmath>

#include "core/ops/compose.h"
#include "core/ops/elementwise.h"
#include "core/ops/families.h"
#include "core/ops/reduce_ops.h"
#include "core/ops/sample_values.h"
#include "core/ops/shape.h"

namespace tenon {
namespace {

// How many elements are reduced into one.
int64_t reduced_count(const Shape& shape, const Axes& axes) {
  int64_t n = 1;
  for (int64_t axis : axes) n *= shape[static_cast<int>(axis)];
  return n;
}

enum class Numbers : uint8_t { any, floating };

// The type of a reduction's result.
Status infer_reduce(std::string_view op, const InferArgs& a, Numbers numbers, bool accumulates,
                    bool needs_elements) {
  const TensorType& x = a.in[0];
  if (numbers == Numbers::floating) TN_RETURN_IF_ERROR(want_floating(op, x));
  if (!accumulates && x.dtype == DType::boolean)
    return invalid(std::string(op) + ": got " + to_string(x) + "; for bool use any or all");
  TN_ASSIGN(const Axes axes, normalize_axes(op, a.attrs.ints("axes"), x.shape.rank()));
  const Shape shape = reduced_shape(x.shape, axes, a.attrs.flag("keepdims"));
  if (needs_elements && reduced_count(x.shape, axes) == 0 && shape.numel() > 0)
    return invalid(std::string(op) + ": " + to_string(x) + " has no elements along axes " + to_string(axes));
  a.out = {{accumulates ? accumulated_dtype(x.dtype) : x.dtype, shape}};
  return Status::ok();
}

// Calls reduce(walk, offset of the first element) for each element of the output, types T -> R.
template <class T, class R, class F>
void reduce_elements(const KernelArgs& a, F&& reduce) {
  const View& x = a.in[0];
  const Walk walk(x, reduced_axes(a.attrs, x.shape.rank()));
  R* out = a.out[0].as<R>();
  for_each_offset<1>(walk.outer, {walk.outer_strides},
                     [&](int64_t base) { *out++ = store<R>(reduce(walk, base)); });
}

template <class T>
Arith<T> sum_of(const T* x, const Walk& walk, int64_t base) {
  PairwiseSum<Arith<T>> sum;
  walk.each(base, [&](int64_t o) { sum.add(load(x[o])); });
  return sum.total();
}

// --- sum, mean ---

Status infer_sum(const InferArgs& a) { return infer_reduce("sum", a, Numbers::any, true, false); }
Status plain_sum(const KernelArgs& a) {
  dispatch(a.in[0].dtype, [&](auto t) {
    using T = decltype(t);
    const T* x = a.in[0].template as<T>();
    if constexpr (std::is_integral_v<T>) {
      reduce_elements<T, int64_t>(a, [&](const Walk& walk, int64_t base) {
        uint64_t sum = 0;  // wraps around
        walk.each(base, [&](int64_t o) { sum += static_cast<uint64_t>(x[o]); });
        return static_cast<int64_t>(sum);
      });
    } else {
      reduce_elements<T, T>(a, [&](const Walk& walk, int64_t base) { return sum_of(x, walk, base); });
    }
  });
  return Status::ok();
}
void vjp_sum(VjpArgs& a) {
  const Shape& shape = a.in[0].shape();
  a.grads[0] = expand_reduced(a.cotangents[0], shape, reduced_axes(a.attrs, shape.rank()));
}

Status infer_mean(const InferArgs& a) { return infer_reduce("mean", a, Numbers::floating, true, false); }
Status plain_mean(const KernelArgs& a) {
  return dispatch_floating(a.in[0].dtype, [&](auto t) {
    using T = decltype(t);
    const T* x = a.in[0].as<T>();
    reduce_elements<T, T>(a, [&](const Walk& walk, int64_t base) {
      return sum_of(x, walk, base) / static_cast<Arith<T>>(walk.inner.numel());
    });
    return Status::ok();
  });
}
void vjp_mean(VjpArgs& a) {
  const Shape& shape = a.in[0].shape();
  const Axes axes = reduced_axes(a.attrs, shape.rank());
  const Tensor g = a.cotangents[0];
  const auto n = static_cast<double>(reduced_count(shape, axes));
  a.grads[0] = expand_reduced(g / constant_like(g, n), shape, axes);
}

// --- max, min: NaN if any element is ---

template <bool kMax>
Status infer_extreme(const InferArgs& a) {
  return infer_reduce(kMax ? "max" : "min", a, Numbers::any, false, true);
}
template <bool kMax>
Status plain_extreme(const KernelArgs& a) {
  dispatch(a.in[0].dtype, [&](auto t) {
    using T = decltype(t);
    const T* x = a.in[0].template as<T>();
    reduce_elements<T, T>(a, [&](const Walk& walk, int64_t base) {
      Arith<T> best = load(x[base]);
      walk.each(base, [&](int64_t o) {
        const Arith<T> v = load(x[o]);
        if ((kMax ? v > best : v < best) || v != v) best = v;
      });
      return best;
    });
  });
  return Status::ok();
}
// The cotangent shared equally among the elements that are the extreme one.
void vjp_extreme(VjpArgs& a) {
  const Tensor x = a.in[0], g = a.cotangents[0];
  const Axes axes = reduced_axes(a.attrs, x.rank());
  const Tensor chosen = equal(x, keep_reduced(a.out[0], x.shape(), axes));
  const Tensor count = sum(cast(chosen, x.dtype()), axes, true);
  a.grads[0] = where(chosen, keep_reduced(g, x.shape(), axes) / count, constant_like(g, 0));
}

// --- prod ---

Status infer_prod(const InferArgs& a) { return infer_reduce("prod", a, Numbers::any, true, false); }
Status plain_prod(const KernelArgs& a) {
  dispatch(a.in[0].dtype, [&](auto t) {
    using T = decltype(t);
    const T* x = a.in[0].template as<T>();
    if constexpr (std::is_integral_v<T>) {
      reduce_elements<T, int64_t>(a, [&](const Walk& walk, int64_t base) {
        uint64_t product = 1;
        walk.each(base, [&](int64_t o) { product *= static_cast<uint64_t>(x[o]); });
        return static_cast<int64_t>(product);
      });
    } else {
      reduce_elements<T, T>(a, [&](const Walk& walk, int64_t base) {
        Arith<T> product = 1;
        walk.each(base, [&](int64_t o) { product *= load(x[o]); });
        return product;
      });
    }
  });
  return Status::ok();
}
// The product as a tree of multiplications: its derivative is the product of the others, which is right at
// zeros too.
void vjp_prod(VjpArgs& a) {
  const Axes axes = reduced_axes(a.attrs, a.in[0].rank());
  const Shape out = a.out[0].shape();
  vjp_of_composition(a, [&](std::span<const Tensor> in) -> std::vector<Tensor> {
    const Tensor x = in[0];
    Axes perm;
    Shape kept;
    int64_t n = 1;
    for (int i = 0; i < x.rank(); ++i)
      if (!axes.contains(i)) perm.push_back(i), kept.push_back(x.dim(i));
    for (int64_t axis : axes) perm.push_back(axis), n *= x.dim(static_cast<int>(axis));
    if (n == 0) return {ones(x.graph(), out, x.dtype())};
    Tensor y = reshape(transpose(x, perm), Shape{kept.numel(), n});
    while (y.dim(1) > 1) {
      const int64_t half = y.dim(1) / 2;
      const Tensor left = y.dim(1) % 2 ? narrow(y, 1, 2 * half, 1) : Tensor();
      y = narrow(y, 1, 0, half) * narrow(y, 1, half, half);
      if (left.valid()) y = concat(std::vector<Tensor>{y, left}, 1);
      if (!y.valid()) return {y};
    }
    return {reshape(y, out)};
  });
}

// --- logsumexp: m + log sum e^(x - m) with the maximum m ---

Status infer_logsumexp(const InferArgs& a) {
  return infer_reduce("logsumexp", a, Numbers::floating, true, false);
}
Status plain_logsumexp(const KernelArgs& a) {
  return dispatch_floating(a.in[0].dtype, [&](auto t) {
    using T = decltype(t);
    using A = Arith<T>;
    const T* x = a.in[0].as<T>();
    reduce_elements<T, T>(a, [&](const Walk& walk, int64_t base) {
      A max = -std::numeric_limits<A>::infinity();
      walk.each(base, [&](int64_t o) {
        const A v = load(x[o]);
        if (v > max || v != v) max = v;
      });
      if (!std::isfinite(max)) return max;  // nothing but -inf, some +inf, or NaN
      PairwiseSum<A> sum;
      walk.each(base, [&](int64_t o) { sum.add(std::exp(load(x[o]) - max)); });
      return max + std::log(sum.total());
    });
    return Status::ok();
  });
}
// g e^(x - y). Where y is -inf, so is every x; the derivative there is zero.
void vjp_logsumexp(VjpArgs& a) {
  const Tensor x = a.in[0], y = a.out[0];
  const Axes axes = reduced_axes(a.attrs, x.rank());
  const Tensor nothing = equal(y, constant_like(y, -std::numeric_limits<double>::infinity()));
  const Tensor shift = keep_reduced(where(nothing, constant_like(y, 0), y), x.shape(), axes);
  a.grads[0] = keep_reduced(a.cotangents[0], x.shape(), axes) * exp(x - shift);
}

// --- var, in two passes ---

constexpr AttrSpec kVarAttrs[] = {
    {"axes", AttrKind::ints}, {"keepdims", AttrKind::i64}, {"ddof", AttrKind::i64}};

Status infer_var(const InferArgs& a) {
  TN_RETURN_IF_ERROR(infer_reduce("var", a, Numbers::floating, true, false));
  const int64_t n = reduced_count(a.in[0].shape, reduced_axes(a.attrs, a.in[0].shape.rank()));
  const int64_t ddof = a.attrs.i("ddof");
  if (ddof < 0 || ddof >= n)
    return invalid("var: ddof " + std::to_string(ddof) + " with " + std::to_string(n) + " elements of " +
                   to_string(a.in[0]) + "; it must be at least 0 and below the number of elements");
  return Status::ok();
}
Status plain_var(const KernelArgs& a) {
  const auto ddof = a.attrs.i("ddof");
  return dispatch_floating(a.in[0].dtype, [&](auto t) {
    using T = decltype(t);
    using A = Arith<T>;
    const T* x = a.in[0].as<T>();
    reduce_elements<T, T>(a, [&](const Walk& walk, int64_t base) {
      const A mean_value = sum_of(x, walk, base) / static_cast<A>(walk.inner.numel());
      PairwiseSum<A> sum;
      walk.each(base, [&](int64_t o) {
        const A d = load(x[o]) - mean_value;
        sum.add(d * d);
      });
      return sum.total() / static_cast<A>(walk.inner.numel() - ddof);
    });
    return Status::ok();
  });
}
void vjp_var(VjpArgs& a) {
  const Tensor x = a.in[0], g = a.cotangents[0];
  const Axes axes = reduced_axes(a.attrs, x.rank());
  const auto n = static_cast<double>(reduced_count(x.shape(), axes) - a.attrs.i("ddof"));
  const Tensor scaled = keep_reduced(g * constant_like(g, 2 / n), x.shape(), axes);
  a.grads[0] = scaled * (x - mean(x, axes, true));
}
std::vector<Sample> var_samples() {
  std::vector<Sample> samples = reduce_samples(-2, 1.5, false);
  for (size_t i = 0; i < samples.size(); ++i) samples[i].attrs.i(i == 0);  // ddof
  return samples;
}

std::vector<Sample> any_samples() { return reduce_samples(-2, 1.5, true); }
std::vector<Sample> nonempty_samples() { return reduce_samples(-2, 1.5, false); }

// Products also of zeros: one in a group, two in a group.
std::vector<Sample> prod_samples() {
  std::vector<Sample> samples = reduce_samples(-1.5, 1.2, true);
  HostArray x = sample_f64({3, 4}, 0.5, 1.5);
  x.set(1, 0);
  x.set(4, 0), x.set(6, 0);
  samples.push_back({{x}, AttrList().ints(Axes{1}).i(0)});
  return samples;
}

constinit const OpDef kSum{.id = "sum/1",
                           .attrs = kReduceAttrs,
                           .infer = infer_sum,
                           .vjp = vjp_sum,
                           .plain = plain_sum,
                           .samples = any_samples};
constinit const OpDef kMean{.id = "mean/1",
                            .attrs = kReduceAttrs,
                            .infer = infer_mean,
                            .vjp = vjp_mean,
                            .plain = plain_mean,
                            .samples = nonempty_samples};
constinit const OpDef kMax{.id = "max/1",
                           .attrs = kReduceAttrs,
                           .infer = infer_extreme<true>,
                           .vjp = vjp_extreme,
                           .plain = plain_extreme<true>,
                           .samples = nonempty_samples};
constinit const OpDef kMin{.id = "min/1",
                           .attrs = kReduceAttrs,
                           .infer = infer_extreme<false>,
                           .vjp = vjp_extreme,
                           .plain = plain_extreme<false>,
                           .samples = nonempty_samples};
constinit const OpDef kProd{.id = "prod/1",
                            .attrs = kReduceAttrs,
                            .infer = infer_prod,
                            .vjp = vjp_prod,
                            .plain = plain_prod,
                            .samples = prod_samples};
constinit const OpDef kLogsumexp{.id = "logsumexp/1",
                                 .attrs = kReduceAttrs,
                                 .infer = infer_logsumexp,
                                 .vjp = vjp_logsumexp,
                                 .plain = plain_logsumexp,
                                 .samples = any_samples};
constinit const OpDef kVar{.id = "var/1",
                           .attrs = kVarAttrs,
                           .infer = infer_var,
                           .vjp = vjp_var,
                           .plain = plain_var,
                           .samples = var_samples};

}  // namespace

std::vector<Sample> reduce_samples(double low, double high, bool empty) {
  std::vector<Sample> samples = {{{sample_f64({3, 5}, low, high)}, AttrList().ints(Axes{1}).i(0)},
                                 {{sample_f64({2, 3, 4}, low, high)}, AttrList().ints(Axes{0, -1}).i(1)},
                                 {{sample_f64({4, 3}, low, high)}, AttrList().ints(Axes{}).i(0)},
                                 {{sample_f64({2, 1, 3}, low, high)}, AttrList().ints(Axes{1}).i(1)},
                                 {{sample_f64({1}, low, high)}, AttrList().ints(Axes{0}).i(0)},
                                 {{sample_f64({}, low, high)}, AttrList().ints(Axes{}).i(0)},
                                 {{sample_f64({0, 3}, low, high)}, AttrList().ints(Axes{1}).i(0)}};
  if (empty) samples.push_back({{sample_f64({2, 0}, low, high)}, AttrList().ints(Axes{1}).i(0)});
  return samples;
}

Tensor keep_reduced(Tensor g, const Shape& shape, const Axes& axes) {
  return g.valid() ? reshape(g, reduced_shape(shape, axes, true)) : Tensor();
}
Tensor expand_reduced(Tensor g, const Shape& shape, const Axes& axes) {
  return broadcast_to(keep_reduced(g, shape, axes), shape);
}

Tensor sum(Tensor x, const Axes& axes, bool keepdims) { return apply_reduce(kSum, x, axes, keepdims); }
Tensor mean(Tensor x, const Axes& axes, bool keepdims) { return apply_reduce(kMean, x, axes, keepdims); }
Tensor reduce_max(Tensor x, const Axes& axes, bool keepdims) { return apply_reduce(kMax, x, axes, keepdims); }
Tensor reduce_min(Tensor x, const Axes& axes, bool keepdims) { return apply_reduce(kMin, x, axes, keepdims); }
Tensor prod(Tensor x, const Axes& axes, bool keepdims) { return apply_reduce(kProd, x, axes, keepdims); }
Tensor logsumexp(Tensor x, const Axes& axes, bool keepdims) {
  return apply_reduce(kLogsumexp, x, axes, keepdims);
}
Tensor var(Tensor x, const Axes& axes, bool keepdims, int64_t ddof) {
  return x.valid() ? x.graph().apply(kVar, {x}, AttrList().ints(axes).i(keepdims).i(ddof)) : Tensor();
}

Tensor sum_to(Tensor x, const Shape& shape) {
  if (!x.valid() || x.shape() == shape) return x;
  const int lead = x.rank() - shape.rank();
  const auto fits = broadcast_shapes(x.shape(), shape);
  if (!fits || *fits != x.shape()) {
    x.graph().fail(
        invalid("sum_to: shape " + to_string(shape) + " does not broadcast to " + to_string(x.shape())));
    return {};
  }
  Axes axes;
  for (int i = 0; i < x.rank(); ++i)
    if (i < lead || (shape[i - lead] == 1 && x.dim(i) != 1)) axes.push_back(i);
  return reshape(axes.empty() ? x : sum(x, axes), shape);
}

OpList reduce_ops() {
  static const auto ops = [] {
    std::array<const OpDef*, 7 + std::size(kCumulativeOps) + std::size(kSelectOps)> all{
        &kSum, &kMean, &kMax, &kMin, &kProd, &kLogsumexp, &kVar};
    const auto to = std::copy(std::begin(kCumulativeOps), std::end(kCumulativeOps), all.begin() + 7);
    std::copy(std::begin(kSelectOps), std::end(kSelectOps), to);
    return all;
  }();
  return ops;
}

}  // namespace tenon
