// Random ops: known answers, reproducibility, and distributions at fixed keys (bounds of about five standard
// errors).
#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <numeric>

#include "core/base/random.h"
#include "core/ops/ops.h"
#include "core/runtime.h"
#include "tests/support/device.h"
#include "tests/support/values.h"

namespace tenon {
namespace {

using test::values;

struct Moments {
  double mean = 0, var = 0;
};
Moments moments(const std::vector<double>& v) {
  Moments m;
  const auto n = static_cast<double>(v.size());
  for (double x : v) m.mean += x / n;
  for (double x : v) m.var += (x - m.mean) * (x - m.mean) / n;
  return m;
}

// Kolmogorov-Smirnov: the largest gap between the empirical and the given distribution function, times
// sqrt(n). Above 1.95 with probability 0.001.
template <class Cdf>
double kolmogorov(std::vector<double> v, Cdf&& cdf) {
  std::sort(v.begin(), v.end());
  const auto n = static_cast<double>(v.size());
  double gap = 0;
  for (size_t i = 0; i < v.size(); ++i) {
    const double f = cdf(v[i]);
    gap = std::max({gap, f - static_cast<double>(i) / n, static_cast<double>(i + 1) / n - f});
  }
  return gap * std::sqrt(n);
}

double normal_cdf(double x) { return 0.5 * std::erfc(-x / std::sqrt(2.0)); }

TEST_CASE("philox gives the published answers") {
  // Random123, kat_vectors: philox4x32, 10 rounds.
  CHECK(philox(0, 0, 0) == std::array<uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(philox(~uint64_t{0}, ~uint64_t{0}, ~uint64_t{0}) ==
        std::array<uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(philox(0x299f31d0a4093822, 0x85a308d3243f6a88, 0x0370734413198a2e) ==
        std::array<uint32_t, 4>{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("a draw is a function of key and position") {
  auto rt = test::runtime();
  Graph g(*rt);
  for (DType t : {DType::f32, DType::f64}) {
    CAPTURE(name_of(t));
    const auto a = values(g, random_normal(g.key(7), {5}, t)),
               again = values(g, random_normal(g.key(7), {5}, t));
    const auto longer = values(g, random_normal(g.key(7), {3, 4}, t)),
               other = values(g, random_normal(g.key(8), {5}, t));
    CHECK(a == again);
    CHECK(std::equal(a.begin(), a.end(), longer.begin()));
    CHECK(a != other);
  }
}

TEST_CASE("the op and the host derive the same keys") {
  auto rt = test::runtime();
  Graph g(*rt);
  for (int64_t number : {int64_t{0}, int64_t{1}, int64_t{123456789}}) {
    auto derived = g.to_host(fold_in(g.key(42), number));
    REQUIRE(derived.is_ok());
    CHECK(static_cast<uint64_t>(derived->as<int64_t>()[0]) == split_key(42, static_cast<uint64_t>(number)));
  }
}

TEST_CASE("continuous draws have their distributions") {
  auto rt = test::runtime();
  Graph g(*rt);
  const Shape shape{20000};
  for (DType t : {DType::f32, DType::f64}) {
    CAPTURE(name_of(t));
    const auto u = values(g, random_uniform(g.key(1), shape, t));
    CHECK(*std::min_element(u.begin(), u.end()) >= 0);
    CHECK(*std::max_element(u.begin(), u.end()) < 1);
    CHECK(kolmogorov(u, [](double x) { return x; }) < 1.95);
    const auto z = values(g, random_normal(g.key(2), shape, t));
    CHECK(kolmogorov(z, normal_cdf) < 1.95);
    CHECK(std::abs(moments(z).mean) < 0.035);
    CHECK(std::abs(moments(z).var - 1) < 0.05);
    double lag = 0;  // neighbours share a Box-Muller pair and must still be uncorrelated
    for (size_t i = 0; i + 1 < z.size(); i += 2) lag += z[i] * z[i + 1] / 10000;
    CHECK(std::abs(lag) < 0.05);
    CHECK(kolmogorov(values(g, random_exponential(g.key(3), shape, t)),
                     [](double x) { return -std::expm1(-x); }) < 1.95);
    CHECK(kolmogorov(values(g, random_gumbel(g.key(4), shape, t)),
                     [](double x) { return std::exp(-std::exp(-x)); }) < 1.95);
  }
}

TEST_CASE("gamma draws have mean and variance alpha") {
  auto rt = test::runtime();
  Graph g(*rt);
  const int64_t n = 20000;
  for (double alpha : {0.3, 1.0, 4.5}) {
    CAPTURE(alpha);
    const auto v = values(g, random_gamma(g.key(5), full(g, {n}, alpha, DType::f64)));
    const Moments m = moments(v);
    CHECK(*std::min_element(v.begin(), v.end()) >= 0);
    CHECK(std::abs(m.mean - alpha) < 5 * std::sqrt(alpha / static_cast<double>(n)));
    CHECK(std::abs(m.var - alpha) < 0.1 * alpha);
  }
  // Gamma(1) is the exponential distribution.
  const auto e = values(g, random_gamma(g.key(6), ones(g, {n}, DType::f64)));
  CHECK(kolmogorov(e, [](double x) { return -std::expm1(-x); }) < 1.95);
  CHECK_FALSE(g.to_host(random_gamma(g.key(6), zeros(g, {2}))).is_ok());
}

TEST_CASE("bernoulli draws follow p, element by element") {
  auto rt = test::runtime();
  Graph g(*rt);
  const auto v = values(g, random_bernoulli(g.key(9), {20000}, 0.3));
  CHECK(std::abs(moments(v).mean - 0.3) < 0.0165);
  const auto p =
      Array::from_host(rt->backend(), HostArray::of<float>(std::vector<float>{0, 1, 0, 1})).value();
  CHECK(values(g, random_bernoulli(g.key(9), g.input(p))) == std::vector<double>{0, 1, 0, 1});
  CHECK(values(g, random_bernoulli(g.key(9), {3, 2}, 1)) == std::vector<double>(6, 1));
}

TEST_CASE("integers are uniform on their range") {
  auto rt = test::runtime();
  Graph g(*rt);
  std::array<int, 7> count{};
  for (double x : values(g, random_integers(g.key(10), {14000}, -3, 4))) {
    REQUIRE((x >= -3 && x < 4));
    ++count[static_cast<size_t>(x + 3)];
  }
  for (int c : count) CHECK(std::abs(c - 2000) < 210);
}

TEST_CASE("permutations hold every number once and differ by key") {
  auto rt = test::runtime();
  Graph g(*rt);
  auto v = values(g, random_permutation(g.key(11), 1000));
  const auto other = values(g, random_permutation(g.key(12), 1000));
  CHECK(v != other);
  std::vector<double> sorted = v, identity(1000);
  std::iota(identity.begin(), identity.end(), 0);
  CHECK(v != identity);
  std::sort(sorted.begin(), sorted.end());
  CHECK(sorted == identity);
  int first = 0;  // position of 0 over many keys: each of 5 places a fifth of the time
  for (uint64_t k = 0; k < 1000; ++k) first += values(g, random_permutation(g.key(k), 5))[0] == 0;
  CHECK(std::abs(first - 200) < 64);
}

TEST_CASE("categorical draws follow the softmax of the logits") {
  auto rt = test::runtime();
  Graph g(*rt);
  const auto row =
      Array::from_host(rt->backend(), HostArray::of<float>(std::vector<float>{0, 1, -INFINITY, 2})).value();
  const Tensor logits = broadcast_to(g.input(row), {20000, 4});
  std::array<double, 4> share{};
  for (double c : values(g, random_categorical(g.key(13), logits)))
    share[static_cast<size_t>(c)] += 1.0 / 20000;
  const double z = 1 + std::exp(1.0) + std::exp(2.0);
  CHECK(std::abs(share[0] - 1 / z) < 0.015);
  CHECK(std::abs(share[1] - std::exp(1.0) / z) < 0.0175);
  CHECK(share[2] == 0);
  CHECK(std::abs(share[3] - std::exp(2.0) / z) < 0.0175);
}

}  // namespace
}  // namespace tenon
