// Ordering with ties and NaN, and grouped products against a loop over the experts.
#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <random>

#include "core/ops/ops.h"
#include "core/runtime.h"
#include "tests/support/device.h"
#include "tests/support/values.h"

namespace tenon {
namespace {

using test::values;

template <class T>
Tensor tensor(Graph& g, const std::vector<T>& v, const Shape& shape) {
  auto a = Array::from_host(g.backend(), HostArray::of<T>(std::span<const T>(v), shape));
  REQUIRE(a.is_ok());
  return g.input(*a);
}

using V = std::vector<double>;

TEST_CASE("equal elements keep their order and NaN is the largest") {
  auto rt = test::runtime();
  Graph g(*rt);
  const Tensor x = tensor<float>(g, {3, NAN, 1, 3, 1, 2}, {6});
  CHECK(values(g, argsort(x)) == V{2, 4, 5, 0, 3, 1});
  CHECK(values(g, argsort(x, 0, true)) == V{1, 0, 3, 5, 2, 4});
  const Ranked top = top_k(tensor<float>(g, {1, 3, 3, 2, 3}, {5}), 3);
  CHECK(values(g, top.indices) == V{1, 2, 4});
  CHECK(values(g, top.values) == V{3, 3, 3});
  const Tensor m = tensor<int64_t>(g, {3, 1, 2, 1, 5, 0}, {2, 3});
  CHECK(values(g, sort(m, 0)) == V{1, 1, 0, 3, 5, 2});
  CHECK(values(g, sort(flip(m, {1}), 1)) == V{1, 2, 3, 0, 1, 5});
  CHECK_FALSE(top_k(m, 4).values.valid());
}

TEST_CASE("sorting agrees with the standard library") {
  auto rt = test::runtime();
  Graph g(*rt);
  const auto seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 rng(seed);
  std::vector<double> v(257);
  for (double& x : v) x = static_cast<double>(rng() % 50);
  const Tensor x = tensor<double>(g, v, {257});
  std::vector<double> expected = v;
  std::sort(expected.begin(), expected.end());
  CHECK(values(g, sort(x)) == expected);
  std::reverse(expected.begin(), expected.end());
  CHECK(values(g, sort(x, 0, true)) == expected);
  expected.resize(20);
  CHECK(values(g, top_k(x, 20).values) == expected);
}

TEST_CASE("quantiles interpolate and searches respect ties") {
  auto rt = test::runtime();
  Graph g(*rt);
  const Tensor x = tensor<double>(g, {4, 1, 3, 2}, {4});
  CHECK(values(g, median(x)) == V{2.5});
  CHECK(values(g, quantile(x, 1)) == V{4});
  CHECK(std::abs(values(g, quantile(x, 0.1))[0] - 1.3) < 1e-12);
  const Tensor edges = tensor<double>(g, {0, 1, 1, 2}, {4}), at = tensor<double>(g, {-1, 0, 1, 1.5, 3}, {5});
  CHECK(values(g, searchsorted(edges, at)) == V{0, 0, 1, 3, 4});
  CHECK(values(g, searchsorted(edges, at, true)) == V{0, 1, 3, 3, 4});
}

TEST_CASE("slots are grouped by expert in order") {
  auto rt = test::runtime();
  Graph g(*rt);
  const auto [order, offsets] = sort_by_expert(tensor<int32_t>(g, {2, 0, 1, 2, 2, 0}, {3, 2}), 4);
  CHECK(values(g, order) == V{1, 5, 2, 0, 3, 4});
  CHECK(values(g, offsets) == V{0, 2, 3, 6, 6});
  const auto bad = sort_by_expert(tensor<int64_t>(g, {0, 4}, {2}), 4);
  const auto r = g.to_host(bad.order);
  REQUIRE_FALSE(r.is_ok());
  CHECK(r.status().message().find("expert index 4 at slot 1") != std::string::npos);
}

TEST_CASE("a grouped product is one product per segment") {
  auto rt = test::runtime();
  Graph g(*rt);
  const std::vector<int64_t> ends = {0, 3, 3, 4, 9};
  const Tensor offsets = tensor<int64_t>(g, ends, {5});
  for (DType t : {DType::f32, DType::f64, DType::bf16}) {
    CAPTURE(name_of(t));
    const double tolerance = t == DType::bf16 ? 0.05 : 1e-5;
    const Tensor x = random_normal(g.key(1), {9, 6}, t), w = random_normal(g.key(2), {4, 6, 5}, t);
    const Tensor y = grouped_matmul(x, w, offsets),
                 y_t = grouped_matmul(x, swap_axes(w, 1, 2), offsets, true);
    const Tensor dw = grouped_matmul_weight(x, y, offsets);
    for (int e = 0; e < 4; ++e) {
      const int64_t first = ends[static_cast<size_t>(e)], rows = ends[static_cast<size_t>(e) + 1] - first;
      const Tensor xe = narrow(x, 0, first, rows), we = squeeze(narrow(w, 0, e, 1), 0),
                   ye = narrow(y, 0, first, rows);
      const auto gap = [&](Tensor a, Tensor b) {
        double d = 0;
        const auto va = values(g, a), vb = values(g, b);
        REQUIRE(va.size() == vb.size());
        for (size_t i = 0; i < va.size(); ++i)
          d = std::max(d, std::abs(va[i] - vb[i]) / (1 + std::abs(vb[i])));
        return d;
      };
      CHECK(gap(ye, matmul(xe, we)) < tolerance);
      CHECK(gap(narrow(y_t, 0, first, rows), matmul(xe, we)) < tolerance);
      CHECK(gap(squeeze(narrow(dw, 0, e, 1), 0), matmul(xe, ye, true)) < tolerance);
    }
  }
}

TEST_CASE("offsets that do not cut the rows are refused") {
  auto rt = test::runtime();
  for (const std::vector<int64_t>& bad : {std::vector<int64_t>{0, 3, 2, 4}, {1, 2, 3, 4}, {0, 1, 2, 3}}) {
    Graph g(*rt);
    const Tensor y = grouped_matmul(ones(g, {4, 2}), ones(g, {3, 2, 2}), tensor<int64_t>(g, bad, {4}));
    const auto r = y.valid() ? g.to_host(y) : Result<HostArray>(g.status());
    REQUIRE_FALSE(r.is_ok());
    CHECK(r.status().message().find("offset") != std::string::npos);
  }
}

}  // namespace
}  // namespace tenon
