// Linear and convolution layers.
#include <cmath>
#include <string>

#include "core/base/nearest.h"
#include "core/nn/layer_util.h"
#include "core/nn/layers.h"
#include "core/ops/ops.h"

namespace tenon::nn {
namespace {

// PyTorch's default for the bias of a layer whose outputs see `fan_in` numbers.
Initializer default_bias(int64_t fan_in) {
  const double bound = fan_in > 0 ? 1 / std::sqrt(static_cast<double>(fan_in)) : 0;
  return init::uniform(-bound, bound);
}

// The parameter that the weight is tied to, or null after recording why it can't be.
ParameterPtr find_tied(const Builder& b, const std::string& name, const Shape& shape) {
  const ParameterPtr p = b.find(name);
  if (!p) {
    b.fail("linear", "there is no parameter '" + name + "' to tie the weight to" +
                         did_you_mean(name, b.parameter_names()));
    return nullptr;
  }
  if (p->value.valid() && p->value.shape() != shape) {
    b.fail("linear", "the weight must be " + to_string(shape) + ", but '" + name + "' is " +
                         to_string(p->value.shape()));
    return nullptr;
  }
  return p;
}

// PyTorch's, beside its weights; zeros beside others.
Initializer bias_start(const Initializer& weight, const Initializer& bias, int64_t fan_in) {
  return bias ? bias : weight ? init::constant(0) : default_bias(fan_in);
}

}  // namespace

Layer linear(int64_t units, LinearOptions o) {
  return {"linear", [=](Builder& b, std::span<const TensorType> in) -> ModulePtr {
            if (!expect_floating(b, "linear", in, 1, "[.., I]")) return nullptr;
            if (units < 1)
              return b.fail("linear", "units is " + std::to_string(units) + "; it must be positive");
            const int64_t n = in[0].shape.back();
            const Shape shape{units, n};
            auto m = std::make_shared<Module>(b.path(), "linear");
            ParameterPtr w, bias;
            if (o.tied_to.empty())
              w = b.parameter("weight", shape, o.init ? o.init : init::torch_default(), Kind::weight);
            else if (!(w = find_tied(b, o.tied_to, shape)))
              return nullptr;
            m->own(w);
            if (o.bias)
              bias = m->own(
                  b.parameter("bias", {units}, bias_start(o.init, o.bias_init, n), Kind::bias));
            m->set_forward([w, bias](Context& c, std::span<const Tensor> x) {
              if (!c.mixed) return tenon::linear(x[0], c.parameter(*w), value_of(c, bias));
              return c.product(tenon::mixed_linear(c.operand(x[0]), c.parameter(*w), value_of(c, bias)));
            });
            return m;
          }};
}

namespace {

// kernel has one number per spatial axis; one-dimensional data is seen as height 1.
ModulePtr make_conv(Builder& b, std::span<const TensorType> in, std::string_view type, int64_t channels,
                    const std::vector<int64_t>& kernel, int axes, const ConvOptions& o) {
  const std::string wanted = axes == 1 ? "[N, C, L]" : "[N, C, H, W]";
  if (!expect_floating(b, type, in, axes + 2, wanted)) return nullptr;
  if (in[0].shape.rank() != axes + 2) return b.fail(type, "wants " + wanted + ", got " + to_string(in[0]));
  const auto k = per_axis(kernel, axes, 1), stride = per_axis(o.stride, axes, 1),
             padding = per_axis(o.padding, axes, 0), dilation = per_axis(o.dilation, axes, 1);
  if (kernel.empty() || !k || !stride || !padding || !dilation)
    return b.fail(type, "kernel, stride, padding and dilation must be one number or one for each of " +
                            std::to_string(axes) + " axes");
  const int64_t c_in = in[0].shape[1];
  if (channels < 1 || o.groups < 1 || c_in % o.groups != 0 || channels % o.groups != 0)
    return b.fail(type, "groups = " + std::to_string(o.groups) + " must divide the " + std::to_string(c_in) +
                            " input and the " + std::to_string(channels) + " output channels");
  Shape shape{channels, c_in / o.groups};
  for (int64_t size : *k) {
    if (size < 1) return b.fail(type, "the kernel's sizes must be positive");
    shape.push_back(size);
  }
  auto m = std::make_shared<Module>(b.path(), std::string(type));
  const ParameterPtr w =
      m->own(b.parameter("weight", shape, o.init ? o.init : init::torch_default(), Kind::weight));
  ParameterPtr bias;
  if (o.bias) bias = m->own(b.parameter("bias", {channels}, bias_start(o.init, {}, fan_of(shape).in), Kind::bias));
  Shape per_channel = Shape(Dims::filled(axes + 1, 1));
  per_channel[0] = channels;
  m->set_forward([=, s = *stride, p = *padding, d = *dilation, groups = o.groups](Context& c,
                                                                                  std::span<const Tensor> x) {
    const Tensor in0 = c.operand(x[0]), kernel_value = c.operand(c.parameter(*w));
    const Tensor y = c.product(axes == 1 ? tenon::conv1d(in0, kernel_value, s[0], p[0], d[0], groups)
                                         : tenon::conv2d(in0, kernel_value,
                                                         {.stride = s, .padding = p, .dilation = d, .groups = groups}));
    return bias ? y + tenon::reshape(c.parameter(*bias), per_channel) : y;
  });
  return m;
}

}  // namespace

Layer conv1d(int64_t channels, int64_t kernel, ConvOptions o) {
  return {"conv1d", [=](Builder& b, std::span<const TensorType> in) {
            return make_conv(b, in, "conv1d", channels, {kernel}, 1, o);
          }};
}

Layer conv2d(int64_t channels, std::vector<int64_t> kernel, ConvOptions o) {
  return {"conv2d", [=](Builder& b, std::span<const TensorType> in) {
            return make_conv(b, in, "conv2d", channels, kernel, 2, o);
          }};
}

}  // namespace tenon::nn
