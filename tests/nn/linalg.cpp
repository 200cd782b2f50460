// Factorisations reproduce their matrix, on random batches in both precisions; bad matrices are named.
#include <catch2/catch_test_macros.hpp>
#include <cmath>

#include "core/base/random.h"
#include "core/graph/grad.h"
#include "core/ops/ops.h"
#include "core/runtime.h"
#include "tests/support/device.h"

namespace tenon {
namespace {

Tensor random_matrices(Graph& g, uint64_t seed, const Shape& shape, DType t) {
  return random_normal(g.key(seed), shape, t);
}

// A symmetric positive definite batch.
Tensor positive(Graph& g, uint64_t seed, int64_t n, DType t) {
  const Tensor m = random_matrices(g, seed, {3, n, n}, t);
  return matmul(m, m, false, true) + eye(g, n, t);
}

double largest(Graph& g, Tensor difference) {
  const auto r = g.value(reduce_max(abs(difference)));
  INFO(r.status().message());
  REQUIRE(r.is_ok());
  return *r;
}

Array matrix(Runtime& rt, const std::vector<double>& v, const Shape& shape) {
  return Array::from_host(rt.backend(), HostArray::of<double>(std::span<const double>(v), shape)).value();
}

TEST_CASE("factorisations and solvers reproduce their input") {
  auto rt = test::runtime();
  Graph g(*rt);
  for (uint64_t seed = 1; seed <= 3; ++seed)
    for (DType t : {DType::f32, DType::f64})
      for (int64_t n : {1, 2, 7}) {
        CAPTURE(seed, name_of(t), n);
        const double tolerance = t == DType::f64 ? 1e-11 : 1e-3;
        const Tensor a = positive(g, seed, n, t),
                     m = random_matrices(g, seed + 10, {3, n, n}, t) + eye(g, n, t) * 4.0;
        const Tensor b = random_matrices(g, seed + 20, {3, n, 2}, t);
        const Tensor l = cholesky(a);
        CHECK(largest(g, matmul(l, l, false, true) - a) < tolerance);
        CHECK(largest(g, triu(l, 1)) == 0);
        for (bool transpose : {false, true}) {
          CHECK(largest(g, matmul(l, triangular_solve(l, b, true, transpose), transpose) - b) < tolerance);
          CHECK(largest(g, matmul(m, solve(m, b, transpose), transpose) - b) < tolerance);
        }
        CHECK(largest(g, matmul(m, inverse(m)) - eye(g, n, t)) < tolerance);
        const Eigh e = eigh(a);
        const Tensor rebuilt = matmul(e.vectors * unsqueeze(e.values, -2), e.vectors, false, true);
        CHECK(largest(g, rebuilt - a) < tolerance);
        CHECK(largest(g, matmul(e.vectors, e.vectors, true) - eye(g, n, t)) < tolerance);
        CHECK(largest(g, logdet(a) - sum(log(e.values), {-1})) < tolerance);
      }
}

TEST_CASE("the logarithm of a determinant ignores its sign") {
  auto rt = test::runtime();
  Graph g(*rt);
  const Tensor a = g.input(matrix(*rt, {0, 2, 3, 0}, {2, 2}));
  CHECK(std::abs(*g.value(logdet(a)) - std::log(6.0)) < 1e-12);
  CHECK(*g.value(logdet(g.input(matrix(*rt, {1, 2, 2, 4}, {2, 2})))) == -INFINITY);
}

TEST_CASE("a repeated eigenvalue does not spoil the gradient of its eigenspace") {
  auto rt = test::runtime();
  Graph g(*rt);
  // The projection on the first two eigenvectors does not depend on how they are chosen within their plane.
  const auto gradient = [&](double second) {
    const Tensor a = g.input(matrix(*rt, {1, 0, 0, 0, second, 0, 0, 0, 3}, {3, 3})), xs[] = {a};
    const Eigh e = eigh(a);
    CHECK(largest(g, grad(sum(e.values), xs)[0] - eye(g, 3, DType::f64)) < 1e-12);
    const Tensor v = narrow(e.vectors, 1, 0, 2);
    return grad(sum(matmul(v, v, false, true) * reshape(cast(arange(g, 9), DType::f64), {3, 3})), xs)[0];
  };
  const Tensor equal_values = gradient(1), nearly_equal = gradient(1 + 1e-7);
  CHECK(largest(g, equal_values) > 1);
  CHECK(largest(g, equal_values - nearly_equal) < 1e-5);
}

std::string error_of(Graph& g, Tensor t) {
  if (!t.valid()) return g.status().message();
  auto r = g.to_host(t);
  return r.is_ok() ? "" : r.status().message();
}

TEST_CASE("matrices that have no factorisation are named") {
  auto rt = test::runtime();
  const Array batch = matrix(*rt, {2, 1, 1, 2, 1, 2, 2, 1}, {2, 2, 2}),
              singular = matrix(*rt, {1, 2, 2, 4}, {2, 2}), b = matrix(*rt, {1, 1}, {2, 1});
  const auto check = [&](auto&& op, const std::string& expected) {
    Graph g(*rt);
    const std::string message = error_of(g, op(g));
    INFO(message);
    CHECK(message.find(expected) != std::string::npos);
  };
  check([&](Graph& g) { return cholesky(g.input(batch)); }, "matrix 1 of the batch is not positive definite");
  check([&](Graph& g) { return solve(g.input(singular), g.input(b)); }, "the matrix is singular");
  check([&](Graph& g) { return inverse(g.input(singular)); }, "the matrix is singular");
  check([&](Graph& g) { return triangular_solve(zeros_like(g.input(singular)), g.input(b)); },
        "zero on its diagonal");
  check([&](Graph& g) { return inverse(g.input(b)); }, "square");
  check([&](Graph& g) { return eigh(cast(g.input(singular), DType::i64)).values; }, "f32 or f64");
  check([&](Graph& g) { return solve(g.input(singular), g.input(batch)); }, "equal leading dimensions");
}

}  // namespace
}  // namespace tenon
