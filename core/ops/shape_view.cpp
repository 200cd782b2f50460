// Ops that re-address their input: reshape/1, squeeze/1, unsqueeze/1, transpose/1, broadcast_to/1, slice/1,
// flip/1; with contiguous/1, which makes a copy, and slice_grad/1, the derivative of slice/1.
#include <algorithm>

#include "core/ops/elementwise.h"
#include "core/ops/reduce.h"
#include "core/ops/sample_values.h"
#include "core/ops/shape_ops.h"

namespace tenon {
namespace {

// The plain kernel of a view op: the re-addressed elements, copied.
template <std::optional<ViewSpec> (*kView)(const Layout&, const Attrs&, const TensorType&)>
Status plain_view(const KernelArgs& a) {
  const View &in = a.in[0], &out = a.out[0];
  if (out.numel() == 0) return Status::ok();
  const auto spec = kView(in, a.attrs, {out.dtype, out.shape});
  if (!spec) return copy_elements(in, out);  // reshape: the order of the elements is the input's
  auto* data = static_cast<std::byte*>(in.data) + spec->offset * static_cast<int64_t>(size_of(in.dtype));
  return copy_elements(View(Layout(in.dtype, out.shape, spec->strides), data), out);
}

// --- reshape, squeeze, unsqueeze ---

constexpr AttrSpec kShapeAttrs[] = {{"shape", AttrKind::ints, true}};
constexpr AttrSpec kAxisAttrs[] = {{"axis", AttrKind::i64, true}};

Status infer_reshape(const InferArgs& a) {
  const TensorType& x = a.in[0];
  TN_ASSIGN(const Dims wanted, short_list("reshape", "shape", a.attrs.ints("shape")));
  Shape shape(wanted);
  int free = -1;
  for (int i = 0; i < shape.rank(); ++i) {
    if (shape[i] != -1) continue;
    if (free >= 0) return invalid("reshape: shape " + to_string(wanted) + " has more than one -1");
    free = i;
    shape[i] = 1;
  }
  TN_RETURN_IF_ERROR(check_shape("reshape", shape));
  const int64_t n = x.shape.numel(), rest = shape.numel();
  if (free >= 0 && rest > 0 && n % rest == 0) shape[free] = n / rest;
  if (shape.numel() != n || (free >= 0 && rest == 0))
    return invalid("reshape: " + to_string(x) + " does not fit shape " + to_string(wanted) + "; it has " +
                   std::to_string(n) + " elements");
  a.out = {{x.dtype, shape}};
  return Status::ok();
}

Status infer_squeeze(const InferArgs& a) {
  const TensorType& x = a.in[0];
  TN_ASSIGN(const int axis, normalize_axis("squeeze", a.attrs.i("axis"), x.shape.rank()));
  if (x.shape[axis] != 1)
    return invalid("squeeze: axis " + std::to_string(axis) + " of " + to_string(x) + " does not have size 1");
  a.out = {x};
  a.out[0].shape.erase(axis);
  return Status::ok();
}

Status infer_unsqueeze(const InferArgs& a) {
  const TensorType& x = a.in[0];
  if (x.shape.rank() == kMaxRank)
    return invalid("unsqueeze: " + to_string(x) + " has as many axes as a tensor may have");
  TN_ASSIGN(const int axis, normalize_axis("unsqueeze", a.attrs.i("axis"), x.shape.rank() + 1));
  a.out = {x};
  a.out[0].shape.insert(axis, 1);
  return Status::ok();
}

// Strides of the same elements under another shape. Axes of both shapes are matched in groups of equal size;
// a group can be split or merged where the input's axes in it lie as if they were one.
std::optional<ViewSpec> view_reshape(const Layout& in, const Attrs&, const TensorType& out) {
  const Shape& to = out.shape;
  if (in.contiguous()) return ViewSpec{0, to.strides()};
  Shape from;
  Strides strides;
  for (int i = 0; i < in.shape.rank(); ++i)
    if (in.shape[i] != 1) from.push_back(in.shape[i]), strides.push_back(in.strides[i]);
  ViewSpec spec{0, Dims::filled(to.rank(), 0)};
  int i = 0, j = 0;
  while (i < from.rank()) {
    int i_end = i + 1, j_end = j;
    int64_t size = from[i], covered = 1;
    while (covered != size || j_end == j) {
      if (covered < size || j_end == j)
        covered *= to[j_end++];
      else
        size *= from[i_end++];
    }
    for (int k = i; k + 1 < i_end; ++k)
      if (strides[k] != strides[k + 1] * from[k + 1]) return std::nullopt;
    int64_t stride = strides[i_end - 1];
    for (int k = j_end; k-- > j;) {
      spec.strides[k] = stride;
      stride *= to[k];
    }
    i = i_end;
    j = j_end;
  }
  return spec;  // what is left of the new axes has size 1
}

void vjp_reshape(VjpArgs& a) { a.grads[0] = reshape(a.cotangents[0], a.in[0].shape()); }

std::vector<Sample> reshape_samples() {
  return {{{sample_f64({3, 4}, -1, 1)}, AttrList().ints(Dims{2, 6})},
          {{sample_f64({2, 3, 5}, -1, 1)}, AttrList().ints(Dims{5, -1})},
          {{sample_f64({1}, -1, 1)}, AttrList().ints(Dims{})},
          {{sample_f64({}, -1, 1)}, AttrList().ints(Dims{1, 1})},
          {{sample_f64({0, 3}, -1, 1)}, AttrList().ints(Dims{3, 0, 2})}};
}
std::vector<Sample> squeeze_samples() {
  return {{{sample_f64({3, 1, 4}, -1, 1)}, AttrList().i(1)},
          {{sample_f64({1}, -1, 1)}, AttrList().i(-1)},
          {{sample_f64({0, 1}, -1, 1)}, AttrList().i(1)}};
}
std::vector<Sample> unsqueeze_samples() {
  return {{{sample_f64({3, 4}, -1, 1)}, AttrList().i(1)},
          {{sample_f64({3}, -1, 1)}, AttrList().i(-1)},
          {{sample_f64({}, -1, 1)}, AttrList().i(0)},
          {{sample_f64({0, 2}, -1, 1)}, AttrList().i(0)}};
}

// --- transpose ---

constexpr AttrSpec kPermAttrs[] = {{"perm", AttrKind::ints}};

// Axis of the input that each axis of the output is; empty: all in reverse.
Result<Axes> permutation(std::span<const int64_t> perm, int rank) {
  Axes p;
  if (perm.empty()) {
    for (int i = rank; i-- > 0;) p.push_back(i);
    return p;
  }
  TN_RETURN_IF_ERROR(normalize_axes("transpose", perm, rank).status());
  if (static_cast<int>(perm.size()) != rank)
    return invalid("transpose: perm " + to_string(Dims(perm)) +
                   " does not name every axis of a tensor of rank " + std::to_string(rank));
  for (int64_t axis : perm) p.push_back(axis < 0 ? axis + rank : axis);
  return p;
}

Status infer_transpose(const InferArgs& a) {
  TN_ASSIGN(const Axes perm, permutation(a.attrs.ints("perm"), a.in[0].shape.rank()));
  a.out = {a.in[0]};
  for (int i = 0; i < perm.size(); ++i) a.out[0].shape[i] = a.in[0].shape[static_cast<int>(perm[i])];
  return Status::ok();
}
std::optional<ViewSpec> view_transpose(const Layout& in, const Attrs& attrs, const TensorType&) {
  const Axes perm = permutation(attrs.ints("perm"), in.shape.rank()).value();
  ViewSpec spec;
  for (int64_t axis : perm) spec.strides.push_back(in.strides[static_cast<int>(axis)]);
  return spec;
}
void vjp_transpose(VjpArgs& a) {
  const Axes perm = permutation(a.attrs.ints("perm"), a.in[0].rank()).value();
  Axes inverse = perm;
  for (int i = 0; i < perm.size(); ++i) inverse[static_cast<int>(perm[i])] = i;
  a.grads[0] = transpose(a.cotangents[0], inverse);
}
std::vector<Sample> transpose_samples() {
  return {{{sample_f64({3, 5}, -1, 1)}, AttrList().ints(Dims{})},
          {{sample_f64({2, 3, 4}, -1, 1)}, AttrList().ints(Dims{2, 0, 1})},
          {{sample_f64({2, 1, 3, 2}, -1, 1)}, AttrList().ints(Dims{0, -1, 1, 2})},
          {{sample_f64({1}, -1, 1)}, AttrList().ints(Dims{0})},
          {{sample_f64({}, -1, 1)}, AttrList().ints(Dims{})},
          {{sample_f64({0, 3}, -1, 1)}, AttrList().ints(Dims{1, 0})}};
}

// --- broadcast_to ---

Status infer_broadcast_to(const InferArgs& a) {
  TN_ASSIGN(const Dims dims, short_list("broadcast_to", "shape", a.attrs.ints("shape")));
  const Shape shape(dims);
  TN_RETURN_IF_ERROR(check_shape("broadcast_to", shape));
  const auto both = broadcast_shapes(a.in[0].shape, shape);
  if (!both || *both != shape)
    return invalid("broadcast_to: " + to_string(a.in[0]) + " does not broadcast to " + to_string(shape) +
                   "; aligned at the last axis, its sizes must be equal or 1");
  a.out = {{a.in[0].dtype, shape}};
  return Status::ok();
}
std::optional<ViewSpec> view_broadcast(const Layout& in, const Attrs&, const TensorType& out) {
  return ViewSpec{0, broadcast_strides(in, out.shape)};
}
void vjp_broadcast_to(VjpArgs& a) { a.grads[0] = sum_to(a.cotangents[0], a.in[0].shape()); }
std::vector<Sample> broadcast_to_samples() {
  return {{{sample_f64({3, 1}, -1, 1)}, AttrList().ints(Dims{3, 4})},
          {{sample_f64({3}, -1, 1)}, AttrList().ints(Dims{2, 2, 3})},
          {{sample_f64({}, -1, 1)}, AttrList().ints(Dims{5})},
          {{sample_f64({1}, -1, 1)}, AttrList().ints(Dims{1})},
          {{sample_f64({1, 3}, -1, 1)}, AttrList().ints(Dims{0, 3})}};
}

// --- slice ---

constexpr AttrSpec kSliceAttrs[] = {
    {"start", AttrKind::ints, true}, {"stop", AttrKind::ints, true}, {"step", AttrKind::ints}};
constexpr AttrSpec kSliceGradAttrs[] = {{"shape", AttrKind::ints, true},
                                        {"start", AttrKind::ints, true},
                                        {"stop", AttrKind::ints, true},
                                        {"step", AttrKind::ints}};

// The range that the attributes mean for a tensor of `shape`, or what is wrong with it.
Result<SliceRange> slice_range(std::string_view op, const Attrs& attrs, const Shape& shape) {
  SliceRange r;
  TN_ASSIGN(r.start, short_list(op, "start", attrs.ints("start")));
  TN_ASSIGN(r.stop, short_list(op, "stop", attrs.ints("stop")));
  TN_ASSIGN(r.step, short_list(op, "step", attrs.ints("step")));
  const int rank = shape.rank();
  if (r.step.empty()) r.step = Dims::filled(rank, 1);
  if (r.start.size() != rank || r.stop.size() != rank || r.step.size() != rank)
    return invalid(std::string(op) + ": start " + to_string(r.start) + ", stop " + to_string(r.stop) +
                   " and step " + to_string(r.step) + " need one entry for each axis of shape " +
                   to_string(shape));
  for (int i = 0; i < rank; ++i) {
    const int64_t n = shape[i], start = r.start[i], stop = r.stop[i], step = r.step[i];
    const bool forward = step > 0;
    const bool inside = forward ? start >= 0 && start <= n && stop >= 0 && stop <= n
                                : start >= -1 && start < std::max<int64_t>(n, 1) && stop >= -1 &&
                                      stop < std::max<int64_t>(n, 1);
    if (step == 0 || step == std::numeric_limits<int64_t>::min() || !inside ||
        (!forward && n == 0 && start > stop))
      return invalid(std::string(op) + ": " + std::to_string(start) + " to " + std::to_string(stop) +
                     " in steps of " + std::to_string(step) + " does not fit axis " + std::to_string(i) +
                     " of shape " + to_string(shape));
  }
  return r;
}
Shape sliced_shape(const SliceRange& r) {
  Shape shape;
  for (int i = 0; i < r.start.size(); ++i) shape.push_back(slice_length(r.start[i], r.stop[i], r.step[i]));
  return shape;
}

Status infer_slice(const InferArgs& a) {
  TN_ASSIGN(const SliceRange r, slice_range("slice", a.attrs, a.in[0].shape));
  a.out = {{a.in[0].dtype, sliced_shape(r)}};
  return Status::ok();
}
// Where the elements of a range lie in a tensor.
ViewSpec slice_view(const SliceRange& r, const Strides& strides, const Shape& sliced) {
  ViewSpec spec;
  for (int i = 0; i < sliced.rank(); ++i) {
    if (sliced.numel() > 0) spec.offset += r.start[i] * strides[i];
    spec.strides.push_back(sliced[i] > 1 ? strides[i] * r.step[i] : strides[i]);
  }
  return spec;
}
std::optional<ViewSpec> view_slice(const Layout& in, const Attrs& attrs, const TensorType& out) {
  return slice_view(slice_range("slice", attrs, in.shape).value(), in.strides, out.shape);
}
void vjp_slice(VjpArgs& a) {
  const Tensor x = a.in[0], g = a.cotangents[0];
  const SliceRange r = slice_range("slice", a.attrs, x.shape()).value();
  a.grads[0] = slice_grad(g, x.shape(), r.start, r.stop, r.step);
}
std::vector<Sample> slice_samples() {
  return {{{sample_f64({4, 5}, -1, 1)}, AttrList().ints(Dims{1, 0}).ints(Dims{3, 5}).ints(Dims{})},
          {{sample_f64({7, 4}, -1, 1)}, AttrList().ints(Dims{0, 1}).ints(Dims{7, 4}).ints(Dims{3, 2})},
          {{sample_f64({6, 3}, -1, 1)}, AttrList().ints(Dims{5, 2}).ints(Dims{-1, 0}).ints(Dims{-2, -1})},
          {{sample_f64({1}, -1, 1)}, AttrList().ints(Dims{0}).ints(Dims{1}).ints(Dims{1})},
          {{sample_f64({3, 4}, -1, 1)}, AttrList().ints(Dims{2, 0}).ints(Dims{2, 4}).ints(Dims{})},
          {{sample_f64({}, -1, 1)}, AttrList().ints(Dims{}).ints(Dims{}).ints(Dims{})}};
}

// Zeros of `shape` with the input's elements at the positions of a slice.
Status infer_slice_grad(const InferArgs& a) {
  TN_ASSIGN(const Dims dims, short_list("slice_grad", "shape", a.attrs.ints("shape")));
  const Shape shape(dims);
  TN_RETURN_IF_ERROR(check_shape("slice_grad", shape));
  TN_ASSIGN(const SliceRange r, slice_range("slice_grad", a.attrs, shape));
  if (sliced_shape(r) != a.in[0].shape)
    return invalid("slice_grad: the range selects " + to_string(sliced_shape(r)) + ", the input is " +
                   to_string(a.in[0]));
  a.out = {{a.in[0].dtype, shape}};
  return Status::ok();
}
Status plain_slice_grad(const KernelArgs& a) {
  const View &g = a.in[0], &out = a.out[0];
  TN_ASSIGN(const SliceRange r, slice_range("slice_grad", a.attrs, out.shape));
  const ViewSpec spec = slice_view(r, out.strides, g.shape);
  dispatch(out.dtype, [&](auto t) {
    using T = decltype(t);
    std::fill_n(out.as<T>(), out.numel(), T{});
    for_each_offset<2>(g.shape, {g.strides, spec.strides}, [&](int64_t i, int64_t o) {
      out.template as<T>()[spec.offset + o] = g.template as<T>()[i];
    });
  });
  return Status::ok();
}
void vjp_slice_grad(VjpArgs& a) {
  const SliceRange r = slice_range("slice_grad", a.attrs, a.out[0].shape()).value();
  a.grads[0] = slice(a.cotangents[0], r.start, r.stop, r.step);
}
std::vector<Sample> slice_grad_samples() {
  return {{{sample_f64({2, 5}, -1, 1)},
           AttrList().ints(Dims{4, 5}).ints(Dims{1, 0}).ints(Dims{3, 5}).ints(Dims{})},
          {{sample_f64({3, 2}, -1, 1)},
           AttrList().ints(Dims{6, 3}).ints(Dims{5, 2}).ints(Dims{-1, 0}).ints(Dims{-2, -1})},
          {{sample_f64({1}, -1, 1)}, AttrList().ints(Dims{3}).ints(Dims{1}).ints(Dims{2}).ints(Dims{})},
          {{sample_f64({0, 4}, -1, 1)},
           AttrList().ints(Dims{3, 4}).ints(Dims{2, 0}).ints(Dims{2, 4}).ints(Dims{})}};
}

// --- flip ---

constexpr AttrSpec kAxesAttrs[] = {{"axes", AttrKind::ints, true}};

// As reductions do, an empty list means all axes.
Status infer_flip(const InferArgs& a) {
  TN_RETURN_IF_ERROR(normalize_axes("flip", a.attrs.ints("axes"), a.in[0].shape.rank()).status());
  a.out = {a.in[0]};
  return Status::ok();
}
std::optional<ViewSpec> view_flip(const Layout& in, const Attrs& attrs, const TensorType&) {
  const Axes axes = normalize_axes("flip", attrs.ints("axes"), in.shape.rank()).value();
  ViewSpec spec{0, in.strides};
  for (int64_t axis : axes) {
    const int i = static_cast<int>(axis);
    if (in.numel() > 0) spec.offset += (in.shape[i] - 1) * in.strides[i];
    spec.strides[i] = -in.strides[i];
  }
  return spec;
}
void vjp_flip(VjpArgs& a) { a.grads[0] = flip(a.cotangents[0], a.attrs.dims("axes")); }
std::vector<Sample> flip_samples() {
  return {{{sample_f64({3, 5}, -1, 1)}, AttrList().ints(Dims{1})},
          {{sample_f64({2, 3, 2}, -1, 1)}, AttrList().ints(Dims{-1, 0})},
          {{sample_f64({2, 3}, -1, 1)}, AttrList().ints(Dims{})},
          {{sample_f64({1}, -1, 1)}, AttrList().ints(Dims{0})},
          {{sample_f64({0, 2}, -1, 1)}, AttrList().ints(Dims{0})}};
}

// --- contiguous ---

Status infer_same(const InferArgs& a) {
  a.out = {a.in[0]};
  return Status::ok();
}
Status plain_contiguous(const KernelArgs& a) { return copy_elements(a.in[0], a.out[0]); }
void vjp_contiguous(VjpArgs& a) { a.grads[0] = a.cotangents[0]; }
std::vector<Sample> contiguous_samples() {
  return {{{sample_f64({3, 5}, -1, 1)}},
          {{sample_f64({1}, -1, 1)}},
          {{sample_f64({}, -1, 1)}},
          {{sample_f64({0, 2}, -1, 1)}}};
}

constinit const OpDef kReshape{.id = "reshape/1",
                               .attrs = kShapeAttrs,
                               .infer = infer_reshape,
                               .vjp = vjp_reshape,
                               .plain = plain_view<view_reshape>,
                               .samples = reshape_samples,
                               .view = view_reshape};
constinit const OpDef kSqueeze{.id = "squeeze/1",
                               .attrs = kAxisAttrs,
                               .infer = infer_squeeze,
                               .vjp = vjp_reshape,
                               .plain = plain_view<view_reshape>,
                               .samples = squeeze_samples,
                               .view = view_reshape};
constinit const OpDef kUnsqueeze{.id = "unsqueeze/1",
                                 .attrs = kAxisAttrs,
                                 .infer = infer_unsqueeze,
                                 .vjp = vjp_reshape,
                                 .plain = plain_view<view_reshape>,
                                 .samples = unsqueeze_samples,
                                 .view = view_reshape};
constinit const OpDef kTranspose{.id = "transpose/1",
                                 .attrs = kPermAttrs,
                                 .infer = infer_transpose,
                                 .vjp = vjp_transpose,
                                 .plain = plain_view<view_transpose>,
                                 .samples = transpose_samples,
                                 .view = view_transpose};
constinit const OpDef kBroadcastTo{.id = "broadcast_to/1",
                                   .attrs = kShapeAttrs,
                                   .infer = infer_broadcast_to,
                                   .vjp = vjp_broadcast_to,
                                   .plain = plain_view<view_broadcast>,
                                   .samples = broadcast_to_samples,
                                   .view = view_broadcast};
constinit const OpDef kSlice{.id = "slice/1",
                             .attrs = kSliceAttrs,
                             .infer = infer_slice,
                             .vjp = vjp_slice,
                             .plain = plain_view<view_slice>,
                             .samples = slice_samples,
                             .view = view_slice};
constinit const OpDef kSliceGrad{.id = "slice_grad/1",
                                 .attrs = kSliceGradAttrs,
                                 .infer = infer_slice_grad,
                                 .vjp = vjp_slice_grad,
                                 .plain = plain_slice_grad,
                                 .samples = slice_grad_samples};
constinit const OpDef kFlip{.id = "flip/1",
                            .attrs = kAxesAttrs,
                            .infer = infer_flip,
                            .vjp = vjp_flip,
                            .plain = plain_view<view_flip>,
                            .samples = flip_samples,
                            .view = view_flip};
constinit const OpDef kContiguous{.id = "contiguous/1",
                                  .infer = infer_same,
                                  .vjp = vjp_contiguous,
                                  .plain = plain_contiguous,
                                  .samples = contiguous_samples};

Tensor apply_with(const OpDef& op, Tensor x, const AttrList& attrs) {
  return x.valid() ? x.graph().apply(op, {x}, attrs) : Tensor();
}

}  // namespace

constinit const OpDef* const kViewOps[] = {&kReshape, &kSqueeze,   &kUnsqueeze, &kTranspose, &kBroadcastTo,
                                           &kSlice,   &kSliceGrad, &kFlip,      &kContiguous};

Tensor reshape(Tensor x, const Shape& shape) {
  return x.valid() && x.shape() == shape ? x : apply_with(kReshape, x, AttrList().ints(shape));
}
Tensor squeeze(Tensor x, int axis) { return apply_with(kSqueeze, x, AttrList().i(axis)); }
Tensor unsqueeze(Tensor x, int axis) { return apply_with(kUnsqueeze, x, AttrList().i(axis)); }
Tensor transpose(Tensor x, const Axes& perm) { return apply_with(kTranspose, x, AttrList().ints(perm)); }
Tensor broadcast_to(Tensor x, const Shape& shape) {
  return x.valid() && x.shape() == shape ? x : apply_with(kBroadcastTo, x, AttrList().ints(shape));
}
Tensor slice(Tensor x, const Dims& start, const Dims& stop, const Dims& step) {
  return apply_with(kSlice, x, AttrList().ints(start).ints(stop).ints(step));
}
Tensor slice_grad(Tensor g, const Shape& shape, const Dims& start, const Dims& stop, const Dims& step) {
  return apply_with(kSliceGrad, g, AttrList().ints(shape).ints(start).ints(stop).ints(step));
}
Tensor flip(Tensor x, const Axes& axes) { return apply_with(kFlip, x, AttrList().ints(axes)); }
Tensor contiguous(Tensor x) { return apply_with(kContiguous, x, {}); }

Tensor swap_axes(Tensor x, int a, int b) {
  if (!x.valid()) return {};
  const auto first = normalize_axis("swap_axes", a, x.rank()),
             second = normalize_axis("swap_axes", b, x.rank());
  if (!first || !second) {
    x.graph().fail(first ? second.status() : first.status());
    return {};
  }
  Axes perm;
  for (int i = 0; i < x.rank(); ++i) perm.push_back(i);
  std::swap(perm[*first], perm[*second]);
  return transpose(x, perm);
}

}  // namespace tenon
