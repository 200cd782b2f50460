// gather/1, scatter_add/1, take_along_axis/1, put_along_axis_add/1, one_hot/1, bincount/1.
// Indices are i32 or i64; one out of range is an error that names it.
#include "core/ops/index.h"

#include "core/ops/dense.h"
#include "core/ops/elementwise.h"
#include "core/ops/families.h"
#include "core/ops/sample_values.h"
#include "core/ops/shape.h"

namespace tenon {
namespace {

constexpr AttrSpec kAxisAttrs[] = {{"axis", AttrKind::i64}};

int axis_of(const Attrs& attrs, int rank) {
  const int64_t axis = attrs.i("axis");
  return static_cast<int>(axis < 0 ? axis + rank : axis);
}

Status want_indices(std::string_view op, const TensorType& t) {
  if (t.dtype == DType::i32 || t.dtype == DType::i64) return Status::ok();
  return invalid(std::string(op) + ": the indices are " + to_string(t) +
                 "; they must be i32 or i64 (cast them)");
}

// Row-major indices as i64, each checked to be in [0, n).
Result<std::vector<int64_t>> checked_indices(std::string_view op, const View& idx, int64_t n) {
  std::vector<int64_t> out;
  out.reserve(static_cast<size_t>(idx.numel()));
  const bool wide = idx.dtype == DType::i64;
  for_each_offset<1>(idx.shape, {idx.strides},
                     [&](int64_t o) { out.push_back(wide ? idx.as<int64_t>()[o] : idx.as<int32_t>()[o]); });
  for (size_t i = 0; i < out.size(); ++i)
    if (out[i] < 0 || out[i] >= n)
      return invalid(std::string(op) + ": index " + std::to_string(out[i]) + " at position " +
                     std::to_string(i) + " is outside [0, " + std::to_string(n) + ")");
  return out;
}

// --- gather and scatter_add: whole slices along an axis ---

// Sizes of a tensor around `axis`: before * n * after elements.
struct Around {
  int64_t before = 1, after = 1;
  Around(const Shape& shape, int axis) {
    for (int i = 0; i < axis; ++i) before *= shape[i];
    for (int i = axis + 1; i < shape.rank(); ++i) after *= shape[i];
  }
};

// x's shape with idx's in the place of `axis`.
Result<Shape> gathered_shape(std::string_view op, const TensorType& x, const Shape& idx, int axis) {
  if (x.shape.rank() - 1 + idx.rank() > kMaxRank)
    return invalid(std::string(op) + ": " + to_string(x) + " and indices of shape " + to_string(idx) +
                   " make more than " + std::to_string(kMaxRank) + " axes");
  Shape shape;
  for (int i = 0; i < axis; ++i) shape.push_back(x.shape[i]);
  for (int64_t d : idx) shape.push_back(d);
  for (int i = axis + 1; i < x.shape.rank(); ++i) shape.push_back(x.shape[i]);
  TN_RETURN_IF_ERROR(check_shape(op, shape));
  return shape;
}

Status infer_gather(const InferArgs& a) {
  TN_RETURN_IF_ERROR(want_indices("gather", a.in[1]));
  TN_ASSIGN(const int axis, normalize_axis("gather", a.attrs.i("axis"), a.in[0].shape.rank()));
  TN_ASSIGN(const Shape shape, gathered_shape("gather", a.in[0], a.in[1].shape, axis));
  a.out = {{a.in[0].dtype, shape}};
  return Status::ok();
}
Status plain_gather(const KernelArgs& a) {
  const View &x = a.in[0], &out = a.out[0];
  const int axis = axis_of(a.attrs, x.shape.rank());
  TN_ASSIGN(const std::vector<int64_t> idx, checked_indices("gather", a.in[1], x.shape[axis]));
  const Around around(x.shape, axis);
  Shape before, after;
  Strides before_strides, after_strides;
  for (int i = 0; i < x.shape.rank(); ++i) {
    if (i == axis) continue;
    (i < axis ? before : after).push_back(x.shape[i]);
    (i < axis ? before_strides : after_strides).push_back(x.strides[i]);
  }
  const bool rows = is_contiguous(after, after_strides);
  dispatch(x.dtype, [&](auto t) {
    using T = decltype(t);
    T* to = out.as<T>();
    for_each_offset<1>(before, {before_strides}, [&](int64_t base) {
      for (int64_t i : idx) {
        const T* from = x.template as<T>() + base + i * x.strides[axis];
        if (rows)
          to = std::copy_n(from, around.after, to);
        else
          for_each_offset<1>(after, {after_strides}, [&](int64_t o) { *to++ = from[o]; });
      }
    });
  });
  return Status::ok();
}
void vjp_gather(VjpArgs& a) {
  if (a.needed[0])
    a.grads[0] = scatter_add(zeros_like(a.in[0]), a.in[1], a.cotangents[0], axis_of(a.attrs, a.in[0].rank()));
}
std::vector<Sample> gather_samples() {
  return {{{sample_f64({4, 3}, -1, 1), sample_i64({2, 0, 2, 3, 1}, {5})}, AttrList().i(0)},
          {{sample_f64({2, 4, 3}, -1, 1), sample_i64({3, 0, 1, 1}, {2, 2})}, AttrList().i(1)},
          {{sample_f64({2, 3}, -1, 1), sample_i64({2}, {})}, AttrList().i(-1)},
          {{sample_f64({1}, -1, 1), sample_i64({0}, {1})}, AttrList().i(0)},
          {{sample_f64({3, 2}, -1, 1), sample_i64({}, {0})}, AttrList().i(0)}};
}

Status infer_scatter_add(const InferArgs& a) {
  const TensorType &base = a.in[0], &idx = a.in[1], &src = a.in[2];
  TN_RETURN_IF_ERROR(want_indices("scatter_add", idx));
  TN_ASSIGN(const int axis, normalize_axis("scatter_add", a.attrs.i("axis"), base.shape.rank()));
  TN_ASSIGN(const Shape shape, gathered_shape("scatter_add", base, idx.shape, axis));
  if (src != TensorType{base.dtype, shape} || base.dtype == DType::boolean)
    return invalid("scatter_add: for base " + to_string(base) + " and indices of shape " +
                   to_string(idx.shape) + " src must be " + to_string(TensorType{base.dtype, shape}) +
                   " (numbers), got " + to_string(src));
  a.out = {base};
  return Status::ok();
}

// Calls f(dense base as result, dense src) in the type of the output; bf16 adds up in f32. The result may lie in base.
template <class F>
void accumulate(const View& base, const View& src, const View& out, F&& f) {
  dispatch(out.dtype, [&](auto t) {
    using T = decltype(t);
    if constexpr (!std::is_same_v<T, bool>) {
      const DenseView<T> add(src);
      if constexpr (std::is_same_v<T, Arith<T>>)
        if (base.as<T>() == out.as<T>()) return f(out.as<T>(), add.data());
      DenseResult<T> result(out);
      int64_t i = 0;
      for_each_offset<1>(base.shape, {base.strides}, [&](int64_t o) { result[i++] = load(base.as<T>()[o]); });
      f(result.data(), add.data());
    }
  });
}
template <class A>
void add_to(A& sum, A v) {
  if constexpr (std::is_integral_v<A>)
    sum = static_cast<A>(static_cast<uint64_t>(sum) + static_cast<uint64_t>(v));
  else
    sum += v;
}

Status plain_scatter_add(const KernelArgs& a) {
  const View &base = a.in[0], &src = a.in[2], &out = a.out[0];
  const int axis = axis_of(a.attrs, base.shape.rank());
  const int64_t n = base.shape[axis];
  TN_ASSIGN(const std::vector<int64_t> idx, checked_indices("scatter_add", a.in[1], n));
  const Around around(base.shape, axis);
  accumulate(base, src, out, [&](auto* to, const auto* from) {
    for (int64_t b = 0; b < around.before; ++b)
      for (int64_t i : idx) {
        auto* row = to + (b * n + i) * around.after;
        for (int64_t k = 0; k < around.after; ++k) add_to(row[k], *from++);
      }
  });
  return Status::ok();
}
void vjp_scatter_add(VjpArgs& a) {
  if (a.needed[0]) a.grads[0] = a.cotangents[0];
  if (a.needed[2]) a.grads[2] = gather(a.cotangents[0], a.in[1], axis_of(a.attrs, a.in[0].rank()));
}
std::vector<Sample> scatter_add_samples() {
  return {
      {{sample_f64({4, 3}, -1, 1), sample_i64({2, 0, 2, 3, 1}, {5}), sample_f64({5, 3}, -1, 1, 2)},
       AttrList().i(0)},
      {{sample_f64({2, 4, 3}, -1, 1), sample_i64({3, 0, 1, 1}, {2, 2}), sample_f64({2, 2, 2, 3}, -1, 1, 2)},
       AttrList().i(1)},
      {{sample_f64({2, 3}, -1, 1), sample_i64({2}, {}), sample_f64({2}, -1, 1, 2)}, AttrList().i(-1)},
      {{sample_f64({1}, -1, 1), sample_i64({0}, {1}), sample_f64({1}, -1, 1, 2)}, AttrList().i(0)},
      {{sample_f64({3, 2}, -1, 1), sample_i64({}, {0}), sample_f64({0, 2}, -1, 1)}, AttrList().i(0)}};
}

// --- take_along_axis and put_along_axis_add: element by element ---

// Error unless idx has x's shape but along the axis.
Result<int> along_axis(std::string_view op, const Attrs& attrs, const TensorType& x, const TensorType& idx) {
  TN_RETURN_IF_ERROR(want_indices(op, idx));
  TN_ASSIGN(const int axis, normalize_axis(op, attrs.i("axis"), x.shape.rank()));
  Shape expected = x.shape;
  if (idx.shape.rank() == x.shape.rank()) expected[axis] = idx.shape[axis];
  if (idx.shape != expected)
    return invalid(std::string(op) + ": indices " + to_string(idx) + " must have the shape of " +
                   to_string(x) + " but along axis " + std::to_string(axis));
  return axis;
}

Status infer_take(const InferArgs& a) {
  TN_RETURN_IF_ERROR(along_axis("take_along_axis", a.attrs, a.in[0], a.in[1]).status());
  a.out = {{a.in[0].dtype, a.in[1].shape}};
  return Status::ok();
}
Status plain_take(const KernelArgs& a) {
  const View &x = a.in[0], &out = a.out[0];
  const int axis = axis_of(a.attrs, x.shape.rank());
  TN_ASSIGN(const std::vector<int64_t> idx, checked_indices("take_along_axis", a.in[1], x.shape[axis]));
  Strides along = x.strides;  // of x at index 0 of the axis
  along[axis] = 0;
  dispatch(x.dtype, [&](auto t) {
    using T = decltype(t);
    T* to = out.as<T>();
    size_t i = 0;
    for_each_offset<1>(out.shape, {along},
                       [&](int64_t o) { *to++ = x.template as<T>()[o + idx[i++] * x.strides[axis]]; });
  });
  return Status::ok();
}
void vjp_take(VjpArgs& a) {
  if (!a.needed[0]) return;
  const Tensor x = a.in[0], idx = a.in[1], g = a.cotangents[0];
  const int axis = axis_of(a.attrs, x.rank());
  if (idx.dim(axis) == 1) {  // one element a line: element-wise, so that it can be fused
    Shape along(Dims::filled(x.rank(), 1));
    along[axis] = x.dim(axis);
    const Tensor place = reshape(arange(x.graph(), x.dim(axis), idx.dtype()), along);
    a.grads[0] = where(equal(place, idx), g, constant_like(g, 0));
    return;
  }
  a.grads[0] = put_along_axis_add(zeros_like(x), idx, g, axis);
}
std::vector<Sample> take_samples() {
  return {{{sample_f64({2, 4}, -1, 1), sample_i64({3, 1, 1, 0, 2, 0}, {2, 3})}, AttrList().i(1)},
          {{sample_f64({3, 2, 2}, -1, 1), sample_i64({2, 0, 1, 1, 0, 0, 2, 2}, {2, 2, 2})}, AttrList().i(0)},
          {{sample_f64({3, 5}, -1, 1), sample_i64({4, 0, 2}, {3, 1})}, AttrList().i(-1)},
          {{sample_f64({1}, -1, 1), sample_i64({0}, {1})}, AttrList().i(0)},
          {{sample_f64({2, 3}, -1, 1), sample_i64({}, {2, 0})}, AttrList().i(1)}};
}

Status infer_put(const InferArgs& a) {
  const TensorType &base = a.in[0], &idx = a.in[1], &src = a.in[2];
  TN_RETURN_IF_ERROR(along_axis("put_along_axis_add", a.attrs, base, idx).status());
  if (src != TensorType{base.dtype, idx.shape} || base.dtype == DType::boolean)
    return invalid("put_along_axis_add: for base " + to_string(base) + " and indices of shape " +
                   to_string(idx.shape) + " src must be " + to_string(TensorType{base.dtype, idx.shape}) +
                   " (numbers), got " + to_string(src));
  a.out = {base};
  return Status::ok();
}
Status plain_put(const KernelArgs& a) {
  const View &base = a.in[0], &src = a.in[2], &out = a.out[0];
  const int axis = axis_of(a.attrs, base.shape.rank());
  TN_ASSIGN(const std::vector<int64_t> idx, checked_indices("put_along_axis_add", a.in[1], base.shape[axis]));
  Strides along = out.strides;
  along[axis] = 0;
  accumulate(base, src, out, [&](auto* to, const auto* from) {
    size_t i = 0;
    for_each_offset<1>(src.shape, {along}, [&](int64_t o) {
      add_to(to[o + idx[i] * out.strides[axis]], from[i]);
      ++i;
    });
  });
  return Status::ok();
}
void vjp_put(VjpArgs& a) {
  if (a.needed[0]) a.grads[0] = a.cotangents[0];
  if (a.needed[2]) a.grads[2] = take_along_axis(a.cotangents[0], a.in[1], axis_of(a.attrs, a.in[0].rank()));
}
std::vector<Sample> put_samples() {
  std::vector<Sample> samples = take_samples();
  for (Sample& s : samples) s.in.push_back(sample_f64(s.in[1].shape(), -1, 1, 2));
  return samples;
}

// --- one_hot, bincount ---

constexpr AttrSpec kOneHotAttrs[] = {{"depth", AttrKind::i64, true},
                                     {"dtype", AttrKind::i64, false, static_cast<int64_t>(DType::f32)}};

Status infer_one_hot(const InferArgs& a) {
  TN_RETURN_IF_ERROR(want_indices("one_hot", a.in[0]));
  TN_ASSIGN(const DType dtype, dtype_attr("one_hot", a.attrs.i("dtype")));
  Shape shape = a.in[0].shape;
  if (shape.rank() == kMaxRank || a.attrs.i("depth") < 0)
    return invalid("one_hot: depth " + std::to_string(a.attrs.i("depth")) + " for indices " +
                   to_string(a.in[0]) + "; wants a depth of at least 0 and at most " +
                   std::to_string(kMaxRank - 1) + " axes");
  shape.push_back(a.attrs.i("depth"));
  TN_RETURN_IF_ERROR(check_shape("one_hot", shape));
  a.out = {{dtype, shape}};
  return Status::ok();
}
Status plain_one_hot(const KernelArgs& a) {
  const View &idx = a.in[0], &out = a.out[0];
  const int64_t depth = out.shape.back();
  const bool wide = idx.dtype == DType::i64;
  dispatch(out.dtype, [&](auto t) {
    using T = decltype(t);
    T* row = out.as<T>();
    std::fill_n(row, out.numel(), T{});
    for_each_offset<1>(idx.shape, {idx.strides}, [&](int64_t o) {
      const int64_t i = wide ? idx.as<int64_t>()[o] : idx.as<int32_t>()[o];
      if (i >= 0 && i < depth) row[i] = store<T>(1);
      row += depth;
    });
  });
  return Status::ok();
}
std::vector<Sample> one_hot_samples() {
  const auto of = [](std::vector<int64_t> v, const Shape& shape, int64_t depth, DType t) {
    return Sample{{sample_i64(v, shape)}, AttrList().i(depth).i(static_cast<int64_t>(t))};
  };
  return {of({2, 0, -1, 3, 1}, {5}, 3, DType::f32), of({1, 0, 2, 2}, {2, 2}, 3, DType::f64),
          of({0}, {1}, 1, DType::i32), of({1}, {}, 2, DType::bf16), of({}, {0}, 4, DType::boolean)};
}

constexpr AttrSpec kCountAttrs[] = {{"n", AttrKind::i64, true}};

Status infer_bincount(const InferArgs& a) {
  TN_RETURN_IF_ERROR(want_indices("bincount", a.in[0]));
  const Shape shape{a.attrs.i("n")};
  TN_RETURN_IF_ERROR(check_shape("bincount", shape));
  a.out = {{DType::i64, shape}};
  return Status::ok();
}
Status plain_bincount(const KernelArgs& a) {
  const View& out = a.out[0];
  TN_ASSIGN(const std::vector<int64_t> idx, checked_indices("bincount", a.in[0], out.numel()));
  std::fill_n(out.as<int64_t>(), out.numel(), int64_t{0});
  for (int64_t i : idx) ++out.as<int64_t>()[i];
  return Status::ok();
}
std::vector<Sample> bincount_samples() {
  return {{{sample_i64({2, 0, 2, 4, 2}, {5})}, AttrList().i(5)},
          {{sample_i64({1, 0, 1, 1}, {2, 2})}, AttrList().i(3)},
          {{sample_i64({0}, {1})}, AttrList().i(1)},
          {{sample_i64({}, {0})}, AttrList().i(2)}};
}

constinit const OpDef kGather{.id = "gather/1",
                              .min_in = 2,
                              .max_in = 2,
                              .attrs = kAxisAttrs,
                              .infer = infer_gather,
                              .vjp = vjp_gather,
                              .plain = plain_gather,
                              .samples = gather_samples};
constinit const OpDef kScatterAdd{.id = "scatter_add/1",
                                  .min_in = 3,
                                  .max_in = 3,
                                  .attrs = kAxisAttrs,
                                  .infer = infer_scatter_add,
                                  .vjp = vjp_scatter_add,
                                  .plain = plain_scatter_add,
                                  .samples = scatter_add_samples};
constinit const OpDef kTake{.id = "take_along_axis/1",
                            .min_in = 2,
                            .max_in = 2,
                            .attrs = kAxisAttrs,
                            .infer = infer_take,
                            .vjp = vjp_take,
                            .plain = plain_take,
                            .samples = take_samples};
constinit const OpDef kPut{.id = "put_along_axis_add/1",
                           .min_in = 3,
                           .max_in = 3,
                           .attrs = kAxisAttrs,
                           .infer = infer_put,
                           .vjp = vjp_put,
                           .plain = plain_put,
                           .samples = put_samples};
constinit const OpDef kOneHot{.id = "one_hot/1",
                              .attrs = kOneHotAttrs,
                              .infer = infer_one_hot,
                              .plain = plain_one_hot,
                              .samples = one_hot_samples};
constinit const OpDef kBincount{.id = "bincount/1",
                                .attrs = kCountAttrs,
                                .infer = infer_bincount,
                                .plain = plain_bincount,
                                .samples = bincount_samples};

Tensor apply_indexed(const OpDef& op, std::initializer_list<Tensor> in, const AttrList& attrs) {
  for (const Tensor& t : in)
    if (!t.valid()) return {};
  return in.begin()->graph().apply(op, in, attrs);
}

}  // namespace

Tensor gather(Tensor x, Tensor idx, int axis) { return apply_indexed(kGather, {x, idx}, AttrList().i(axis)); }
Tensor scatter_add(Tensor base, Tensor idx, Tensor src, int axis) {
  return apply_indexed(kScatterAdd, {base, idx, src}, AttrList().i(axis));
}
Tensor take_along_axis(Tensor x, Tensor idx, int axis) {
  return apply_indexed(kTake, {x, idx}, AttrList().i(axis));
}
Tensor put_along_axis_add(Tensor base, Tensor idx, Tensor src, int axis) {
  return apply_indexed(kPut, {base, idx, src}, AttrList().i(axis));
}
Tensor one_hot(Tensor idx, int64_t depth, DType dtype) {
  return apply_indexed(kOneHot, {idx}, AttrList().i(depth).i(static_cast<int64_t>(dtype)));
}
Tensor bincount(Tensor idx, int64_t n) { return apply_indexed(kBincount, {idx}, AttrList().i(n)); }

Tensor embedding(Tensor table, Tensor idx) { return gather(table, idx, 0); }

Tensor segment_sum(Tensor x, Tensor segment, int64_t n) {
  if (!x.valid() || !segment.valid()) return {};
  if (x.rank() == 0 || segment.rank() != 1 || segment.dim(0) != x.dim(0)) {
    x.graph().fail(invalid("segment_sum: wants one segment number for each row of x, got x of shape " +
                           to_string(x.shape()) + " and segments of shape " + to_string(segment.shape())));
    return {};
  }
  Shape shape = x.shape();
  shape[0] = n;
  return scatter_add(zeros(x.graph(), shape, x.dtype()), segment, x, 0);
}

OpList index_ops() {
  static constexpr const OpDef* ops[] = {&kGather, &kScatterAdd, &kTake, &kPut, &kOneHot, &kBincount};
  return ops;
}

}  // namespace tenon
