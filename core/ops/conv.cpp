// conv2d/1 and its two derivatives as ops. With <y, g> the trilinear form that they share,
//   y = conv(x, w):  dx = input_grad(w, g), dw = weight_grad(x, g)
// and each derivative is bilinear again, so that all vjps are made of the same three:
//   y[b, o, i, j] = sum_{c, p, q} w[o, c, p, q] x[b, c, i stride - top + p dilation, j stride - left + q
//   dilation]
#include "core/ops/conv.h"

#include <algorithm>
#include <string>

#include "core/ops/dense.h"
#include "core/ops/families.h"
#include "core/ops/pool_ops.h"
#include "core/ops/sample_values.h"
#include "core/ops/shape.h"

namespace tenon {
namespace {

constexpr AttrSpec kConvAttrs[] = {{"stride", AttrKind::ints},
                                   {"padding", AttrKind::ints},
                                   {"dilation", AttrKind::ints},
                                   {"groups", AttrKind::i64, false, 1}};
constexpr AttrSpec kInputGradAttrs[] = {{"stride", AttrKind::ints},
                                        {"padding", AttrKind::ints},
                                        {"dilation", AttrKind::ints},
                                        {"groups", AttrKind::i64, false, 1},
                                        {"shape", AttrKind::ints, true}};
constexpr AttrSpec kWeightGradAttrs[] = {{"stride", AttrKind::ints},
                                         {"padding", AttrKind::ints},
                                         {"dilation", AttrKind::ints},
                                         {"groups", AttrKind::i64, false, 1},
                                         {"kernel", AttrKind::ints, true}};

// An attribute of two numbers, or both `otherwise` when it is left out.
Result<Dims> pair_of(std::string_view op, const Attrs& attrs, std::string_view name, int64_t otherwise) {
  const auto v = attrs.ints(name);
  if (v.empty()) return Dims{otherwise, otherwise};
  if (v.size() == 2) return Dims(v);
  return invalid(std::string(op) + ": " + std::string(name) + " has " + std::to_string(v.size()) +
                 " numbers, it takes two (height, width)");
}

// Extents of one convolution: x [b, c, h, w], weight [o, c / groups, kh, kw], y [b, o, oh, ow].
struct Geometry {
  int64_t b, c, h, w, o, groups, kh, kw, oh, ow;
  int64_t stride_h, stride_w, dilation_h, dilation_w, top, left;

  static Result<Geometry> make(std::string_view op, const Attrs& attrs, const Shape& x, const Shape& weight) {
    const auto fail = [&](const std::string& what) {
      return invalid(std::string(op) + ": x " + to_string(x) + ", w " + to_string(weight) + ": " + what);
    };
    if (x.rank() != 4 || weight.rank() != 4)
      return fail("x must be [B, C, H, W] and w [O, C/groups, kh, kw]");
    TN_ASSIGN(const Dims stride, pair_of(op, attrs, "stride", 1));
    TN_ASSIGN(const Dims dilation, pair_of(op, attrs, "dilation", 1));
    const auto padding = attrs.ints("padding");
    if (!padding.empty() && padding.size() != 2 && padding.size() != 4)
      return fail("padding takes two numbers (height, width) or four (top, left, bottom, right)");
    const auto pad = [&](size_t side) -> int64_t {
      return padding.empty() ? 0 : padding[side % padding.size()];
    };
    Geometry g{};
    g.b = x[0], g.c = x[1], g.h = x[2], g.w = x[3];
    g.o = weight[0], g.kh = weight[2], g.kw = weight[3], g.groups = attrs.i("groups");
    g.stride_h = stride[0], g.stride_w = stride[1], g.dilation_h = dilation[0], g.dilation_w = dilation[1];
    g.top = pad(0), g.left = pad(1);
    if (*std::min_element(stride.begin(), stride.end()) < 1 ||
        *std::min_element(dilation.begin(), dilation.end()) < 1 || g.groups < 1 || g.kh < 1 || g.kw < 1)
      return fail("stride, dilation, groups and the kernel must be at least 1");
    for (size_t side = 0; side < 4; ++side)
      if (pad(side) < 0) return fail("padding must not be negative");
    if (std::max({stride[0], stride[1], dilation[0], dilation[1], pad(0), pad(1), pad(2), pad(3), g.kh,
                  g.kw}) > INT32_MAX)
      return fail("stride, dilation, padding or the kernel is too large");
    if (g.c != weight[1] * g.groups || g.o % g.groups != 0)
      return fail("with " + std::to_string(g.groups) + " group(s) w must be [O, " + std::to_string(g.c) +
                  "/groups, kh, kw] and O a multiple of groups");
    const int64_t room_h = g.h + g.top + pad(2) - g.dilation_h * (g.kh - 1) - 1;
    const int64_t room_w = g.w + g.left + pad(3) - g.dilation_w * (g.kw - 1) - 1;
    if (room_h < 0 || room_w < 0) return fail("the kernel is larger than the padded input");
    g.oh = room_h / g.stride_h + 1, g.ow = room_w / g.stride_w + 1;
    return g;
  }

  Shape x_shape() const { return {b, c, h, w}; }
  Shape w_shape() const { return {o, c / groups, kh, kw}; }
  Shape y_shape() const { return {b, o, oh, ow}; }

  // Calls f(first element of y, of x, the element of w, n) for every run: y moves by 1, x by stride_w.
  template <class F>
  void for_each_run(F&& f) const {
    const int64_t in_group = c / groups, out_group = o / groups;
    for (int64_t bi = 0; bi < b; ++bi)
      for (int64_t oi = 0; oi < o; ++oi)
        for (int64_t ci = 0; ci < in_group; ++ci)
          for (int64_t p = 0; p < kh; ++p)
            for (int64_t q = 0; q < kw; ++q) {
              const int64_t y_plane = (bi * o + oi) * oh;
              const int64_t x_plane = (bi * c + oi / out_group * in_group + ci) * h;
              const int64_t weight = ((oi * in_group + ci) * kh + p) * kw + q;
              const auto [i0, i1] = inside(p * dilation_h - top, stride_h, h, oh);
              const auto [j0, j1] = inside(q * dilation_w - left, stride_w, w, ow);
              if (j0 >= j1) continue;
              const int64_t x_col = j0 * stride_w + q * dilation_w - left;
              for (int64_t i = i0; i < i1; ++i)
                f((y_plane + i) * ow + j0, (x_plane + i * stride_h + p * dilation_h - top) * w + x_col,
                  weight, j1 - j0);
            }
  }

 private:
  // Outputs i of 0 .. n-1 with 0 <= i stride + shift < size, as [first, last).
  static std::pair<int64_t, int64_t> inside(int64_t shift, int64_t stride, int64_t size, int64_t n) {
    const int64_t first = shift >= 0 ? 0 : (-shift + stride - 1) / stride;
    const int64_t last = size - shift <= 0 ? 0 : (size - shift - 1) / stride + 1;
    return {first, std::min(last, n)};
  }
};

Status check_types(std::string_view op, const InferArgs& a) {
  TN_RETURN_IF_ERROR(want_floating(op, a.in[0]));
  return want_same_dtype(op, a.in);
}

Result<Geometry> input_grad_geometry(const Attrs& attrs, const Shape& w) {
  const auto shape = attrs.ints("shape");
  if (shape.size() != 4 || *std::min_element(shape.begin(), shape.end()) < 0)
    return invalid("conv2d_input_grad: shape must be that of the input, [B, C, H, W]");
  return Geometry::make("conv2d_input_grad", attrs, Shape(shape), w);
}

Result<Geometry> weight_grad_geometry(const Attrs& attrs, const Shape& x, const Shape& dy) {
  const auto kernel = attrs.ints("kernel");
  const int64_t groups = attrs.i("groups");
  if (kernel.size() != 2 || groups < 1 || x.rank() != 4 || dy.rank() != 4)
    return invalid(
        "conv2d_weight_grad: wants x and dy of rank 4, a kernel of two numbers and groups of at least 1; x "
        "is " +
        to_string(x) + ", dy " + to_string(dy));
  return Geometry::make("conv2d_weight_grad", attrs, x, {dy[1], x[1] / groups, kernel[0], kernel[1]});
}

Status check_cotangent(std::string_view op, const Geometry& g, const Shape& dy) {
  if (dy == g.y_shape()) return Status::ok();
  return invalid(std::string(op) + ": dy is " + to_string(dy) + ", the convolution's output is " +
                 to_string(g.y_shape()));
}

Status infer_conv2d(const InferArgs& a) {
  TN_RETURN_IF_ERROR(check_types("conv2d", a));
  TN_ASSIGN(const Geometry g, Geometry::make("conv2d", a.attrs, a.in[0].shape, a.in[1].shape));
  a.out = {{a.in[0].dtype, g.y_shape()}};
  return Status::ok();
}

Status infer_input_grad(const InferArgs& a) {
  TN_RETURN_IF_ERROR(check_types("conv2d_input_grad", a));
  TN_ASSIGN(const Geometry g, input_grad_geometry(a.attrs, a.in[0].shape));
  TN_RETURN_IF_ERROR(check_cotangent("conv2d_input_grad", g, a.in[1].shape));
  a.out = {{a.in[0].dtype, g.x_shape()}};
  return Status::ok();
}

Status infer_weight_grad(const InferArgs& a) {
  TN_RETURN_IF_ERROR(check_types("conv2d_weight_grad", a));
  TN_ASSIGN(const Geometry g, weight_grad_geometry(a.attrs, a.in[0].shape, a.in[1].shape));
  TN_RETURN_IF_ERROR(check_cotangent("conv2d_weight_grad", g, a.in[1].shape));
  a.out = {{a.in[0].dtype, g.w_shape()}};
  return Status::ok();
}

// to[i to_step] += factor * from[i from_step]
template <class A>
void axpy(A factor, const A* __restrict from, int64_t from_step, A* __restrict to, int64_t to_step,
          int64_t n) {
  if (from_step == 1 && to_step == 1)
    for (int64_t i = 0; i < n; ++i) to[i] += factor * from[i];
  else
    for (int64_t i = 0; i < n; ++i) to[i * to_step] += factor * from[i * from_step];
}

Status plain_conv2d(const KernelArgs& a) {
  TN_ASSIGN(const Geometry g, Geometry::make("conv2d", a.attrs, a.in[0].shape, a.in[1].shape));
  return dispatch_floating(a.in[0].dtype, [&](auto t) {
    using T = decltype(t);
    const DenseView<T> x(a.in[0]), w(a.in[1]);
    const DenseResult<T> y(a.out[0]);
    g.for_each_run([&](int64_t yi, int64_t xi, int64_t wi, int64_t n) {
      axpy(w[wi], x.data() + xi, g.stride_w, y.data() + yi, 1, n);
    });
    return Status::ok();
  });
}

Status plain_input_grad(const KernelArgs& a) {
  TN_ASSIGN(const Geometry g, input_grad_geometry(a.attrs, a.in[0].shape));
  return dispatch_floating(a.in[0].dtype, [&](auto t) {
    using T = decltype(t);
    const DenseView<T> w(a.in[0]), dy(a.in[1]);
    const DenseResult<T> dx(a.out[0]);
    g.for_each_run([&](int64_t yi, int64_t xi, int64_t wi, int64_t n) {
      axpy(w[wi], dy.data() + yi, 1, dx.data() + xi, g.stride_w, n);
    });
    return Status::ok();
  });
}

Status plain_weight_grad(const KernelArgs& a) {
  TN_ASSIGN(const Geometry g, weight_grad_geometry(a.attrs, a.in[0].shape, a.in[1].shape));
  return dispatch_floating(a.in[0].dtype, [&](auto t) {
    using T = decltype(t);
    const DenseView<T> x(a.in[0]), dy(a.in[1]);
    const DenseResult<T> dw(a.out[0]);
    g.for_each_run([&](int64_t yi, int64_t xi, int64_t wi, int64_t n) {
      Arith<T> sum = 0;
      for (int64_t i = 0; i < n; ++i) sum += dy[yi + i] * x[xi + i * g.stride_w];
      dw[wi] += sum;
    });
    return Status::ok();
  });
}

Conv2dOptions options_of(const Attrs& attrs) {
  return {attrs.dims("stride"), attrs.dims("padding"), attrs.dims("dilation"), attrs.i("groups")};
}

Dims kernel_of(const Shape& w) { return {w[2], w[3]}; }

void vjp_conv2d(VjpArgs& a) {
  const Tensor x = a.in[0], w = a.in[1], dy = a.cotangents[0];
  const Conv2dOptions o = options_of(a.attrs);
  const Shape x_shape = x.shape(), w_shape = w.shape();
  if (a.needed[0]) a.grads[0] = conv2d_input_grad(w, dy, x_shape, o);
  if (a.needed[1]) a.grads[1] = conv2d_weight_grad(x, dy, kernel_of(w_shape), o);
}

void vjp_input_grad(VjpArgs& a) {
  const Tensor w = a.in[0], dy = a.in[1], g = a.cotangents[0];
  const Conv2dOptions o = options_of(a.attrs);
  const Shape w_shape = w.shape();
  if (a.needed[0]) a.grads[0] = conv2d_weight_grad(g, dy, kernel_of(w_shape), o);
  if (a.needed[1]) a.grads[1] = conv2d(g, w, o);
}

void vjp_weight_grad(VjpArgs& a) {
  const Tensor x = a.in[0], dy = a.in[1], g = a.cotangents[0];
  const Conv2dOptions o = options_of(a.attrs);
  const Shape x_shape = x.shape();
  if (a.needed[0]) a.grads[0] = conv2d_input_grad(g, dy, x_shape, o);
  if (a.needed[1]) a.grads[1] = conv2d(x, g, o);
}

AttrList attributes(const Conv2dOptions& o) {
  return AttrList().ints(o.stride).ints(o.padding).ints(o.dilation).i(o.groups);
}

struct SampleCase {
  Shape x, w;
  Conv2dOptions options;
  Shape y;
};

std::vector<SampleCase> sample_cases() {
  return {{{2, 3, 5, 4}, {4, 3, 3, 2}, {}, {2, 4, 3, 3}},
          {{1, 2, 6, 5}, {2, 2, 3, 3}, {{2, 1}, {1, 1}, {1, 2}, 1}, {1, 2, 3, 3}},
          {{2, 4, 4, 3}, {6, 2, 2, 1}, {{1, 2}, {0, 1}, {1, 1}, 2}, {2, 6, 3, 3}},
          {{1, 2, 3, 3}, {2, 1, 2, 2}, {{1, 1}, {1, 0, 0, 2}, {1, 1}, 2}, {1, 2, 3, 4}},
          {{1, 1, 1, 1}, {1, 1, 1, 1}, {}, {1, 1, 1, 1}},
          {{1, 1, 1, 2}, {1, 1, 3, 3}, {{1, 1}, {3, 2}, {1, 1}, 1}, {1, 1, 5, 4}},
          {{0, 2, 3, 3}, {2, 2, 2, 2}, {}, {0, 2, 2, 2}}};
}

std::vector<Sample> conv2d_samples() {
  std::vector<Sample> samples;
  for (const SampleCase& c : sample_cases())
    samples.push_back({{sample_f64(c.x, -1, 1, 1), sample_f64(c.w, -1, 1, 2)}, attributes(c.options)});
  return samples;
}

std::vector<Sample> input_grad_samples() {
  std::vector<Sample> samples;
  for (const SampleCase& c : sample_cases())
    samples.push_back(
        {{sample_f64(c.w, -1, 1, 1), sample_f64(c.y, -1, 1, 2)}, attributes(c.options).ints(c.x)});
  return samples;
}

std::vector<Sample> weight_grad_samples() {
  std::vector<Sample> samples;
  for (const SampleCase& c : sample_cases())
    samples.push_back(
        {{sample_f64(c.x, -1, 1, 1), sample_f64(c.y, -1, 1, 2)}, attributes(c.options).ints(kernel_of(c.w))});
  return samples;
}

constinit const OpDef kConv2d = {.id = "conv2d/1",
                                 .min_in = 2,
                                 .max_in = 2,
                                 .attrs = kConvAttrs,
                                 .infer = infer_conv2d,
                                 .vjp = vjp_conv2d,
                                 .plain = plain_conv2d,
                                 .samples = conv2d_samples};
constinit const OpDef kConv2dInputGrad = {.id = "conv2d_input_grad/1",
                                          .min_in = 2,
                                          .max_in = 2,
                                          .attrs = kInputGradAttrs,
                                          .infer = infer_input_grad,
                                          .vjp = vjp_input_grad,
                                          .plain = plain_input_grad,
                                          .samples = input_grad_samples};
constinit const OpDef kConv2dWeightGrad = {.id = "conv2d_weight_grad/1",
                                           .min_in = 2,
                                           .max_in = 2,
                                           .attrs = kWeightGradAttrs,
                                           .infer = infer_weight_grad,
                                           .vjp = vjp_weight_grad,
                                           .plain = plain_weight_grad,
                                           .samples = weight_grad_samples};

}  // namespace

Tensor conv2d(Tensor x, Tensor w, const Conv2dOptions& options) {
  return x.valid() && w.valid() ? x.graph().apply(kConv2d, {x, w}, attributes(options)) : Tensor();
}

Tensor conv2d_input_grad(Tensor w, Tensor dy, const Shape& x_shape, const Conv2dOptions& options) {
  if (!w.valid() || !dy.valid()) return {};
  return w.graph().apply(kConv2dInputGrad, {w, dy}, attributes(options).ints(x_shape));
}

Tensor conv2d_weight_grad(Tensor x, Tensor dy, const Dims& kernel, const Conv2dOptions& options) {
  if (!x.valid() || !dy.valid()) return {};
  return x.graph().apply(kConv2dWeightGrad, {x, dy}, attributes(options).ints(kernel));
}

Tensor conv1d(Tensor x, Tensor w, int64_t stride, int64_t padding, int64_t dilation, int64_t groups) {
  if (!x.valid() || !w.valid()) return {};
  if (x.rank() != 3 || w.rank() != 3) {
    x.graph().fail(invalid("conv1d: x must be [B, C, T] and w [O, C/groups, k], got " + to_string(x.shape()) +
                           " and " + to_string(w.shape())));
    return {};
  }
  const Conv2dOptions options{{1, stride}, {0, padding}, {1, dilation}, groups};
  const Tensor y = conv2d(unsqueeze(x, 2), unsqueeze(w, 2), options);
  return y.valid() ? squeeze(y, 2) : Tensor();
}

OpList conv_ops() {
  static constexpr const OpDef* ops[] = {
      &kConv2d,        &kConv2dInputGrad, &kConv2dWeightGrad, &kMaxPool2d,         &kMaxPool2dIndices,
      &kMaxPool2dGrad, &kAvgPool2d,       &kAvgPool2dGrad,    &kAdaptiveAvgPool2d, &kAdaptiveAvgPool2dGrad};
  return ops;
}

}  // namespace tenon
