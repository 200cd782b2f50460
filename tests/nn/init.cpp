// Initialisers: bounds and variances of their definitions, orthonormality, look-up by name.
#include "core/nn/init.h"

#include <catch2/catch_test_macros.hpp>
#include <cmath>

namespace tenon::nn {
namespace {

HostArray drawn(const Initializer& init, const Shape& shape, uint64_t key = 1) {
  HostArray a(DType::f64, shape);
  Philox rng(key);
  init(a, fan_of(shape), rng);
  return a;
}

double variance(const HostArray& a) {
  double mean = 0, square = 0;
  for (double v : a.as<double>()) {
    mean += v / static_cast<double>(a.numel());
    square += v * v / static_cast<double>(a.numel());
  }
  return square - mean * mean;
}

double largest(const HostArray& a) {
  double m = 0;
  for (double v : a.as<double>()) m = std::max(m, std::abs(v));
  return m;
}

TEST_CASE("fans count the kernel") {
  CHECK(fan_of({10, 3, 5, 5}).in == 75);
  CHECK(fan_of({10, 3, 5, 5}).out == 250);
  CHECK(fan_of({7}).in == 7);
}

TEST_CASE("initialisers have the variance and bound of their definition") {
  const Shape shape{120, 80};
  const auto near = [](double a, double b) { return std::abs(a - b) < 0.06 * b; };  // 9600 draws
  CHECK(near(variance(drawn(init::xavier_uniform(), shape)), 2.0 / 200));
  CHECK(near(variance(drawn(init::xavier_normal(2), shape)), 8.0 / 200));
  CHECK(near(variance(drawn(init::kaiming_uniform(), shape)), 2.0 / 80));
  CHECK(near(variance(drawn(init::kaiming_normal(), shape)), 2.0 / 80));
  CHECK(near(variance(drawn(init::lecun_normal(), shape)), 1.0 / 80));
  CHECK(near(variance(drawn(*init::by_name("lecun_normal", {.gain = 0.5}), shape)), 0.25 / 80));
  CHECK(near(variance(drawn(init::normal(3, 0.5), shape)), 0.25));
  CHECK(largest(drawn(init::torch_default(), shape)) <= 1 / std::sqrt(80.0));
  CHECK(largest(drawn(init::torch_default(), shape)) > 0.99 / std::sqrt(80.0));
  CHECK(largest(drawn(init::truncated_normal(0, 0.1), shape)) <= 0.2);
  CHECK(largest(drawn(init::constant(-2), {3})) == 2);
}

TEST_CASE("orthogonal weights have orthonormal rows or columns") {
  for (const Shape& shape : {Shape{4, 9}, Shape{9, 4}, Shape{4, 3, 2, 2}, Shape{1, 1}}) {
    CAPTURE(to_string(shape));
    const HostArray a = drawn(init::orthogonal(2), shape);
    const int64_t rows = shape[0], cols = a.numel() / rows, n = std::min(rows, cols),
                  m = std::max(rows, cols);
    const auto at = [&](int64_t i, int64_t j) { return a.at(rows <= cols ? i * cols + j : j * cols + i); };
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j < n; ++j) {
        double dot = 0;
        for (int64_t k = 0; k < m; ++k) dot += at(i, k) * at(j, k);
        CHECK(std::abs(dot - (i == j ? 4 : 0)) < 1e-12);
      }
  }
}

TEST_CASE("initialisers are found by name and check their options") {
  CHECK(init::by_name("kaiming_uniform").is_ok());
  CHECK(largest(drawn(*init::by_name("constant", {.value = 3}), {2})) == 3);
  CHECK(init::by_name("kaiming_unifrom").status().message().find("'kaiming_uniform'") != std::string::npos);
  CHECK(init::by_name("zeros", {.std = 1}).status().message().find("no option 'std'") != std::string::npos);
  CHECK_FALSE(init::by_name("normal", {.std = -1}).is_ok());
  CHECK_FALSE(init::by_name("uniform", {.low = 2, .high = 1}).is_ok());
}

}  // namespace
}  // namespace tenon::nn
