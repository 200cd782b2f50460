// Tensors and ops of the C++17 sugar (see tenon_plugin.hpp, which includes this file).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <initializer_list>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "tenon_plugin.h"

namespace tn {

struct Error : std::exception {
  explicit Error(std::string message, int32_t status = TN_STATUS_INVALID)
      : text(std::move(message)), code(status) {}
  const char* what() const noexcept override { return text.c_str(); }
  std::string text;
  int32_t code;
};

// ---- Tensors ----

// Up to TN_MAX_RANK integers: a shape, or axes.
struct Dims {
  Dims() = default;
  Dims(std::initializer_list<int64_t> v) : Dims(v.begin(), v.size()) {}
  Dims(const std::vector<int64_t>& v) : Dims(v.data(), v.size()) {}
  Dims(int axis) : n(1) { at[0] = axis; }
  Dims(bool) = delete;  // sum(x, true) was meant as keepdims
  Dims(const int64_t* v, size_t count) : n(static_cast<uint32_t>(count)) {
    if (count > TN_MAX_RANK) throw Error("a shape has at most 8 dimensions");
    for (size_t i = 0; i < count; ++i) at[i] = v[i];
  }
  int64_t at[TN_MAX_RANK] = {};
  uint32_t n = 0;
};

inline std::string text(const Dims& d) {  // "[2, 3]"
  std::string s = "[";
  for (uint32_t i = 0; i < d.n; ++i) s += (i ? ", " : "") + std::to_string(d.at[i]);
  return s + "]";
}

// A value in the graph of the current callback: a cheap handle. Ops on a null one yield null.
struct Tensor {
  tn_ctx* ctx = nullptr;
  tn_tensor id = TN_NULL;

  explicit operator bool() const { return id != TN_NULL; }  // so !t asks for null; see logical_not
  tn_type type() const {
    tn_type t{};
    t.struct_size = sizeof t;
    if (ctx) ctx->ops->type(ctx, id, &t);
    return t;
  }
  tn_dtype dtype() const { return type().dtype; }
  int rank() const { return type().rank; }
  Dims shape() const {
    const tn_type t = type();
    return Dims(t.shape, static_cast<size_t>(t.rank));
  }
  // Dimension i; negative counts from the end. 0 where there is none.
  int64_t dim(int i) const {
    const tn_type t = type();
    if (i < 0) i += t.rank;
    return i >= 0 && i < t.rank ? t.shape[i] : 0;
  }
  int64_t numel() const {
    const tn_type t = type();
    int64_t n = id != TN_NULL;
    for (int i = 0; i < t.rank; ++i) n *= t.shape[i];
    return n;
  }
};

inline tn_attr attr(const char* name, int64_t v) {
  tn_attr a{name, {TN_VALUE_I64, 0, {}}};
  a.value.as.i64 = v;
  return a;
}
inline tn_attr attr(const char* name, double v) {
  tn_attr a{name, {TN_VALUE_F64, 0, {}}};
  a.value.as.f64 = v;
  return a;
}
inline tn_attr attr(const char* name, const Dims& v) {
  tn_attr a{name, {TN_VALUE_I64S, v.n, {}}};
  a.value.as.i64s = v.at;
  return a;
}

namespace detail {
inline uint64_t loads = 0;  // entries so far: what was looked up for one host does not outlive its load
}

// An op by id: tn::Op{"softmax/1"}({x}, {tn::attr("axis", int64_t{-1})}). Kept in a static thread_local it is
// looked up once.
struct Op {
  const char* id;
  const tn_host* host = nullptr;
  const tn_op* found = nullptr;
  uint64_t load = 0;

  Tensor operator()(std::initializer_list<Tensor> in, std::initializer_list<tn_attr> attrs = {}) {
    return call<1>(in.begin(), in.size(), attrs)[0];
  }
  template <size_t n_out>
  std::array<Tensor, n_out> call(const Tensor* in, size_t n, std::initializer_list<tn_attr> attrs = {}) {
    tn_tensor few[4] = {}, results[n_out] = {};
    std::vector<tn_tensor> many(n > 4 ? n : 0);
    tn_tensor* ids = n > 4 ? many.data() : few;
    tn_ctx* ctx = nullptr;
    for (size_t i = 0; i < n; ++i) {
      ids[i] = in[i].id;
      if (in[i].ctx) ctx = in[i].ctx;
    }
    std::array<Tensor, n_out> out{};
    if (!ctx) return out;
    if (host != ctx->host || load != detail::loads) {
      host = ctx->host;
      load = detail::loads;
      found = ctx->ops->find(host, id);
    }
    if (!found) throw Error(std::string("this host has no op ") + id, TN_STATUS_UNSUPPORTED);
    ctx->ops->apply(ctx, found, ids, static_cast<uint32_t>(n), attrs.begin(),
                    static_cast<uint32_t>(attrs.size()), results, static_cast<uint32_t>(n_out));
    for (size_t i = 0; i < n_out; ++i) out[i] = {ctx, results[i]};
    return out;
  }
};

// v as a runtime scalar (rank 0) of x's dtype; and as part of the structure, for what never changes.
inline Tensor scalar_like(Tensor x, double v) {
  return x ? Tensor{x.ctx, x.ctx->ops->scalar(x.ctx, v, x.dtype())} : Tensor{};
}
inline Tensor constant_like(Tensor x, double v) {
  return x ? Tensor{x.ctx, x.ctx->ops->constant(x.ctx, v, x.dtype())} : Tensor{};
}

// ---- Ops (shapes and meaning: tenon_plugin.h, section F) ----

// clang-format off
#define TN_UNARY_(name) \
  inline Tensor name(Tensor x) { static thread_local Op op{#name "/1"}; return op({x}); }
#define TN_BINARY_(name) \
  inline Tensor name(Tensor a, Tensor b) { static thread_local Op op{#name "/1"}; return op({a, b}); } \
  inline Tensor name(Tensor a, double b) { return name(a, scalar_like(a, b)); } \
  inline Tensor name(double a, Tensor b) { return name(scalar_like(b, a), b); }
#define TN_REDUCE_(name) /* no axes: all of them */ \
  inline Tensor name(Tensor x, const Dims& axes = {}, bool keepdims = false) { \
    static thread_local Op op{#name "/1"}; \
    return op({x}, {attr("axes", axes), attr("keepdims", int64_t{keepdims})}); \
  }
#define TN_ALONG_(name) \
  inline Tensor name(Tensor x, int axis = -1) { \
    static thread_local Op op{#name "/1"}; \
    return op({x}, {attr("axis", int64_t{axis})}); \
  }
#define TN_OPERATOR_(symbol, name) \
  inline Tensor operator symbol(Tensor a, Tensor b) { return name(a, b); } \
  inline Tensor operator symbol(Tensor a, double b) { return name(a, b); } \
  inline Tensor operator symbol(double a, Tensor b) { return name(a, b); }

TN_UNARY_(neg) TN_UNARY_(exp) TN_UNARY_(log) TN_UNARY_(log1p) TN_UNARY_(expm1) TN_UNARY_(sqrt) TN_UNARY_(rsqrt)
TN_UNARY_(square) TN_UNARY_(reciprocal) TN_UNARY_(tanh) TN_UNARY_(sigmoid) TN_UNARY_(softplus) TN_UNARY_(erf)
TN_UNARY_(gelu) TN_UNARY_(gelu_tanh) TN_UNARY_(silu) TN_UNARY_(relu) TN_UNARY_(sin) TN_UNARY_(cos) TN_UNARY_(asin)
TN_UNARY_(acos) TN_UNARY_(atan) TN_UNARY_(abs) TN_UNARY_(sign) TN_UNARY_(floor) TN_UNARY_(ceil) TN_UNARY_(round)
TN_UNARY_(is_finite) TN_UNARY_(logical_not) TN_UNARY_(stop_gradient) TN_UNARY_(round_ste)
TN_UNARY_(cholesky) TN_UNARY_(inverse) TN_UNARY_(logdet)

TN_BINARY_(add) TN_BINARY_(sub) TN_BINARY_(mul) TN_BINARY_(div) TN_BINARY_(pow) TN_BINARY_(minimum)
TN_BINARY_(maximum) TN_BINARY_(equal) TN_BINARY_(not_equal) TN_BINARY_(less) TN_BINARY_(less_equal)
TN_BINARY_(greater) TN_BINARY_(greater_equal) TN_BINARY_(logical_and) TN_BINARY_(logical_or)

TN_REDUCE_(sum) TN_REDUCE_(mean) TN_REDUCE_(max) TN_REDUCE_(min) TN_REDUCE_(prod) TN_REDUCE_(logsumexp)
TN_REDUCE_(any) TN_REDUCE_(all)

TN_ALONG_(softmax) TN_ALONG_(log_softmax) TN_ALONG_(cumsum) TN_ALONG_(cumprod) TN_ALONG_(cummax)
TN_ALONG_(argmax) TN_ALONG_(argmin) TN_ALONG_(squeeze) TN_ALONG_(unsqueeze)

TN_OPERATOR_(+, add) TN_OPERATOR_(-, sub) TN_OPERATOR_(*, mul) TN_OPERATOR_(/, div)
TN_OPERATOR_(<, less) TN_OPERATOR_(<=, less_equal) TN_OPERATOR_(>, greater) TN_OPERATOR_(>=, greater_equal)
// clang-format on
#undef TN_UNARY_
#undef TN_BINARY_
#undef TN_REDUCE_
#undef TN_ALONG_
#undef TN_OPERATOR_
                                                                        inline Tensor
                                                                        operator-(Tensor x) {
  return neg(x);
}
inline Tensor operator&(Tensor a, Tensor b) { return logical_and(a, b); }
inline Tensor operator|(Tensor a, Tensor b) { return logical_or(a, b); }

inline Tensor where(Tensor cond, Tensor a, Tensor b) {
  static thread_local Op op{"where/1"};
  return op({cond, a, b});
}
inline Tensor where(Tensor cond, Tensor a, double b) { return where(cond, a, scalar_like(a, b)); }
inline Tensor where(Tensor cond, double a, Tensor b) { return where(cond, scalar_like(b, a), b); }
inline Tensor clamp(Tensor x, double lo, double hi) {  // structural; minimum and maximum take runtime bounds
  static thread_local Op op{"clamp/1"};
  return op({x}, {attr("min", lo), attr("max", hi)});
}
inline Tensor leaky_relu(Tensor x, double slope) {
  static thread_local Op op{"leaky_relu/1"};
  return op({x}, {attr("slope", slope)});
}
inline Tensor cast(Tensor x, tn_dtype dtype) {
  if (x && x.dtype() == dtype) return x;
  static thread_local Op op{"cast/1"};
  return op({x}, {attr("dtype", int64_t{dtype})});
}
inline Tensor cast_like(Tensor x, Tensor like) { return like ? cast(x, like.dtype()) : Tensor{}; }
inline Tensor var(Tensor x, const Dims& axes = {}, bool keepdims = false, int64_t ddof = 0) {
  static thread_local Op op{"var/1"};
  return op({x}, {attr("axes", axes), attr("keepdims", int64_t{keepdims}), attr("ddof", ddof)});
}
inline Tensor reshape(Tensor x, const Dims& shape) {
  static thread_local Op op{"reshape/1"};
  return op({x}, {attr("shape", shape)});
}
inline Tensor flatten(Tensor x) { return reshape(x, {-1}); }
inline Tensor transpose(Tensor x, const Dims& perm = {}) {
  static thread_local Op op{"transpose/1"};
  return op({x}, {attr("perm", perm)});
}
inline Tensor broadcast_to(Tensor x, const Dims& shape) {
  static thread_local Op op{"broadcast_to/1"};
  return op({x}, {attr("shape", shape)});
}
inline Tensor full_like(Tensor x, double v) { return broadcast_to(scalar_like(x, v), x.shape()); }
inline Tensor zeros_like(Tensor x) { return broadcast_to(constant_like(x, 0), x.shape()); }
inline Tensor ones_like(Tensor x) { return broadcast_to(constant_like(x, 1), x.shape()); }
inline Tensor concat(const std::vector<Tensor>& xs, int axis = 0) {
  static thread_local Op op{"concat/1"};
  return op.call<1>(xs.data(), xs.size(), {attr("axis", int64_t{axis})})[0];
}
inline Tensor slice(Tensor x, const Dims& start, const Dims& stop, const Dims& step = {}) {
  static thread_local Op op{"slice/1"};
  return op({x}, {attr("start", start), attr("stop", stop), attr("step", step)});
}
// Elements [start, start + length) of one axis.
inline Tensor narrow(Tensor x, int axis, int64_t start, int64_t length) {
  Dims from, to = x.shape();
  if (axis < 0) axis += static_cast<int>(to.n);
  from.n = to.n;
  if (axis < 0 || static_cast<uint32_t>(axis) >= to.n) throw Error("narrow: there is no such axis");
  from.at[axis] = start;
  to.at[axis] = start + length;
  return slice(x, from, to);
}
inline Tensor pad(Tensor x, const Dims& low, const Dims& high, double value = 0) {
  static thread_local Op op{"pad/1"};
  return op({x}, {attr("low", low), attr("high", high), attr("value", value)});
}
inline Tensor flip(Tensor x, const Dims& axes) {
  static thread_local Op op{"flip/1"};
  return op({x}, {attr("axes", axes)});
}
inline Tensor gather(Tensor x, Tensor idx, int axis = 0) {
  static thread_local Op op{"gather/1"};
  return op({x, idx}, {attr("axis", int64_t{axis})});
}
inline Tensor scatter_add(Tensor base, Tensor idx, Tensor src, int axis = 0) {
  static thread_local Op op{"scatter_add/1"};
  return op({base, idx, src}, {attr("axis", int64_t{axis})});
}
inline Tensor take_along_axis(Tensor x, Tensor idx, int axis = -1) {
  static thread_local Op op{"take_along_axis/1"};
  return op({x, idx}, {attr("axis", int64_t{axis})});
}
// Class numbers that arrived as another type, as indices.
inline Tensor as_index(Tensor x) { return x.dtype() == TN_I32 ? x : cast(x, TN_I64); }
// How often 0 .. n-1 occur: i64 [n].
inline Tensor bincount(Tensor idx, int64_t n) {
  static thread_local Op op{"bincount/1"};
  return op({idx}, {attr("n", n)});
}
// x: [.., C], idx: [..] -> [..]: x's element idx of each row.
inline Tensor pick(Tensor x, Tensor idx) { return squeeze(take_along_axis(x, unsqueeze(idx, -1), -1), -1); }
inline Tensor one_hot(Tensor idx, int64_t depth, tn_dtype dtype = TN_F32) {
  static thread_local Op op{"one_hot/1"};
  return op({idx}, {attr("depth", depth), attr("dtype", int64_t{dtype})});
}
inline Tensor matmul(Tensor a, Tensor b, bool transpose_a = false, bool transpose_b = false) {
  static thread_local Op op{"matmul/1"};
  return op({a, b}, {attr("transpose_a", int64_t{transpose_a}), attr("transpose_b", int64_t{transpose_b})});
}
inline Tensor solve(Tensor a, Tensor b) {
  static thread_local Op op{"solve/1"};
  return op({a, b});
}
inline Tensor triangular_solve(Tensor t, Tensor b, bool lower = true, bool transpose = false) {
  static thread_local Op op{"triangular_solve/1"};
  return op({t, b}, {attr("lower", int64_t{lower}), attr("transpose_a", int64_t{transpose})});
}
inline std::array<Tensor, 2> eigh(Tensor a) {  // values, vectors
  static thread_local Op op{"eigh/1"};
  return op.call<2>(&a, 1);
}
// Fused -log softmax(logits)[label] (PyTorch's label smoothing): [.., C], [..] -> [..]
inline Tensor cross_entropy(Tensor logits, Tensor labels, double label_smoothing = 0,
                            int64_t ignore_index = -100) {
  static thread_local Op op{"cross_entropy/1"};
  return op({logits, labels}, {attr("label_smoothing", label_smoothing), attr("ignore_index", ignore_index)});
}
inline std::array<Tensor, 2> sort(Tensor x, int axis = -1, bool descending = false) {  // values, indices
  static thread_local Op op{"sort/1"};
  return op.call<2>(&x, 1, {attr("axis", int64_t{axis}), attr("descending", int64_t{descending})});
}
inline Tensor argsort(Tensor x, int axis = -1, bool descending = false) {
  static thread_local Op op{"argsort/1"};
  return op({x}, {attr("axis", int64_t{axis}), attr("descending", int64_t{descending})});
}
inline std::array<Tensor, 2> top_k(Tensor x, int64_t k, int axis = -1) {  // values, indices
  static thread_local Op op{"top_k/1"};
  return op.call<2>(&x, 1, {attr("k", k), attr("axis", int64_t{axis})});
}
inline Tensor fold_in(Tensor key, int64_t number) {  // another key
  static thread_local Op op{"fold_in/1"};
  return op({key}, {attr("number", number)});
}
inline Tensor random_uniform(Tensor key, const Dims& shape, tn_dtype dtype = TN_F32) {
  static thread_local Op op{"random_uniform/1"};
  return op({key}, {attr("shape", shape), attr("dtype", int64_t{dtype})});
}
inline Tensor random_normal(Tensor key, const Dims& shape, tn_dtype dtype = TN_F32) {
  static thread_local Op op{"random_normal/1"};
  return op({key}, {attr("shape", shape), attr("dtype", int64_t{dtype})});
}
inline Tensor random_exponential(Tensor key, const Dims& shape, tn_dtype dtype = TN_F32) {
  static thread_local Op op{"random_exponential/1"};
  return op({key}, {attr("shape", shape), attr("dtype", int64_t{dtype})});
}
inline Tensor random_permutation(Tensor key, int64_t n) {
  static thread_local Op op{"random_permutation/1"};
  return op({key}, {attr("n", n)});
}
inline Tensor random_bernoulli(Tensor key, Tensor p) {
  static thread_local Op op{"random_bernoulli/1"};
  return op({key, p});
}
inline Tensor random_categorical(Tensor key, Tensor logits) {
  static thread_local Op op{"random_categorical/1"};
  return op({key, logits});
}

// d(sum y seed)/dx for each x: graph again. seed null: ones.
inline std::vector<Tensor> grad(Tensor y, const std::vector<Tensor>& xs, Tensor seed = {}) {
  std::vector<tn_tensor> in, out(xs.size());
  for (const Tensor& x : xs) in.push_back(x.id);
  if (y.ctx) y.ctx->ops->grad(y.ctx, y.id, seed.id, in.data(), static_cast<uint32_t>(in.size()), out.data());
  std::vector<Tensor> result;
  for (tn_tensor t : out) result.push_back({y.ctx, t});
  return result;
}
inline Tensor grad(Tensor y, Tensor x) { return grad(y, std::vector<Tensor>{x})[0]; }

// Explicit evaluation: the number, or all elements in row-major order.
inline double value(Tensor x) {
  double v = 0;
  if (!x || x.ctx->ops->value(x.ctx, x.id, &v)) throw Error("a value could not be computed", TN_STATUS_STATE);
  return v;
}
inline std::vector<double> to_host(Tensor x) {
  const Tensor wide = cast(x, TN_F64);
  std::vector<double> v(static_cast<size_t>(x.numel()));
  if (!wide || wide.ctx->ops->to_host(wide.ctx, wide.id, v.data(), v.size() * sizeof(double)))
    throw Error("a value could not be computed", TN_STATUS_STATE);
  return v;
}

}  // namespace tn
