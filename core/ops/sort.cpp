// sort/1, argsort/1, top_k/1, searchsorted/1 and the quantiles composed of them.
#include "core/ops/sort.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>

#include "core/ops/elementwise.h"
#include "core/ops/families.h"
#include "core/ops/index.h"
#include "core/ops/kernel_util.h"
#include "core/ops/sample_values.h"
#include "core/ops/shape.h"

namespace tenon {
namespace {

// NaN is larger than every number, so that the order is total.
template <class T>
bool before(T a, T b) {
  const auto x = load(a), y = load(b);
  if constexpr (std::is_floating_point_v<decltype(x)>) {
    if (std::isnan(y)) return !std::isnan(x);
  }
  return x < y;
}

// Calls f(offsets of the first element of each line along `axis`) for all given strides.
template <int N, class F>
void for_each_line(const Shape& shape, int axis, const std::array<Strides, N>& strides, F&& f) {
  Shape outer = shape;
  outer[axis] = 1;
  for_each_offset<N>(outer, strides, f);
}

// The first k positions of a line in sorted order.
template <class T>
void rank_line(const T* x, int64_t stride, bool descending, size_t k, std::vector<int64_t>& order) {
  std::iota(order.begin(), order.end(), int64_t{0});
  const auto less = [&](int64_t i, int64_t j) {
    const T a = x[i * stride], b = x[j * stride];
    if (descending ? before(b, a) : before(a, b)) return true;
    if (descending ? before(a, b) : before(b, a)) return false;
    return i < j;
  };
  if (k == order.size())
    std::sort(order.begin(), order.end(), less);
  else
    std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(k), order.end(), less);
}

// Writes ranked values (unless null) and indices for every line of x.
Status rank_all(const View& x, int axis, bool descending, const View* values, const View& indices) {
  if (x.shape.numel() == 0) return Status::ok();
  dispatch(x.dtype, [&](auto t) {
    using T = decltype(t);
    std::vector<int64_t> order(static_cast<size_t>(x.shape[axis]));
    const auto k = static_cast<size_t>(indices.shape[axis]);
    const int64_t in_step = x.strides[axis], out_step = indices.strides[axis];
    for_each_line<2>(x.shape, axis, {x.strides, indices.strides}, [&](int64_t from, int64_t to) {
      rank_line(x.as<T>() + from, in_step, descending, k, order);
      for (size_t i = 0; i < k; ++i) {
        const int64_t at = to + static_cast<int64_t>(i) * out_step;
        indices.as<int64_t>()[at] = order[i];
        if (values) values->as<T>()[at] = x.as<T>()[from + order[i] * in_step];
      }
    });
  });
  return Status::ok();
}

int axis_of(const Attrs& attrs, int rank) {
  const int64_t axis = attrs.i("axis");
  return static_cast<int>(axis < 0 ? axis + rank : axis);
}

constexpr AttrSpec kSortAttrs[] = {{"axis", AttrKind::i64, false, -1}, {"descending", AttrKind::i64}};

Status infer_argsort(const InferArgs& a) {
  TN_RETURN_IF_ERROR(normalize_axis("argsort", a.attrs.i("axis"), a.in[0].shape.rank()).status());
  a.out = {{DType::i64, a.in[0].shape}};
  return Status::ok();
}

Status infer_sort(const InferArgs& a) {
  TN_RETURN_IF_ERROR(normalize_axis("sort", a.attrs.i("axis"), a.in[0].shape.rank()).status());
  a.out = {a.in[0], {DType::i64, a.in[0].shape}};
  return Status::ok();
}

Status plain_argsort(const KernelArgs& a) {
  const int axis = axis_of(a.attrs, a.in[0].shape.rank());
  return rank_all(a.in[0], axis, a.attrs.flag("descending"), nullptr, a.out[0]);
}

Status plain_sort(const KernelArgs& a) {
  const int axis = axis_of(a.attrs, a.in[0].shape.rank());
  return rank_all(a.in[0], axis, a.attrs.flag("descending"), &a.out[0], a.out[1]);
}

// The values' cotangents go back to where the values came from.
void vjp_ranked(VjpArgs& a) {
  if (!a.needed[0] || !a.cotangents[0].valid()) return;
  const int axis = axis_of(a.attrs, a.in[0].rank());
  a.grads[0] = put_along_axis_add(zeros_like(a.in[0]), a.out[1], a.cotangents[0], axis);
}

std::vector<Sample> sort_samples() {
  return {{{sample_f64({7}, -2, 2)}, AttrList().i(-1).i(0)},
          {{sample_f64({3, 1, 4}, -2, 2, 2)}, AttrList().i(0).i(1)},
          {{sample_f64({2, 5}, -2, 2, 3)}, AttrList().i(1).i(1)},
          {{sample_f64({1}, 0, 1)}, AttrList().i(0).i(0)},
          {{sample_f64({0, 3}, 0, 1)}, AttrList().i(0).i(0)}};
}

constexpr AttrSpec kTopKAttrs[] = {{"k", AttrKind::i64, true}, {"axis", AttrKind::i64, false, -1}};

Status infer_top_k(const InferArgs& a) {
  TN_ASSIGN(const int axis, normalize_axis("top_k", a.attrs.i("axis"), a.in[0].shape.rank()));
  const int64_t k = a.attrs.i("k");
  if (k < 0 || k > a.in[0].shape[axis])
    return invalid("top_k: k = " + std::to_string(k) + " does not fit axis " + std::to_string(axis) + " of " +
                   to_string(a.in[0]) + "; it must be between 0 and " + std::to_string(a.in[0].shape[axis]));
  Shape shape = a.in[0].shape;
  shape[axis] = k;
  a.out = {{a.in[0].dtype, shape}, {DType::i64, shape}};
  return Status::ok();
}

Status plain_top_k(const KernelArgs& a) {
  return rank_all(a.in[0], axis_of(a.attrs, a.in[0].shape.rank()), true, &a.out[0], a.out[1]);
}

std::vector<Sample> top_k_samples() {
  return {{{sample_f64({6}, -2, 2)}, AttrList().i(3).i(0)},
          {{sample_f64({3, 5}, -2, 2, 2)}, AttrList().i(2).i(-1)},
          {{sample_f64({4, 1, 3}, -2, 2, 3)}, AttrList().i(4).i(0)},
          {{sample_f64({2, 3}, 0, 1)}, AttrList().i(0).i(1)},
          {{sample_f64({0, 3}, 0, 1)}, AttrList().i(1).i(1)}};
}

constexpr AttrSpec kSearchAttrs[] = {{"right", AttrKind::i64}};

Status infer_searchsorted(const InferArgs& a) {
  if (a.in[0].shape.rank() != 1 || a.in[0].dtype != a.in[1].dtype)
    return invalid("searchsorted: wants edges of rank 1 and values of the same dtype, got " +
                   to_string(a.in[0]) + " and " + to_string(a.in[1]));
  a.out = {{DType::i64, a.in[1].shape}};
  return Status::ok();
}

Status plain_searchsorted(const KernelArgs& a) {
  const bool right = a.attrs.flag("right");
  dispatch(a.in[0].dtype, [&](auto t) {
    using T = decltype(t);
    const int64_t n = a.in[0].shape[0], step = a.in[0].strides[0];
    const T* edges = a.in[0].template as<T>();
    for_each_offset<2>(a.out[0].shape, {a.in[1].strides, a.out[0].strides}, [&](int64_t from, int64_t to) {
      const T x = a.in[1].template as<T>()[from];
      int64_t low = 0, high = n;
      while (low < high) {
        const int64_t mid = low + (high - low) / 2;
        const T e = edges[mid * step];
        if (right ? !before(x, e) : before(e, x))
          low = mid + 1;
        else
          high = mid;
      }
      a.out[0].template as<int64_t>()[to] = low;
    });
  });
  return Status::ok();
}

std::vector<Sample> searchsorted_samples() {
  const std::vector<double> edges = {-1, 0, 0, 2}, x = {-2, -1, 0, 1, 2, 3};
  const auto e = HostArray::of(edges);
  const auto v = HostArray::of<double>(std::span<const double>(x), Shape{2, 3});
  return {{{e, v}, AttrList().i(0)},
          {{e, v}, AttrList().i(1)},
          {{HostArray(DType::f64, {0}), v}, AttrList().i(0)}};
}

constinit const OpDef kArgsort = {.id = "argsort/1",
                                  .attrs = kSortAttrs,
                                  .infer = infer_argsort,
                                  .plain = plain_argsort,
                                  .samples = sort_samples};
constinit const OpDef kSort = {.id = "sort/1",
                               .n_out = 2,
                               .attrs = kSortAttrs,
                               .infer = infer_sort,
                               .vjp = vjp_ranked,
                               .plain = plain_sort,
                               .samples = sort_samples};
constinit const OpDef kTopK = {.id = "top_k/1",
                               .n_out = 2,
                               .attrs = kTopKAttrs,
                               .infer = infer_top_k,
                               .vjp = vjp_ranked,
                               .plain = plain_top_k,
                               .samples = top_k_samples};
constinit const OpDef kSearchsorted = {.id = "searchsorted/1",
                                       .min_in = 2,
                                       .max_in = 2,
                                       .attrs = kSearchAttrs,
                                       .infer = infer_searchsorted,
                                       .plain = plain_searchsorted,
                                       .samples = searchsorted_samples};

}  // namespace

Tensor argsort(Tensor x, int axis, bool descending) {
  return x.valid() ? x.graph().apply(kArgsort, {x}, AttrList().i(axis).i(descending)) : Tensor();
}

Ranked sort_with_indices(Tensor x, int axis, bool descending) {
  if (!x.valid()) return {};
  const Tensor y = x.graph().apply(kSort, {x}, AttrList().i(axis).i(descending));
  return {y, y.output(1)};
}

Tensor sort(Tensor x, int axis, bool descending) { return sort_with_indices(x, axis, descending).values; }

Ranked top_k(Tensor x, int64_t k, int axis) {
  if (!x.valid()) return {};
  const Tensor y = x.graph().apply(kTopK, {x}, AttrList().i(k).i(axis));
  return {y, y.output(1)};
}

Tensor quantile(Tensor x, double q, int axis) {
  const Tensor s = sort(x, axis);
  if (!s.valid()) return {};
  const int a = axis < 0 ? axis + s.rank() : axis;
  if (!(q >= 0 && q <= 1) || s.dim(a) == 0 || !is_floating(s.dtype())) {
    x.graph().fail(
        invalid("quantile: wants floating values, at least one along the axis, and q in [0, 1]; got " +
                to_string(TensorType{x.dtype(), x.shape()}) + " and q = " + std::to_string(q)));
    return {};
  }
  const double position = q * static_cast<double>(s.dim(a) - 1);
  const auto low = static_cast<int64_t>(position);
  const double fraction = position - static_cast<double>(low);
  Tensor y = narrow(s, a, low, 1);
  if (fraction > 0) y = y * (1 - fraction) + narrow(s, a, low + 1, 1) * fraction;
  return squeeze(y, a);
}

Tensor median(Tensor x, int axis) { return quantile(x, 0.5, axis); }

Tensor searchsorted(Tensor edges, Tensor x, bool right) {
  return x.valid() ? x.graph().apply(kSearchsorted, {edges, x}, AttrList().i(right)) : Tensor();
}

OpList sort_ops() {
  static constexpr const OpDef* ops[] = {&kArgsort, &kSort, &kTopK, &kSearchsorted};
  return ops;
}

}  // namespace tenon
