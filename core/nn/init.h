// Initial values of parameters, by their standard names (PyTorch's and Keras's).
#pragma once

#include <functional>
#include <optional>
#include <string_view>

#include "core/base/random.h"
#include "core/base/status.h"
#include "core/tensor/host_array.h"

namespace tenon::nn {

// Numbers of inputs and outputs that one output and one input of a layer see.
struct Fan {
  int64_t in = 1, out = 1;
};
// Weights are [out, in, kernel..]; vectors count as in = out = their length.
Fan fan_of(const Shape& weight);

// Fills an f32 or f64 array.
using Initializer = std::function<void(HostArray&, Fan, Philox&)>;

namespace init {

Initializer constant(double value);
Initializer uniform(double low, double high);
Initializer normal(double mean, double std);
// Normal, redrawn until within two standard deviations of the mean.
Initializer truncated_normal(double mean, double std);
// Glorot & Bengio 2010: variance 2 gain^2 / (in + out).
Initializer xavier_uniform(double gain = 1);
Initializer xavier_normal(double gain = 1);
// He et al. 2015 for leaky ReLU of slope a: variance 2 / ((1 + a^2) in).
Initializer kaiming_uniform(double a = 0);
Initializer kaiming_normal(double a = 0);
// LeCun et al. 1998: variance gain^2 / in.
Initializer lecun_normal(double gain = 1);
// Saxe et al. 2014: rows (or columns, the fewer) orthonormal, times gain. The weight is seen as [out, in *
// kernel].
Initializer orthogonal(double gain = 1);
// What PyTorch gives linear and convolution layers: U(-1/sqrt(in), 1/sqrt(in)).
Initializer torch_default();

// Numbers that an initialiser may be given; those it does not know are an error.
struct Options {
  std::optional<double> value = {}, low = {}, high = {}, mean = {}, std = {}, gain = {}, a = {};
};
// "zeros", "ones", "constant", "uniform", "normal", "truncated_normal", "xavier_uniform", "xavier_normal",
// "kaiming_uniform", "kaiming_normal", "lecun_normal", "orthogonal", "torch_default". The default std is
// 0.02.
Result<Initializer> by_name(std::string_view name, const Options& options = {});

}  // namespace init
}  // namespace tenon::nn
