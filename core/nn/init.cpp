#include "core/nn/init.h"

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "core/base/nearest.h"
#include "core/ops/eigen.h"

namespace tenon::nn {

namespace {

// A weight too large to exist is refused where it would be made; here its sizes only must not overflow.
int64_t saturating_product(int64_t a, int64_t b) {
  int64_t n;
  return __builtin_mul_overflow(a, b, &n) ? std::numeric_limits<int64_t>::max() : n;
}

}  // namespace

Fan fan_of(const Shape& weight) {
  if (weight.rank() < 2) return {weight.numel(), weight.numel()};
  int64_t kernel = 1;
  for (int i = 2; i < weight.rank(); ++i) kernel = saturating_product(kernel, weight[i]);
  return {saturating_product(weight[1], kernel), saturating_product(weight[0], kernel)};
}

namespace init {
namespace {

template <class Draw>
void fill(HostArray& a, Draw&& draw) {
  for (int64_t i = 0; i < a.numel(); ++i) a.set(i, draw());
}

double root_inverse(int64_t n) { return 1 / std::sqrt(static_cast<double>(std::max<int64_t>(n, 1))); }

void fill_uniform(HostArray& a, double low, double high, Philox& rng) {
  fill(a, [&] { return low + (high - low) * rng.uniform(); });
}

void fill_normal(HostArray& a, double mean, double std, Philox& rng) {
  fill(a, [&] { return mean + std * rng.normal(); });
}

}  // namespace

Initializer constant(double value) {
  return [=](HostArray& a, Fan, Philox&) { fill(a, [=] { return value; }); };
}

Initializer uniform(double low, double high) {
  return [=](HostArray& a, Fan, Philox& rng) { fill_uniform(a, low, high, rng); };
}

Initializer normal(double mean, double std) {
  return [=](HostArray& a, Fan, Philox& rng) { fill_normal(a, mean, std, rng); };
}

Initializer truncated_normal(double mean, double std) {
  return [=](HostArray& a, Fan, Philox& rng) {
    fill(a, [&] {
      double z = rng.normal();
      while (std::abs(z) > 2) z = rng.normal();
      return mean + std * z;
    });
  };
}

Initializer xavier_uniform(double gain) {
  return [=](HostArray& a, Fan fan, Philox& rng) {
    const double bound = gain * std::sqrt(6.0) * root_inverse(fan.in + fan.out);
    fill_uniform(a, -bound, bound, rng);
  };
}

Initializer xavier_normal(double gain) {
  return [=](HostArray& a, Fan fan, Philox& rng) {
    fill_normal(a, 0, gain * std::sqrt(2.0) * root_inverse(fan.in + fan.out), rng);
  };
}

Initializer kaiming_uniform(double a) {
  return [slope = a](HostArray& v, Fan fan, Philox& rng) {
    const double bound = std::sqrt(6 / (1 + slope * slope)) * root_inverse(fan.in);
    fill_uniform(v, -bound, bound, rng);
  };
}

Initializer kaiming_normal(double a) {
  return [slope = a](HostArray& v, Fan fan, Philox& rng) {
    fill_normal(v, 0, std::sqrt(2 / (1 + slope * slope)) * root_inverse(fan.in), rng);
  };
}

Initializer lecun_normal(double gain) {
  return [=](HostArray& a, Fan fan, Philox& rng) { fill(a, [&, std = gain * root_inverse(fan.in)] { return std * rng.normal(); }); };
}

Initializer torch_default() { return kaiming_uniform(std::sqrt(5.0)); }

Initializer orthogonal(double gain) {
  return [=](HostArray& a, Fan, Philox& rng) {
    const int64_t rows = a.shape().empty() ? 1 : a.shape()[0], cols = rows > 0 ? a.numel() / rows : 0;
    if (a.numel() == 0) return;
    RowMatrix<double> m(std::max(rows, cols), std::min(rows, cols));
    for (int64_t r = 0; r < m.rows(); ++r)
      for (int64_t c = 0; c < m.cols(); ++c) m(r, c) = rng.normal();
    const Eigen::HouseholderQR<RowMatrix<double>> qr(m);
    RowMatrix<double> q = qr.householderQ() * RowMatrix<double>::Identity(m.rows(), m.cols());
    for (int64_t c = 0; c < m.cols(); ++c)  // the sign of R's diagonal makes the distribution uniform
      if (qr.matrixQR()(c, c) < 0) q.col(c) = -q.col(c);
    for (int64_t i = 0; i < a.numel(); ++i) {
      const int64_t r = i / cols, c = i % cols;
      a.set(i, gain * (rows >= cols ? q(r, c) : q(c, r)));
    }
  };
}

namespace {

struct Named {
  std::string_view name, takes;  // the options it knows, in the order of Options
  Initializer (*make)(const Options&);
};

constexpr Named kNamed[] = {
    {"zeros", "", [](const Options&) { return constant(0); }},
    {"ones", "", [](const Options&) { return constant(1); }},
    {"constant", "value", [](const Options& o) { return constant(o.value.value_or(0)); }},
    {"uniform", "low high", [](const Options& o) { return uniform(o.low.value_or(0), o.high.value_or(1)); }},
    {"normal", "mean std", [](const Options& o) { return normal(o.mean.value_or(0), o.std.value_or(0.02)); }},
    {"truncated_normal", "mean std",
     [](const Options& o) { return truncated_normal(o.mean.value_or(0), o.std.value_or(0.02)); }},
    {"xavier_uniform", "gain", [](const Options& o) { return xavier_uniform(o.gain.value_or(1)); }},
    {"xavier_normal", "gain", [](const Options& o) { return xavier_normal(o.gain.value_or(1)); }},
    {"kaiming_uniform", "a", [](const Options& o) { return kaiming_uniform(o.a.value_or(0)); }},
    {"kaiming_normal", "a", [](const Options& o) { return kaiming_normal(o.a.value_or(0)); }},
    {"lecun_normal", "gain", [](const Options& o) { return lecun_normal(o.gain.value_or(1)); }},
    {"orthogonal", "gain", [](const Options& o) { return orthogonal(o.gain.value_or(1)); }},
    {"torch_default", "", [](const Options&) { return torch_default(); }},
};

}  // namespace

Result<Initializer> by_name(std::string_view name, const Options& o) {
  const Named* found = nullptr;
  std::vector<std::string_view> names;
  for (const Named& n : kNamed) {
    names.push_back(n.name);
    if (n.name == name) found = &n;
  }
  if (!found)
    return not_found("no initialiser is called '" + std::string(name) + "'" + did_you_mean(name, names));
  const std::pair<std::string_view, std::optional<double>> given[] = {
      {"value", o.value}, {"low", o.low},   {"high", o.high}, {"mean", o.mean},
      {"std", o.std},     {"gain", o.gain}, {"a", o.a}};
  for (const auto& [option, v] : given) {
    if (!v) continue;
    const std::string padded = " " + std::string(found->takes) + " ";
    if (padded.find(" " + std::string(option) + " ") == std::string::npos)
      return invalid("the initialiser '" + std::string(name) + "' has no option '" + std::string(option) +
                     "'" +
                     (found->takes.empty() ? "; it takes none" : "; it takes: " + std::string(found->takes)));
  }
  if (o.std.value_or(0) < 0) return invalid("the initialiser '" + std::string(name) + "' wants std >= 0");
  if (o.low.value_or(0) > o.high.value_or(1) && name == "uniform")
    return invalid("the initialiser 'uniform' wants low <= high");
  return found->make(o);
}

}  // namespace init
}  // namespace tenon::nn
