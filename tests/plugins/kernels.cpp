// Kernel plugins: code, composed form and derivatives of a new op agree, and one may stand for a built-in op.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <random>

#include "core/graph/grad.h"
#include "core/ops/ops.h"
#include "core/plugin/catalog.h"
#include "core/plugin/kernel.h"
#include "tests/support/device.h"
#include "tests/support/values.h"

namespace tenon {
namespace {

using test::values;

using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::WithinAbs;

void check_close(const std::vector<double>& a, const std::vector<double>& b, double tolerance) {
  REQUIRE(a.size() == b.size());
  for (size_t i = 0; i < a.size(); ++i) CHECK_THAT(a[i], WithinAbs(b[i], tolerance));
}

}  // namespace

TEST_CASE("a kernel plugin is an op: values and two derivatives are those of the composed form") {
  const unsigned seed = std::random_device{}();
  CAPTURE(seed);
  auto rt = test::runtime();
  Catalog catalog;
  REQUIRE(catalog.add_folder(std::string(TENON_BINARY_DIR) + "/plugins").is_ok());
  const OpDef* op = catalog.kernels().find("softmax_cross_entropy/1");
  REQUIRE(op);
  CHECK(catalog.kernels().find("softmax_cross_entropy/1") == op);
  CHECK(catalog.kernels().find("nothing/1") == nullptr);
  for (const DType dtype : {DType::f64, DType::f32, DType::bf16})
    for (const Shape& shape : {Shape{5, 4}, Shape{2, 3, 7}, Shape{1, 1}, Shape{0, 3}}) {
      CAPTURE(to_string(TensorType{dtype, shape}));
      Graph g(*rt);
      Shape rows = shape;
      rows.pop_back();
      const Tensor x = random_normal(g.key(seed), shape, dtype), y = random_integers(g.key(seed + 1), rows, 0, shape.back());
      auto fused = KernelOps::apply(g, *op, std::vector{x, y}, {});
      INFO(fused.status().message());
      REQUIRE(fused.is_ok());
      const Tensor loss = (*fused)[0], same = cross_entropy(x, y);
      const double tolerance = dtype == DType::f64 ? 1e-12 : dtype == DType::f32 ? 1e-5 : 0.1;
      check_close(values(g, loss), values(g, same), tolerance);
      const Tensor weight = random_normal(g.key(seed + 2), shape, dtype);
      const Tensor d = grad(loss, {&x, 1})[0], e = grad(same, {&x, 1})[0];
      check_close(values(g, d), values(g, e), tolerance);
      check_close(values(g, grad(sum(d * weight), {&x, 1})[0]), values(g, grad(sum(e * weight), {&x, 1})[0]), tolerance);
    }
  Graph g(*rt);
  const auto wrong = KernelOps::apply(g, *op, std::vector{zeros(g, {3}), zeros(g, {3})}, {});
  CHECK_THAT(wrong.status().message(), ContainsSubstring("integer labels"));
}

TEST_CASE("a kernel plugin may stand for a built-in op") {
  auto plain = test::runtime(), fast = test::runtime();
  Catalog catalog;
  REQUIRE(catalog.add_folder(std::string(TENON_BINARY_DIR) + "/plugins").is_ok());
  REQUIRE(catalog.add_file(std::string(TENON_BINARY_DIR) + "/tests/plugins/fast_square.so").is_ok());
  CHECK_THAT(catalog.kernels().install(*fast, "softmax_cross_entropy/1").message(), ContainsSubstring("replaces no built-in"));
  REQUIRE(catalog.kernels().install(*fast, "fast_square/1").is_ok());
  const auto run = [](Runtime& rt) {
    Graph g(rt);
    const Tensor x = random_normal(g.key(3), {6}, DType::f64), y = square(x), d = grad(sum(y * x), {&x, 1})[0];
    std::vector<double> out = values(g, y);
    for (const Tensor& t : {d, grad(sum(d), {&x, 1})[0], square(random_normal(g.key(3), {6}))}) {
      const auto more = values(g, t);
      out.insert(out.end(), more.begin(), more.end());
    }
    return out;
  };
  check_close(run(*fast), run(*plain), 1e-12);
  Graph g(*fast);
  const Tensor y = square(random_normal(g.key(3), {6}, DType::f64)), f32 = square(random_normal(g.key(3), {6}));
  CHECK(g.node_of(y.id()).op->id == "fast_square/1");
  CHECK(g.node_of(f32.id()).op->id == "square/1");  // it declines f32
}

}  // namespace tenon
