// Pooling over windows; x: [B, C, H, W].
//   max_pool2d: the gradient goes to the first largest element of each window, so that it is a gather
//   transposed. avg_pool2d: linear; its derivative's derivative is itself.
#include "core/ops/pool.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "core/ops/dense.h"
#include "core/ops/index.h"
#include "core/ops/pool_ops.h"
#include "core/ops/reduce.h"
#include "core/ops/sample_values.h"
#include "core/ops/shape.h"

namespace tenon {
namespace {

constexpr AttrSpec kPoolAttrs[] = {
    {"kernel", AttrKind::ints, true}, {"stride", AttrKind::ints}, {"padding", AttrKind::ints}};
constexpr AttrSpec kPoolGradAttrs[] = {{"kernel", AttrKind::ints, true},
                                       {"stride", AttrKind::ints},
                                       {"padding", AttrKind::ints},
                                       {"shape", AttrKind::ints, true}};

// Windows over the planes of x.
struct Windows {
  int64_t planes, h, w, oh, ow, kh, kw, stride_h, stride_w, top, left;

  static Result<Windows> make(std::string_view op, const Attrs& attrs, const Shape& x) {
    const auto fail = [&](const std::string& what) {
      return invalid(std::string(op) + " of " + to_string(x) + ": " + what);
    };
    if (x.rank() != 4) return fail("the input must be [B, C, H, W]");
    const auto kernel = attrs.ints("kernel"), padding = attrs.ints("padding");
    const auto stride = attrs.ints("stride").empty() ? kernel : attrs.ints("stride");
    if (kernel.size() != 2 || stride.size() != 2 || (!padding.empty() && padding.size() != 2))
      return fail("kernel, stride and padding take two numbers each (height, width)");
    Windows p{};
    p.planes = x[0] * x[1], p.h = x[2], p.w = x[3];
    p.kh = kernel[0], p.kw = kernel[1], p.stride_h = stride[0], p.stride_w = stride[1];
    if (!padding.empty()) p.top = padding[0], p.left = padding[1];
    if (std::min({p.kh, p.kw, p.stride_h, p.stride_w}) < 1)
      return fail("kernel and stride must be at least 1");
    if (p.top < 0 || p.left < 0 || 2 * p.top > p.kh || 2 * p.left > p.kw)
      return fail("padding must lie between 0 and half the kernel");
    if (p.h < 1 || p.w < 1 || p.h + 2 * p.top < p.kh || p.w + 2 * p.left < p.kw)
      return fail("the kernel " + to_string(Dims(kernel)) + " is larger than the padded input");
    p.oh = (p.h + 2 * p.top - p.kh) / p.stride_h + 1;
    p.ow = (p.w + 2 * p.left - p.kw) / p.stride_w + 1;
    return p;
  }

  Shape out(const Shape& x) const { return {x[0], x[1], oh, ow}; }

  // Calls f(output element, first row, last, first column, last) for each window of a plane, without the
  // padding.
  template <class F>
  void for_each(F&& f) const {
    for (int64_t i = 0; i < oh; ++i)
      for (int64_t j = 0; j < ow; ++j) {
        const int64_t r = i * stride_h - top, c = j * stride_w - left;
        f(i * ow + j, std::max<int64_t>(r, 0), std::min(r + kh, h), std::max<int64_t>(c, 0),
          std::min(c + kw, w));
      }
  }
  // Calls f(plane, output element, element of the plane with the window's first maximum).
  template <class A, class F>
  void for_each_max(const A* x, F&& f) const {
    for (int64_t p = 0; p < planes; ++p, x += h * w)
      for_each([&](int64_t at, int64_t r0, int64_t r1, int64_t c0, int64_t c1) {
        int64_t best = r0 * w + c0;
        for (int64_t r = r0; r < r1; ++r)
          for (int64_t c = c0; c < c1; ++c) {
            const A v = x[r * w + c];
            if (v > x[best] || (std::isnan(v) && !std::isnan(x[best]))) best = r * w + c;
          }
        f(p, at, best);
      });
  }
};

Status check_cotangent(std::string_view op, const TensorType& dy, DType dtype, const Shape& y) {
  if (dy == TensorType{dtype, y}) return Status::ok();
  return invalid(std::string(op) + ": dy is " + to_string(dy) + ", the pooled output is " +
                 to_string(TensorType{dtype, y}));
}

Status infer_pool(std::string_view op, const InferArgs& a, DType dtype) {
  TN_RETURN_IF_ERROR(want_floating(op, a.in[0]));
  TN_ASSIGN(const Windows p, Windows::make(op, a.attrs, a.in[0].shape));
  a.out = {{dtype, p.out(a.in[0].shape)}};
  return Status::ok();
}
Status infer_max(const InferArgs& a) { return infer_pool("max_pool2d", a, a.in[0].dtype); }
Status infer_max_indices(const InferArgs& a) { return infer_pool("max_pool2d_indices", a, DType::i64); }
Status infer_avg(const InferArgs& a) { return infer_pool("avg_pool2d", a, a.in[0].dtype); }

Status infer_max_grad(const InferArgs& a) {
  TN_RETURN_IF_ERROR(infer_pool("max_pool2d_grad", a, a.in[0].dtype));
  TN_RETURN_IF_ERROR(check_cotangent("max_pool2d_grad", a.in[1], a.in[0].dtype, a.out[0].shape));
  a.out = {a.in[0]};
  return Status::ok();
}

Status infer_avg_grad(const InferArgs& a) {
  TN_RETURN_IF_ERROR(want_floating("avg_pool2d_grad", a.in[0]));
  TN_ASSIGN(const Shape x, pooled_shape("avg_pool2d_grad", a.attrs));
  TN_ASSIGN(const Windows p, Windows::make("avg_pool2d_grad", a.attrs, x));
  TN_RETURN_IF_ERROR(check_cotangent("avg_pool2d_grad", a.in[0], a.in[0].dtype, p.out(x)));
  a.out = {{a.in[0].dtype, x}};
  return Status::ok();
}

Status plain_max(const KernelArgs& a) {
  TN_ASSIGN(const Windows p, Windows::make("max_pool2d", a.attrs, a.in[0].shape));
  return dispatch_floating(a.in[0].dtype, [&](auto t) {
    using T = decltype(t);
    const DenseView<T> x(a.in[0]);
    T* y = a.out[0].as<T>();
    p.for_each_max(x.data(), [&](int64_t plane, int64_t at, int64_t best) {
      y[plane * p.oh * p.ow + at] = store<T>(x[plane * p.h * p.w + best]);
    });
    return Status::ok();
  });
}

Status plain_max_indices(const KernelArgs& a) {
  TN_ASSIGN(const Windows p, Windows::make("max_pool2d_indices", a.attrs, a.in[0].shape));
  return dispatch_floating(a.in[0].dtype, [&](auto t) {
    const DenseView<decltype(t)> x(a.in[0]);
    int64_t* y = a.out[0].as<int64_t>();
    p.for_each_max(x.data(),
                   [&](int64_t plane, int64_t at, int64_t best) { y[plane * p.oh * p.ow + at] = best; });
    return Status::ok();
  });
}

Status plain_max_grad(const KernelArgs& a) {
  TN_ASSIGN(const Windows p, Windows::make("max_pool2d_grad", a.attrs, a.in[0].shape));
  return dispatch_floating(a.in[0].dtype, [&](auto t) {
    using T = decltype(t);
    const DenseView<T> x(a.in[0]), dy(a.in[1]);
    const DenseResult<T> dx(a.out[0]);
    p.for_each_max(x.data(), [&](int64_t plane, int64_t at, int64_t best) {
      dx[plane * p.h * p.w + best] += dy[plane * p.oh * p.ow + at];
    });
    return Status::ok();
  });
}

Status plain_avg(const KernelArgs& a) {
  TN_ASSIGN(const Windows p, Windows::make("avg_pool2d", a.attrs, a.in[0].shape));
  return dispatch_floating(a.in[0].dtype, [&](auto t) {
    using T = decltype(t);
    using A = Arith<T>;
    const DenseView<T> x(a.in[0]);
    T* y = a.out[0].as<T>();
    const A size = static_cast<A>(p.kh * p.kw);
    for (int64_t plane = 0; plane < p.planes; ++plane) {
      const A* from = x.data() + plane * p.h * p.w;
      p.for_each([&](int64_t at, int64_t r0, int64_t r1, int64_t c0, int64_t c1) {
        A sum = 0;
        for (int64_t r = r0; r < r1; ++r)
          for (int64_t c = c0; c < c1; ++c) sum += from[r * p.w + c];
        y[plane * p.oh * p.ow + at] = store<T>(sum / size);
      });
    }
    return Status::ok();
  });
}

Status plain_avg_grad(const KernelArgs& a) {
  TN_ASSIGN(const Windows p, Windows::make("avg_pool2d_grad", a.attrs, a.out[0].shape));
  return dispatch_floating(a.in[0].dtype, [&](auto t) {
    using T = decltype(t);
    using A = Arith<T>;
    const DenseView<T> dy(a.in[0]);
    const DenseResult<T> dx(a.out[0]);
    const A size = static_cast<A>(p.kh * p.kw);
    for (int64_t plane = 0; plane < p.planes; ++plane) {
      A* to = dx.data() + plane * p.h * p.w;
      p.for_each([&](int64_t at, int64_t r0, int64_t r1, int64_t c0, int64_t c1) {
        const A v = dy[plane * p.oh * p.ow + at] / size;
        for (int64_t r = r0; r < r1; ++r)
          for (int64_t c = c0; c < c1; ++c) to[r * p.w + c] += v;
      });
    }
    return Status::ok();
  });
}

Pool2dOptions options_of(const Attrs& attrs) {
  return {attrs.dims("kernel"), attrs.dims("stride"), attrs.dims("padding")};
}

void vjp_max(VjpArgs& a) { a.grads[0] = max_pool2d_grad(a.in[0], a.cotangents[0], options_of(a.attrs)); }

// In dy: what lies at the maxima. In x: the maxima do not move, so zero.
void vjp_max_grad(VjpArgs& a) {
  if (!a.needed[1]) return;
  const Shape x = a.in[0].shape(), y = a.in[1].shape();
  const Tensor at = reshape(max_pool2d_indices(a.in[0], options_of(a.attrs)), {y[0], y[1], y[2] * y[3]});
  const Tensor planes = reshape(a.cotangents[0], {x[0], x[1], x[2] * x[3]});
  a.grads[1] = reshape(take_along_axis(planes, at, 2), y);
}

void vjp_avg(VjpArgs& a) {
  const Shape x = a.in[0].shape();
  a.grads[0] = avg_pool2d_grad(a.cotangents[0], x, options_of(a.attrs));
}

void vjp_avg_grad(VjpArgs& a) { a.grads[0] = avg_pool2d(a.cotangents[0], options_of(a.attrs)); }

AttrList attributes(const Pool2dOptions& o) {
  return AttrList().ints(o.kernel).ints(o.stride).ints(o.padding);
}

struct SampleCase {
  Shape x;
  Pool2dOptions options;
  Shape y;
};

std::vector<SampleCase> sample_cases() {
  return {{{2, 3, 4, 6}, {{2, 2}}, {2, 3, 2, 3}},
          {{1, 2, 5, 7}, {{3, 2}, {2, 2}, {1, 1}}, {1, 2, 3, 4}},
          {{1, 2, 5, 5}, {{3, 3}, {1, 2}, {0, 1}}, {1, 2, 3, 3}},
          {{1, 1, 1, 1}, {{1, 1}}, {1, 1, 1, 1}},
          {{0, 2, 3, 3}, {{2, 2}}, {0, 2, 1, 1}}};
}

std::vector<Sample> pool_samples() {
  std::vector<Sample> samples;
  for (const SampleCase& c : sample_cases())
    samples.push_back({{sample_f64(c.x, -2, 2, 1)}, attributes(c.options)});
  return samples;
}

std::vector<Sample> max_grad_samples() {
  std::vector<Sample> samples;
  for (const SampleCase& c : sample_cases())
    samples.push_back({{sample_f64(c.x, -2, 2, 1), sample_f64(c.y, -1, 1, 2)}, attributes(c.options)});
  return samples;
}

std::vector<Sample> avg_grad_samples() {
  std::vector<Sample> samples;
  for (const SampleCase& c : sample_cases())
    samples.push_back({{sample_f64(c.y, -1, 1, 2)}, attributes(c.options).ints(c.x)});
  return samples;
}

Tensor apply(const OpDef& op, std::initializer_list<Tensor> in, const AttrList& attrs) {
  for (const Tensor& t : in)
    if (!t.valid()) return {};
  return in.begin()->graph().apply(op, in, attrs);
}

}  // namespace

constinit const OpDef kMaxPool2d = {.id = "max_pool2d/1",
                                    .attrs = kPoolAttrs,
                                    .infer = infer_max,
                                    .vjp = vjp_max,
                                    .plain = plain_max,
                                    .samples = pool_samples};
constinit const OpDef kMaxPool2dIndices = {.id = "max_pool2d_indices/1",
                                           .attrs = kPoolAttrs,
                                           .infer = infer_max_indices,
                                           .plain = plain_max_indices,
                                           .samples = pool_samples};
constinit const OpDef kMaxPool2dGrad = {.id = "max_pool2d_grad/1",
                                        .min_in = 2,
                                        .max_in = 2,
                                        .attrs = kPoolAttrs,
                                        .infer = infer_max_grad,
                                        .vjp = vjp_max_grad,
                                        .plain = plain_max_grad,
                                        .samples = max_grad_samples};
constinit const OpDef kAvgPool2d = {.id = "avg_pool2d/1",
                                    .attrs = kPoolAttrs,
                                    .infer = infer_avg,
                                    .vjp = vjp_avg,
                                    .plain = plain_avg,
                                    .samples = pool_samples};
constinit const OpDef kAvgPool2dGrad = {.id = "avg_pool2d_grad/1",
                                        .attrs = kPoolGradAttrs,
                                        .infer = infer_avg_grad,
                                        .vjp = vjp_avg_grad,
                                        .plain = plain_avg_grad,
                                        .samples = avg_grad_samples};
Tensor max_pool2d(Tensor x, const Pool2dOptions& o) { return apply(kMaxPool2d, {x}, attributes(o)); }
Tensor max_pool2d_indices(Tensor x, const Pool2dOptions& o) {
  return apply(kMaxPool2dIndices, {x}, attributes(o));
}
Tensor max_pool2d_grad(Tensor x, Tensor dy, const Pool2dOptions& o) {
  return apply(kMaxPool2dGrad, {x, dy}, attributes(o));
}
Tensor avg_pool2d(Tensor x, const Pool2dOptions& o) { return apply(kAvgPool2d, {x}, attributes(o)); }
Tensor avg_pool2d_grad(Tensor dy, const Shape& x_shape, const Pool2dOptions& o) {
  return apply(kAvgPool2dGrad, {dy}, attributes(o).ints(x_shape));
}
Tensor global_avg_pool2d(Tensor x) { return mean(x, {-2, -1}); }

}  // namespace tenon
