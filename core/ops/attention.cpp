// attention/1 and its first derivative as an op, row by row: no T x S matrix is kept.
//   S = scale Q K^T + mask    L = log sum_s e^S    P = e^(S - L)    O = P V
//   dV = P^T dO    dS = P (dO V^T - delta), delta = rowsum(dO O) - dL    dQ = scale dS K    dK = scale dS^T Q
// (Dao et al. 2022, FlashAttention, appendix B.4.) attention_grad/1 is this function of (Q, K, V, L, delta,
// dO, mask); its own derivative differentiates the composed form.
#include "core/ops/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "core/ops/compose.h"
#include "core/ops/dense.h"
#include "core/ops/elementwise.h"
#include "core/ops/families.h"
#include "core/ops/matmul.h"
#include "core/ops/reduce.h"
#include "core/ops/sample_values.h"
#include "core/ops/shape.h"

namespace tenon {
namespace {

constexpr AttrSpec kAttrs[] = {{"causal", AttrKind::i64}, {"scale", AttrKind::f64}};
constexpr size_t kMask = 3, kGradMask = 6;  // where the optional mask is among the inputs

struct Extents {
  int64_t batch = 1, t, s, d, dv;
  Extents(const Shape& q, const Shape& v) {
    const int r = q.rank();
    for (int i = 0; i + 2 < r; ++i) batch *= q[i];
    t = q[r - 2], s = v[r - 2], d = q[r - 1], dv = v[r - 1];
  }
};

double scale_of(const Attrs& attrs, int64_t d) {
  const double scale = attrs.f("scale");
  return scale != 0 ? scale : 1 / std::sqrt(static_cast<double>(std::max<int64_t>(d, 1)));
}

Shape scores_shape(const Shape& q, const Shape& k) {
  Shape s = q;
  s[s.rank() - 1] = k[k.rank() - 2];
  return s;
}

// L and delta lie in exponents, where bf16's 8 bits would be an error of percents.
DType statistics(DType t) { return t == DType::bf16 ? DType::f32 : t; }

Status check(std::string_view op, const InferArgs& a, size_t mask) {
  const TensorType &q = a.in[0], &k = a.in[1], &v = a.in[2];
  TN_RETURN_IF_ERROR(want_floating(op, q));
  for (size_t i = 1; i < a.in.size(); ++i) {
    const bool statistic = mask == kGradMask && (i == 3 || i == 4);
    if (a.in[i].dtype == (statistic ? statistics(q.dtype) : q.dtype)) continue;
    return invalid(
        std::string(op) + ": mixes " + to_string(q) + " and " + to_string(a.in[i]) +
        (statistic ? "; logsumexp and delta are " + std::string(name_of(statistics(q.dtype))) + " beside it"
                   : "; cast one to the other's dtype"));
  }
  const int r = q.shape.rank();
  bool fits = r >= 2 && k.shape.rank() == r && v.shape.rank() == r;
  for (int i = 0; fits && i + 2 < r; ++i) fits = q.shape[i] == k.shape[i] && q.shape[i] == v.shape[i];
  if (!fits || q.shape[r - 1] != k.shape[r - 1] || k.shape[r - 2] != v.shape[r - 2])
    return invalid(std::string(op) +
                   ": q, k, v must be [.., T, D], [.., S, D], [.., S, Dv] with equal leading " +
                   "dimensions, got " + to_string(q) + ", " + to_string(k) + ", " + to_string(v));
  if (a.attrs.flag("causal") && q.shape[r - 2] > k.shape[r - 2])
    return invalid(std::string(op) + ": causal attention of " + std::to_string(q.shape[r - 2]) +
                   " queries to " + std::to_string(k.shape[r - 2]) +
                   " keys leaves the first queries without any");
  if (a.in.size() > mask) {
    const Shape scores = scores_shape(q.shape, k.shape);
    if (broadcast_shapes(a.in[mask].shape, scores) != scores)
      return invalid(std::string(op) + ": a mask of shape " + to_string(a.in[mask].shape) +
                     " does not broadcast to the scores, " + to_string(scores));
  }
  return Status::ok();
}

Status infer_attention(const InferArgs& a) {
  TN_RETURN_IF_ERROR(check("attention", a, kMask));
  Shape out = a.in[0].shape, lse = out;
  out[out.rank() - 1] = a.in[2].shape.back();
  lse.pop_back();
  a.out = {{a.in[0].dtype, out}, {statistics(a.in[0].dtype), lse}};
  return Status::ok();
}

Status infer_attention_grad(const InferArgs& a) {
  TN_RETURN_IF_ERROR(check("attention_grad", a, kGradMask));
  Shape out = a.in[0].shape, lse = out;
  out[out.rank() - 1] = a.in[2].shape.back();
  lse.pop_back();
  if (a.in[3].shape != lse || a.in[4].shape != lse || a.in[5].shape != out)
    return invalid("attention_grad: logsumexp and delta must be " + to_string(lse) + ", the cotangent " +
                   to_string(out) + "; got " + to_string(a.in[3].shape) + ", " + to_string(a.in[4].shape) +
                   ", " + to_string(a.in[5].shape));
  a.out = {a.in[0], a.in[1], a.in[2]};
  return Status::ok();
}

// Eight partial sums, so that the compiler may use vectors; their order is fixed.
template <class A>
A dot(const A* x, const A* y, int64_t n) {
  A part[8] = {};
  int64_t i = 0;
  for (; i + 8 <= n; i += 8)
    for (int l = 0; l < 8; ++l) part[l] += x[i + l] * y[i + l];
  for (; i < n; ++i) part[i % 8] += x[i] * y[i];
  return ((part[0] + part[4]) + (part[1] + part[5])) + ((part[2] + part[6]) + (part[3] + part[7]));
}

// to += factor * x
template <class A>
void axpy(A factor, const A* __restrict x, A* __restrict to, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] += factor * x[i];
}

// Rows of scores: dense operands, and the mask where it lies.
template <class T>
class Scores {
  using A = Arith<T>;

 public:
  Scores(const KernelArgs& a, size_t mask)
      : e(a.in[0].shape, a.in[2].shape),
        q(a.in[0]),
        k(a.in[1]),
        v(a.in[2]),
        scale(static_cast<A>(scale_of(a.attrs, e.d))),
        causal_(a.attrs.flag("causal")),
        row_(static_cast<size_t>(e.s)) {
    if (a.in.size() <= mask) return;
    const Shape shape = scores_shape(a.in[0].shape, a.in[1].shape);
    const Strides strides = broadcast_strides(a.in[mask], shape);
    mask_ = a.in[mask].template as<T>();
    mask_step_ = strides.back();
    Shape rows = shape;
    rows[rows.rank() - 1] = std::min<int64_t>(1, e.s);
    for_each_offset<1>(rows, {strides}, [&](int64_t o) { mask_rows_.push_back(o); });
  }
  // Keys that query t may see.
  int64_t visible(int64_t t) const { return causal_ ? t + 1 + e.s - e.t : e.s; }
  // Scores of query t of batch b with its visible keys.
  const A* row(int64_t b, int64_t t) {
    const A* query = q.data() + (b * e.t + t) * e.d;
    const int64_t n = visible(t);
    for (int64_t j = 0; j < n; ++j)
      row_[static_cast<size_t>(j)] = scale * dot(query, k.data() + (b * e.s + j) * e.d, e.d);
    if (mask_ && n > 0) {
      const T* m = mask_ + mask_rows_[static_cast<size_t>(b * e.t + t)];
      for (int64_t j = 0; j < n; ++j) row_[static_cast<size_t>(j)] += load(m[j * mask_step_]);
    }
    return row_.data();
  }

  const Extents e;
  const DenseView<T> q, k, v;
  const A scale;

 private:
  bool causal_;
  const T* mask_ = nullptr;
  int64_t mask_step_ = 0;
  std::vector<int64_t> mask_rows_;  // offset of each row
  std::vector<A> row_;
};

template <class A>
constexpr A kHidden = -std::numeric_limits<A>::infinity();

Status plain_attention(const KernelArgs& a) {
  return dispatch_floating(a.in[0].dtype, [&](auto type) {
    using T = decltype(type);
    using A = Arith<T>;
    Scores<T> scores(a, kMask);
    const Extents& e = scores.e;
    const DenseResult<T> out(a.out[0]);
    const DenseResult<A> lse(a.out[1]);
    for (int64_t b = 0; b < e.batch; ++b)
      for (int64_t t = 0; t < e.t; ++t) {
        const A* x = scores.row(b, t);
        const int64_t n = scores.visible(t), at = b * e.t + t;
        A max = kHidden<A>, sum = 0;
        for (int64_t j = 0; j < n; ++j) max = std::max(max, x[j]);
        A* to = out.data() + at * e.dv;
        for (int64_t j = 0; j < n; ++j) {
          if (x[j] == kHidden<A>) continue;
          const A p = std::exp(x[j] - max);
          sum += p;
          axpy(p, scores.v.data() + (b * e.s + j) * e.dv, to, e.dv);
        }
        lse[at] = sum == 0 ? kHidden<A> : max + std::log(sum);
        if (sum == 0) continue;
        for (int64_t i = 0; i < e.dv; ++i) to[i] /= sum;
      }
    return Status::ok();
  });
}

Status plain_attention_grad(const KernelArgs& a) {
  return dispatch_floating(a.in[0].dtype, [&](auto type) {
    using T = decltype(type);
    using A = Arith<T>;
    Scores<T> scores(a, kGradMask);
    const Extents& e = scores.e;
    const DenseView<A> lse(a.in[3]), delta(a.in[4]);
    const DenseView<T> dout(a.in[5]);
    const DenseResult<T> dq(a.out[0]), dk(a.out[1]), dv(a.out[2]);
    for (int64_t b = 0; b < e.batch; ++b)
      for (int64_t t = 0; t < e.t; ++t) {
        const A* x = scores.row(b, t);
        const int64_t n = scores.visible(t), at = b * e.t + t;
        const A* d = dout.data() + at * e.dv;
        for (int64_t j = 0; j < n; ++j) {
          if (x[j] == kHidden<A>) continue;
          const int64_t key = b * e.s + j;
          const A p = std::exp(x[j] - lse[at]);
          const A ds = scores.scale * p * (dot(d, scores.v.data() + key * e.dv, e.dv) - delta[at]);
          axpy(p, d, dv.data() + key * e.dv, e.dv);
          axpy(ds, scores.k.data() + key * e.d, dq.data() + at * e.d, e.d);
          axpy(ds, scores.q.data() + at * e.d, dk.data() + key * e.d, e.d);
        }
      }
    return Status::ok();
  });
}

// P and dS from (q, k, v, L, delta, dO, mask or null), all of L's dtype, written with public ops.
struct Composed {
  Tensor p, ds;
};
Composed compose(Tensor q, Tensor k, Tensor v, Tensor lse, Tensor delta, Tensor dout, Tensor mask,
                 bool causal, double scale) {
  Graph& g = q.graph();
  const Tensor zero = g.constant(0, q.dtype());
  Tensor s = matmul(q, k, false, true) * scale, visible;
  if (mask.valid()) {
    s = s + mask;
    visible = greater(mask, g.constant(-std::numeric_limits<double>::infinity(), mask.dtype()));
  }
  if (causal) {
    const int64_t rows = q.dim(-2), cols = k.dim(-2);
    const Tensor last =
        unsqueeze(arange(g, rows), -1) + g.constant(static_cast<double>(cols - rows), DType::i64);
    const Tensor seen = greater_equal(last, arange(g, cols));
    visible = visible.valid() ? logical_and(visible, seen) : seen;
  }
  s = s - unsqueeze(lse, -1);
  // Twice: the exponential of what is hidden must be finite for its derivative to vanish.
  const Tensor p = visible.valid() ? where(visible, exp(where(visible, s, zero)), zero) : exp(s);
  return {p, p * (matmul(dout, v, false, true) - unsqueeze(delta, -1))};
}

void vjp_attention_grad(VjpArgs& a) {
  const bool causal = a.attrs.flag("causal");
  const double scale = scale_of(a.attrs, a.in[0].dim(-1));
  vjp_of_composition(a, [&](std::span<const Tensor> given) -> std::vector<Tensor> {
    const DType narrow = given[0].dtype();
    std::vector<Tensor> in;
    for (const Tensor& t : given) in.push_back(cast(t, statistics(narrow)));
    const Tensor mask = in.size() > kGradMask ? in[kGradMask] : Tensor();
    const auto [p, ds] = compose(in[0], in[1], in[2], in[3], in[4], in[5], mask, causal, scale);
    return {cast(matmul(ds, in[1]) * scale, narrow), cast(matmul(ds, in[0], true) * scale, narrow),
            cast(matmul(p, in[5], true), narrow)};
  });
}

std::vector<Sample> attention_samples() {
  const auto qkv = [](const Shape& q, const Shape& k, const Shape& v) {
    return std::vector<HostArray>{sample_f64(q, -1, 1, 1), sample_f64(k, -1, 1, 2), sample_f64(v, -1, 1, 3)};
  };
  std::vector<Sample> samples = {{qkv({2, 4, 3}, {2, 4, 3}, {2, 4, 3}), AttrList().i(1).f(0)},
                                 {qkv({2, 1, 3, 2}, {2, 1, 5, 2}, {2, 1, 5, 3}), AttrList().i(0).f(0.7)},
                                 {qkv({2, 9}, {5, 9}, {5, 1}), AttrList().i(1).f(0)},
                                 {qkv({1, 1}, {1, 1}, {1, 1}), AttrList().i(0).f(0)},
                                 {qkv({0, 3, 2}, {0, 3, 2}, {0, 3, 2}), AttrList().i(0).f(0)}};
  Sample additive{qkv({2, 3, 2}, {2, 4, 2}, {2, 4, 2}), AttrList().i(1).f(0)};
  additive.in.push_back(sample_f64({3, 4}, -1, 1, 4));
  samples.push_back(additive);
  Sample hiding{qkv({2, 3, 2}, {2, 3, 2}, {2, 3, 2}), AttrList().i(0).f(0), {3}};
  hiding.in.push_back(HostArray(DType::f64, {1, 3}));
  hiding.in[3].set(1, kHidden<double>);
  samples.push_back(hiding);
  return samples;
}

std::vector<Sample> attention_grad_samples() {
  std::vector<Sample> samples = attention_samples();
  for (Sample& s : samples) {
    Shape out = s.in[0].shape(), lse = out;
    out[out.rank() - 1] = s.in[2].shape().back();
    lse.pop_back();
    const HostArray more[] = {sample_f64(lse, 0.5, 1.5, 5), sample_f64(lse, -1, 1, 6),
                              sample_f64(out, -1, 1, 7)};
    s.in.insert(s.in.begin() + 3, std::begin(more), std::end(more));
    for (int& i : s.constant) i += 3;
  }
  return samples;
}

constinit const OpDef kAttentionGrad = {.id = "attention_grad/1",
                                        .min_in = 6,
                                        .max_in = 7,
                                        .n_out = 3,
                                        .attrs = kAttrs,
                                        .infer = infer_attention_grad,
                                        .vjp = vjp_attention_grad,
                                        .plain = plain_attention_grad,
                                        .samples = attention_grad_samples};

void vjp_attention(VjpArgs& a) {
  const Tensor q = a.in[0], k = a.in[1], v = a.in[2], out = a.out[0], lse = a.out[1];
  const Tensor mask = a.in.size() > kMask ? a.in[kMask] : Tensor();
  const Tensor dout = a.cotangents[0].valid() ? a.cotangents[0] : zeros_like(out);
  const DType wide = statistics(q.dtype());
  Tensor delta = sum(cast(dout, wide) * cast(out, wide), {-1});
  if (a.cotangents[1].valid()) delta = delta - a.cotangents[1];
  const bool causal = a.attrs.flag("causal");
  if (a.needed[0] || a.needed[1] || a.needed[2]) {
    std::vector<Tensor> in = {q, k, v, lse, delta, dout};
    if (mask.valid()) in.push_back(mask);
    const Tensor g = a.graph.apply(kAttentionGrad, in, AttrList().i(causal).f(a.attrs.f("scale")));
    for (int i = 0; i < 3; ++i)
      if (a.needed[static_cast<size_t>(i)]) a.grads[static_cast<size_t>(i)] = g.output(i);
  }
  if (mask.valid() && a.needed[kMask]) {
    const Shape shape = mask.shape();
    const double scale = scale_of(a.attrs, q.dim(-1));
    const auto [p, ds] = compose(cast(q, wide), cast(k, wide), cast(v, wide), lse, delta, cast(dout, wide),
                                 cast(mask, wide), causal, scale);
    a.grads[kMask] = cast(sum_to(ds, shape), q.dtype());
  }
}

constinit const OpDef kAttention = {.id = "attention/1",
                                    .min_in = 3,
                                    .max_in = 4,
                                    .n_out = 2,
                                    .attrs = kAttrs,
                                    .infer = infer_attention,
                                    .vjp = vjp_attention,
                                    .plain = plain_attention,
                                    .samples = attention_samples};

}  // namespace

Attention attention(Tensor q, Tensor k, Tensor v, const AttentionOptions& options, Tensor mask) {
  if (!q.valid()) return {};
  std::vector<Tensor> in = {q, k, v};
  if (mask.valid()) in.push_back(mask);
  const Tensor y = q.graph().apply(kAttention, in, AttrList().i(options.causal).f(options.scale));
  return {y, y.output(1)};
}

Tensor scaled_dot_product_attention(Tensor q, Tensor k, Tensor v, const AttentionOptions& options,
                                    Tensor mask) {
  return attention(q, k, v, options, mask).out;
}

OpList attention_ops() {
  static constexpr const OpDef* ops[] = {&kAttention, &kAttentionGrad};
  return ops;
}

}  // namespace tenon
