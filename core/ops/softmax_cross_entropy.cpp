// cross_entropy/1: per-sample loss from logits and integer labels, with label smoothing s and an ignored
// label.
//   loss = log sum_c e^{x_c} - (1 - s) x_label - s/C sum_c x_c        dx = (softmax(x) - target) dloss
#include <cmath>
#include <string>

#include "core/ops/dense.h"
#include "core/ops/elementwise.h"
#include "core/ops/reduce.h"
#include "core/ops/sample_values.h"
#include "core/ops/shape.h"
#include "core/ops/softmax.h"
#include "core/ops/softmax_ops.h"

namespace tenon {
namespace {

constexpr AttrSpec kAttrs[] = {{"label_smoothing", AttrKind::f64},
                               {"ignore_index", AttrKind::i64, false, -100}};

Status infer(std::string_view op, const InferArgs& a) {
  TN_RETURN_IF_ERROR(want_floating(op, a.in[0]));
  const auto both = [&] { return to_string(a.in[0]) + " and labels " + to_string(a.in[1]); };
  Shape samples = a.in[0].shape;
  if (samples.rank() == 0) return invalid(std::string(op) + ": the logits need a last dimension of classes");
  samples.pop_back();
  if (a.in[1].shape != samples || (a.in[1].dtype != DType::i32 && a.in[1].dtype != DType::i64))
    return invalid(std::string(op) + ": got logits " + both() + "; it wants i32 or i64 labels of shape " +
                   to_string(samples));
  const double s = a.attrs.f("label_smoothing");
  if (!(s >= 0 && s <= 1))
    return invalid(std::string(op) + ": label_smoothing is " + std::to_string(s) + ", it must lie in [0, 1]");
  if (a.in.size() > 2 && a.in[2] != TensorType{a.in[0].dtype, samples})
    return invalid(std::string(op) + ": the cotangent is " + to_string(a.in[2]) + ", it must be " +
                   to_string(TensorType{a.in[0].dtype, samples}));
  return Status::ok();
}

Status infer_loss(const InferArgs& a) {
  TN_RETURN_IF_ERROR(infer("cross_entropy", a));
  Shape samples = a.in[0].shape;
  samples.pop_back();
  a.out = {{a.in[0].dtype, samples}};
  return Status::ok();
}

Status infer_grad(const InferArgs& a) {
  TN_RETURN_IF_ERROR(infer("cross_entropy_grad", a));
  a.out = {a.in[0]};
  return Status::ok();
}

// Calls f(sample, its logits, its label) for every sample that counts.
template <class T, class F>
Status for_each_sample(const KernelArgs& a, F&& f) {
  const DenseView<T> logits(a.in[0]);
  const int64_t classes = a.in[0].shape.back(), ignored = a.attrs.i("ignore_index");
  int64_t sample = -1;
  Status status;
  for_each_offset<1>(a.in[1].shape, {a.in[1].strides}, [&](int64_t o) {
    ++sample;
    const int64_t label = a.in[1].dtype == DType::i32 ? a.in[1].as<int32_t>()[o] : a.in[1].as<int64_t>()[o];
    if (label == ignored || !status.is_ok()) return;
    if (label < 0 || label >= classes) {
      status = invalid("cross_entropy: label " + std::to_string(label) + " of sample " +
                       std::to_string(sample) + " is outside [0, " + std::to_string(classes) +
                       "); the model needs as many outputs as there are classes, labels start at 0");
      return;
    }
    f(sample, logits.data() + sample * classes, label);
  });
  return status;
}

template <class A>
A max_of(const A* x, int64_t n) {
  A m = x[0];
  for (int64_t c = 1; c < n; ++c) m = std::max(m, x[c]);
  return m;
}

Status plain_loss(const KernelArgs& a) {
  return dispatch_floating(a.in[0].dtype, [&](auto t) {
    using T = decltype(t);
    using A = Arith<T>;
    const int64_t n = a.in[0].shape.back();
    const A s = static_cast<A>(a.attrs.f("label_smoothing"));
    const DenseResult<T> loss(a.out[0]);
    return for_each_sample<T>(a, [&](int64_t i, const A* x, int64_t label) {
      const A max = max_of(x, n);
      A sum = 0;
      for (int64_t c = 0; c < n; ++c) sum += std::exp(x[c] - max);
      A v = std::log(sum) - (1 - s) * (x[label] - max);
      if (s > 0) {  // so that without smoothing a logit of -infinity stays harmless
        A rest = 0;
        for (int64_t c = 0; c < n; ++c) rest += x[c] - max;
        v -= s / static_cast<A>(n) * rest;
      }
      loss[i] = v;
    });
  });
}

Status plain_grad(const KernelArgs& a) {
  return dispatch_floating(a.in[0].dtype, [&](auto t) {
    using T = decltype(t);
    using A = Arith<T>;
    const int64_t n = a.in[0].shape.back();
    const A s = static_cast<A>(a.attrs.f("label_smoothing"));
    const DenseView<T> dloss(a.in[2]);
    const DenseResult<T> dx(a.out[0]);
    return for_each_sample<T>(a, [&](int64_t i, const A* x, int64_t label) {
      A* out = dx.data() + i * n;
      const A max = max_of(x, n);
      A sum = 0;
      for (int64_t c = 0; c < n; ++c) sum += out[c] = std::exp(x[c] - max);
      const A d = dloss[i], scale = d / sum, rest = d * s / static_cast<A>(n);
      for (int64_t c = 0; c < n; ++c) out[c] = out[c] * scale - rest;
      out[label] -= d * (1 - s);
    });
  });
}

CrossEntropyOptions options_of(const Attrs& attrs) {
  return {attrs.f("label_smoothing"), attrs.i("ignore_index")};
}

void vjp_loss(VjpArgs& a) {
  if (a.needed[0]) a.grads[0] = cross_entropy_grad(a.in[0], a.in[1], a.cotangents[0], options_of(a.attrs));
}

// dx is linear in dloss, and its Jacobian in x is that of softmax, scaled by dloss.
void vjp_grad(VjpArgs& a) {
  const Tensor x = a.in[0], labels = a.in[1], dloss = a.in[2], g = a.cotangents[0];
  const CrossEntropyOptions options = options_of(a.attrs);
  if (a.needed[0]) {
    const Tensor ignored =
        equal(labels, a.graph.constant(static_cast<double>(options.ignore_index), labels.dtype()));
    const Tensor weight = where(ignored, a.graph.constant(0, dloss.dtype()), dloss);
    a.grads[0] = softmax_grad(softmax(x), g * unsqueeze(weight, -1));
  }
  if (a.needed[2]) a.grads[2] = sum(g * cross_entropy_grad(x, labels, ones_like(dloss), options), {-1});
}

std::vector<Sample> loss_samples() {
  const auto i32 = HostArray::of<int32_t>(std::span<const int32_t>(std::vector<int32_t>{2, 0}), {2});
  return {
      {{sample_f64({4, 3}, -2, 2), sample_i64({0, 2, 1, 1}, {4})}, AttrList().f(0).i(-100)},
      {{sample_f64({2, 3, 5}, -2, 2), sample_i64({0, 4, -100, 1, 2, 3}, {2, 3})}, AttrList().f(0.1).i(-100)},
      {{sample_f64({2, 3}, -2, 2), i32}, AttrList().f(1).i(0)},
      {{sample_f64({7}, -2, 2), sample_i64({6}, {})}, AttrList().f(0.3).i(-100)},
      {{sample_f64({2, 1}, -2, 2), sample_i64({0, 0}, {2})}, AttrList().f(0).i(-100)},
      {{sample_f64({0, 3}, -2, 2), sample_i64({}, {0})}, AttrList().f(0).i(-100)}};
}

std::vector<Sample> grad_samples() {
  std::vector<Sample> samples = loss_samples();
  for (Sample& s : samples) s.in.push_back(sample_f64(s.in[1].shape(), -1, 1.5, 3));
  return samples;
}

AttrList attributes(const CrossEntropyOptions& o) {
  return AttrList().f(o.label_smoothing).i(o.ignore_index);
}

}  // namespace

constinit const OpDef kCrossEntropy = {.id = "cross_entropy/1",
                                       .min_in = 2,
                                       .max_in = 2,
                                       .attrs = kAttrs,
                                       .infer = infer_loss,
                                       .vjp = vjp_loss,
                                       .plain = plain_loss,
                                       .samples = loss_samples};
constinit const OpDef kCrossEntropyGrad = {.id = "cross_entropy_grad/1",
                                           .min_in = 3,
                                           .max_in = 3,
                                           .attrs = kAttrs,
                                           .infer = infer_grad,
                                           .vjp = vjp_grad,
                                           .plain = plain_grad,
                                           .samples = grad_samples};

Tensor cross_entropy(Tensor logits, Tensor labels, const CrossEntropyOptions& options) {
  if (!logits.valid() || !labels.valid()) return {};
  return logits.graph().apply(kCrossEntropy, {logits, labels}, attributes(options));
}

Tensor cross_entropy_grad(Tensor logits, Tensor labels, Tensor dloss, const CrossEntropyOptions& options) {
  if (!logits.valid() || !labels.valid() || !dloss.valid()) return {};
  return logits.graph().apply(kCrossEntropyGrad, {logits, labels, dloss}, attributes(options));
}

}  // namespace tenon
