// Reductions to a truth value or an index: any/1, all/1 (bool -> bool), argmax/1, argmin/1 (-> i64).
#include "core/ops/reduce_ops.h"
#include "core/ops/sample_values.h"

namespace tenon {
namespace {

template <bool kAny>
Status infer_any_all(const InferArgs& a) {
  const std::string_view op = kAny ? "any" : "all";
  if (a.in[0].dtype != DType::boolean)
    return invalid(std::string(op) + ": got " + to_string(a.in[0]) +
                   "; it wants bool (compare or cast first)");
  TN_ASSIGN(const Axes axes, normalize_axes(op, a.attrs.ints("axes"), a.in[0].shape.rank()));
  a.out = {{DType::boolean, reduced_shape(a.in[0].shape, axes, a.attrs.flag("keepdims"))}};
  return Status::ok();
}
template <bool kAny>
Status plain_any_all(const KernelArgs& a) {
  const View& x = a.in[0];
  const Walk walk(x, reduced_axes(a.attrs, x.shape.rank()));
  bool* out = a.out[0].as<bool>();
  for_each_offset<1>(walk.outer, {walk.outer_strides}, [&](int64_t base) {
    bool found = false;  // any: a true one; all: a false one
    walk.each(base, [&](int64_t o) { found |= x.as<bool>()[o] == kAny; });
    *out++ = found == kAny;
  });
  return Status::ok();
}
std::vector<Sample> any_all_samples() {
  std::vector<Sample> samples = reduce_samples(0, 1, true);
  for (size_t k = 0; k < samples.size(); ++k) {
    HostArray b(DType::boolean, samples[k].in[0].shape());
    for (int64_t i = 0; i < b.numel(); ++i) b.set(i, samples[k].in[0].at(i) > (k % 2 ? 0.8 : 0.3));
    samples[k].in[0] = b;
  }
  return samples;
}

constexpr AttrSpec kArgAttrs[] = {{"axis", AttrKind::i64, true}, {"keepdims", AttrKind::i64}};

template <bool kMax>
Status infer_arg(const InferArgs& a) {
  const std::string_view op = kMax ? "argmax" : "argmin";
  const TensorType& x = a.in[0];
  TN_ASSIGN(const int axis, normalize_axis(op, a.attrs.i("axis"), x.shape.rank()));
  const Shape shape = reduced_shape(x.shape, Axes{axis}, a.attrs.flag("keepdims"));
  if (x.shape[axis] == 0 && shape.numel() > 0)
    return invalid(std::string(op) + ": " + to_string(x) + " has no elements along axis " +
                   std::to_string(axis));
  a.out = {{DType::i64, shape}};
  return Status::ok();
}
// The lowest index among ties; the first NaN if there is one.
template <bool kMax>
Status plain_arg(const KernelArgs& a) {
  const View& x = a.in[0];
  const int axis = normalize_axis("arg", a.attrs.i("axis"), x.shape.rank()).value();
  const Walk walk(x, Axes{axis});
  int64_t* out = a.out[0].as<int64_t>();
  const int64_t n = x.shape[axis], step = x.strides[axis];
  dispatch(x.dtype, [&](auto t) {
    using T = decltype(t);
    for_each_offset<1>(walk.outer, {walk.outer_strides}, [&](int64_t base) {
      const T* p = x.template as<T>() + base;
      int64_t best = 0;
      for (int64_t i = 1; i < n; ++i) {
        const Arith<T> v = load(p[i * step]), b = load(p[best * step]);
        if (b == b && ((kMax ? v > b : v < b) || v != v)) best = i;
      }
      *out++ = best;
    });
  });
  return Status::ok();
}
std::vector<Sample> arg_samples() {
  const std::vector<double> ties = {1, 3, 3, 0, 0, 2};
  return {{{sample_f64({3, 5}, -2, 2)}, AttrList().i(1).i(0)},
          {{sample_f64({2, 3, 4}, -2, 2)}, AttrList().i(-2).i(1)},
          {{HostArray::of(ties)}, AttrList().i(0).i(0)},
          {{sample_f64({1}, -2, 2)}, AttrList().i(0).i(1)},
          {{sample_f64({0, 3}, -2, 2)}, AttrList().i(1).i(0)}};
}

constinit const OpDef kAny{.id = "any/1",
                           .attrs = kReduceAttrs,
                           .infer = infer_any_all<true>,
                           .plain = plain_any_all<true>,
                           .samples = any_all_samples};
constinit const OpDef kAll{.id = "all/1",
                           .attrs = kReduceAttrs,
                           .infer = infer_any_all<false>,
                           .plain = plain_any_all<false>,
                           .samples = any_all_samples};
constinit const OpDef kArgmax{.id = "argmax/1",
                              .attrs = kArgAttrs,
                              .infer = infer_arg<true>,
                              .plain = plain_arg<true>,
                              .samples = arg_samples};
constinit const OpDef kArgmin{.id = "argmin/1",
                              .attrs = kArgAttrs,
                              .infer = infer_arg<false>,
                              .plain = plain_arg<false>,
                              .samples = arg_samples};

Tensor apply_arg(const OpDef& op, Tensor x, int axis, bool keepdims) {
  return x.valid() ? x.graph().apply(op, {x}, AttrList().i(axis).i(keepdims)) : Tensor();
}

}  // namespace

constinit const OpDef* const kSelectOps[] = {&kAny, &kAll, &kArgmax, &kArgmin};

Tensor any(Tensor x, const Axes& axes, bool keepdims) { return apply_reduce(kAny, x, axes, keepdims); }
Tensor all(Tensor x, const Axes& axes, bool keepdims) { return apply_reduce(kAll, x, axes, keepdims); }
Tensor argmax(Tensor x, int axis, bool keepdims) { return apply_arg(kArgmax, x, axis, keepdims); }
Tensor argmin(Tensor x, int axis, bool keepdims) { return apply_arg(kArgmin, x, axis, keepdims); }

}  // namespace tenon
