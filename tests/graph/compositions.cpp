// Functions composed of ops, and sums at sizes where the order of summation shows.
#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <cmath>

#include "core/graph/grad.h"
#include "core/ops/ops.h"
#include "tests/support/device.h"
#include "tests/support/values.h"

namespace tenon::test {
namespace {

using Catch::Approx;

template <class T>
Tensor leaf(Graph& g, const std::vector<T>& v, const Shape& shape) {
  auto array = Array::from_host(g.backend(), HostArray::of<T>(std::span<const T>(v), shape));
  REQUIRE(array);
  return g.input(*array);
}
using V = std::vector<double>;

TEST_CASE("arange, eye, full, triangles") {
  auto rt = runtime();
  Graph g(*rt);
  CHECK(values(arange(g, 4)) == V{0, 1, 2, 3});
  CHECK(values(eye(g, 2, DType::f64)) == V{1, 0, 0, 1});
  CHECK(values(full(g, {2}, 2.5)) == V{2.5, 2.5});
  const Tensor x = leaf<double>(g, {1, 2, 3, 4, 5, 6}, {2, 3});
  CHECK(values(tril(x)) == V{1, 0, 0, 4, 5, 0});
  CHECK(values(tril(x, 1)) == V{1, 2, 0, 4, 5, 6});
  CHECK(values(triu(x)) == V{1, 2, 3, 0, 5, 6});
  CHECK(values(triu(x, -1)) == V{1, 2, 3, 4, 5, 6});
  CHECK(values(grad(sum(triu(x, 1)), {&x, 1})[0]) == V{0, 1, 1, 0, 0, 1});
}

TEST_CASE("stack, split, narrow, flatten, swap_axes") {
  auto rt = runtime();
  Graph g(*rt);
  const Tensor a = leaf<double>(g, {1, 2}, {2}), b = leaf<double>(g, {3, 4}, {2});
  const Tensor both[] = {a, b};
  CHECK(values(stack(both, 0)) == V{1, 2, 3, 4});
  CHECK(values(stack(both, -1)) == V{1, 3, 2, 4});
  const Tensor x = leaf<double>(g, {1, 2, 3, 4, 5, 6}, {2, 3});
  const int64_t sizes[] = {1, 2};
  const auto parts = split(x, sizes, 1);
  CHECK(values(parts[0]) == V{1, 4});
  CHECK(values(parts[1]) == V{2, 3, 5, 6});
  CHECK(values(narrow(x, -1, 1, 1)) == V{2, 5});
  CHECK(values(swap_axes(x, 0, -1)) == V{1, 4, 2, 5, 3, 6});
  CHECK(flatten(x).shape() == Shape{2, 3});
  CHECK(flatten(x, 0).shape() == Shape{6});
  CHECK(flatten(leaf<double>(g, {1, 2}, {2})).shape() == Shape{2, 1});
}

TEST_CASE("segment sums, counts and embeddings") {
  auto rt = runtime();
  Graph g(*rt);
  const Tensor x = leaf<double>(g, {1, 2, 3, 4, 5, 6}, {3, 2}), s = leaf<int64_t>(g, {1, 0, 1}, {3});
  CHECK(values(segment_sum(x, s, 3)) == V{3, 4, 6, 8, 0, 0});
  CHECK(values(bincount(s, 3)) == V{1, 2, 0});
  CHECK(values(embedding(x, s)) == V{3, 4, 1, 2, 3, 4});
  CHECK(values(one_hot(leaf<int64_t>(g, {1, -100}, {2}), 2)) == V{0, 1, 0, 0});
}

TEST_CASE("conversions: truncation, saturation, truth") {
  auto rt = runtime();
  Graph g(*rt);
  const Tensor x = leaf<double>(g, {-1.9, 0, 2.5, 0.25}, {4});
  CHECK(values(cast(x, DType::i32)) == V{-1, 0, 2, 0});
  CHECK(values(cast(x, DType::boolean)) == V{1, 0, 1, 1});
  CHECK(values(cast(cast(x, DType::boolean), DType::f32)) == V{1, 0, 1, 1});
  CHECK(values(sum(greater(x, constant_like(x, 0)))) == V{2});  // counts
}

TEST_CASE("NaN is not lost by comparisons of values") {
  auto rt = runtime();
  Graph g(*rt);
  const double nan = std::nan("");
  const Tensor x = leaf<double>(g, {1, nan, -2}, {3}), one = leaf<double>(g, {1, 1, nan}, {3});
  CHECK(std::isnan(values(reduce_max(x))[0]));
  CHECK(std::isnan(values(reduce_min(x))[0]));
  CHECK(std::isnan(values(relu(x))[1]));
  CHECK(std::isnan(values(clamp(x, -1, 1))[1]));
  CHECK(std::isnan(values(minimum(x, one))[1]));
  CHECK(std::isnan(values(minimum(x, one))[2]));
  CHECK(std::isnan(values(maximum(one, x))[1]));
  CHECK(values(argmax(x, 0)) == V{1});
}

TEST_CASE("long sums in f32 keep their digits, in the order of their length alone") {
  auto rt = runtime();
  const int64_t n = 1 << 20;
  std::vector<float> v(static_cast<size_t>(n));
  double exact = 0;
  for (size_t i = 0; i < v.size(); ++i) v[i] = 0.1f + static_cast<float>(i % 7), exact += v[i];
  Graph g(*rt);
  const Tensor x = leaf<float>(g, v, {n});
  // Added up one by one these would be off by 1e-3.
  CHECK(values(sum(x))[0] == Approx(exact).epsilon(1e-5));
  CHECK(values(mean(x))[0] == Approx(exact / static_cast<double>(n)).epsilon(1e-5));
  const Tensor rows = reshape(x, {1024, 1024});
  CHECK(values(sum(sum(rows, {1})))[0] == Approx(exact).epsilon(1e-5));
  CHECK(values(sum(rows, {0}))[5] == Approx(values(sum(transpose(rows), {1}))[5]).epsilon(1e-5));
  // Far from zero a variance by differences of squares would have no digits left.
  const Tensor far = x + 10000.0;
  CHECK(values(var(far))[0] == Approx(4).epsilon(2e-3));
  // 256 + 1 is not a bf16, but sums are not made in bf16.
  const Tensor ones_bf16 = cast(broadcast_to(g.constant(1), {1000}), DType::bf16);
  CHECK(values(sum(ones_bf16)) == V{1000});
}

}  // namespace
}  // namespace tenon::test
