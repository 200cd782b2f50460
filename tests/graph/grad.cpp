// Differentiation of graphs: shared parts, higher orders, stops, custom rules, and what is refused.
#include "core/graph/grad.h"

#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <cmath>

#include "core/ops/ops.h"
#include "tests/support/device.h"
#include "tests/support/values.h"

namespace tenon::test {
namespace {

using Catch::Approx;

Tensor leaf(Graph& g, const std::vector<double>& v, const Shape& shape) {
  auto array = Array::from_host(g.backend(), HostArray::of<double>(std::span<const double>(v), shape));
  REQUIRE(array);
  return g.input(*array);
}
Tensor leaf(Graph& g, const std::vector<double>& v) {
  return leaf(g, v, Shape{static_cast<int64_t>(v.size())});
}

Tensor grad1(Tensor y, Tensor x, Tensor seed = {}) { return grad(y, {&x, 1}, seed)[0]; }

TEST_CASE("a shared subexpression collects the cotangents of all its users") {
  auto rt = runtime();
  Graph g(*rt);
  const Tensor x = leaf(g, {0.5, -1, 2});
  const Tensor e = exp(x);
  const Tensor d = grad1(sum(e * x + e + e * e), x);  // e^x (x + 1) + e^x + 2 e^2x
  const std::vector<double> at = {0.5, -1, 2}, got = values(d);
  for (size_t i = 0; i < 3; ++i)
    CHECK(got[i] == Approx(std::exp(at[i]) * (at[i] + 2) + 2 * std::exp(2 * at[i])).epsilon(1e-12));
}

TEST_CASE("an input used twice by one op") {
  auto rt = runtime();
  Graph g(*rt);
  const Tensor x = leaf(g, {3, -2});
  CHECK(values(grad1(sum(x * x), x)) == std::vector<double>{6, -4});
  CHECK(values(grad1(sum(x / x), x)) == std::vector<double>{0, 0});
  CHECK(values(grad1(sum(where(greater(x, x), x, x)), x)) == std::vector<double>{1, 1});
}

TEST_CASE("derivatives of x^4 to the fifth order, also at zero") {
  auto rt = runtime();
  Graph g(*rt);
  const std::vector<double> at = {1.5, -2, 0};
  const Tensor x = leaf(g, at);
  for (const Tensor& y : {square(square(x)), pow(x, g.scalar(4, DType::f64)), x * x * x * x}) {
    Tensor d = y;
    double factor = 1;
    for (int order = 1; order <= 5; ++order) {
      d = grad1(sum(d), x);
      factor *= 5 - order;
      const std::vector<double> got = values(d);
      for (size_t i = 0; i < at.size(); ++i) {
        CAPTURE(order, at[i]);
        const double expected = order <= 4 ? factor * std::pow(at[i], 4 - order) : 0;
        CHECK(got[i] == Approx(expected).margin(1e-12));
      }
    }
  }
}

TEST_CASE("mixed second derivatives agree in both orders") {
  auto rt = runtime();
  Graph g(*rt);
  const Tensor x = leaf(g, {0.3, 1.2}), y = leaf(g, {-0.7, 0.4});
  const Tensor f = sum(sin(x * y) + exp(x) * tanh(y));
  const std::vector<double> xy = values(grad1(sum(grad1(f, x)), y)), yx = values(grad1(sum(grad1(f, y)), x));
  for (size_t i = 0; i < 2; ++i) CHECK(xy[i] == Approx(yx[i]).epsilon(1e-12));
}

TEST_CASE("a gradient penalty: the derivative of a function of a derivative") {
  auto rt = runtime();
  Graph g(*rt);
  const Tensor x = leaf(g, {1, 2}), w = leaf(g, {0.5, -1});
  const Tensor y = sum(w * x * x);                  // dy/dx = 2 w x
  const Tensor penalty = sum(square(grad1(y, x)));  // 4 w^2 x^2
  CHECK(values(grad1(penalty, w)) == std::vector<double>{4, -32});
  CHECK(values(grad1(penalty, x)) == std::vector<double>{2, 16});
}

TEST_CASE("derivatives undo broadcasting") {
  auto rt = runtime();
  Graph g(*rt);
  const Tensor a = leaf(g, {1, 2, 3}, {3, 1}), b = leaf(g, {10, 20}, {2}), s = leaf(g, {2}, {});
  const Tensor y = a * b * s;
  const Tensor xs[] = {a, b, s};
  const std::vector<Tensor> d = grad(sum(y), xs);
  CHECK(d[0].shape() == Shape{3, 1});
  CHECK(d[2].shape() == Shape{});
  CHECK(values(d[0]) == std::vector<double>{60, 60, 60});
  CHECK(values(d[1]) == std::vector<double>{12, 12});
  CHECK(values(d[2]) == std::vector<double>{180});
}

TEST_CASE("the seed weighs the outputs") {
  auto rt = runtime();
  Graph g(*rt);
  const Tensor x = leaf(g, {1, 2, 3}), seed = leaf(g, {1, 0, -2});
  CHECK(values(grad1(x * x, x, seed)) == std::vector<double>{2, 0, -12});
}

TEST_CASE("what y does not depend on has derivative zero") {
  auto rt = runtime();
  Graph g(*rt);
  const Tensor x = leaf(g, {1, 2}), other = leaf(g, {5, 6, 7});
  const Tensor xs[] = {other, x};
  const std::vector<Tensor> d = grad(sum(x), xs);
  CHECK(values(d[0]) == std::vector<double>{0, 0, 0});
  CHECK(values(d[1]) == std::vector<double>{1, 1});
  CHECK(values(grad1(sum(x), sum(x * x))) == std::vector<double>{0});  // made later than y's inputs
  CHECK(values(grad1(x, x)) == std::vector<double>{1, 1});
}

TEST_CASE("piecewise constant ops stop the derivative") {
  auto rt = runtime();
  Graph g(*rt);
  const Tensor x = leaf(g, {1.2, -0.7});
  CHECK(values(grad1(sum(x + round(x) + floor(x) + sign(x)), x)) == std::vector<double>{1, 1});
  CHECK(values(grad1(sum(cast(cast(x, DType::i64), DType::f64) * x), x)) == std::vector<double>{1, 0});
  CHECK(values(grad1(sum(cast(cast(x, DType::f32), DType::f64)), x)) == std::vector<double>{1, 1});
}

TEST_CASE("stop_gradient and straight-through rounding") {
  auto rt = runtime();
  Graph g(*rt);
  const Tensor x = leaf(g, {1.5, 2.5, -0.4});
  CHECK(values(stop_gradient(x)) == values(x));
  CHECK(values(grad1(sum(x * stop_gradient(x)), x)) == values(x));
  CHECK(values(grad1(sum(stop_gradient(x * x)), x)) == std::vector<double>{0, 0, 0});
  CHECK(values(round_ste(x)) == std::vector<double>{2, 2, 0});
  CHECK(values(grad1(sum(x * round_ste(x)), x)) == std::vector<double>{2 + 1.5, 2 + 2.5, 0 - 0.4});
}

TEST_CASE("a custom gradient replaces the derivative and can be differentiated itself") {
  auto rt = runtime();
  Graph g(*rt);
  const Tensor x = leaf(g, {1, 2}), w = leaf(g, {3, 4});
  // Value x^2; derivative in x: g x^3; none in w.
  const Tensor xs[] = {x, w};
  const Tensor y = custom_gradient(square(x), xs, [x](Tensor c) {
    return std::vector<Tensor>{c * x * x * x, Tensor()};
  });
  CHECK(values(y) == std::vector<double>{1, 4});
  const Tensor d = grad1(sum(y * w), x);
  CHECK(values(d) == std::vector<double>{3, 32});
  CHECK(values(grad1(sum(d), x)) == std::vector<double>{9, 48});  // 3 w x^2
  CHECK(values(grad1(sum(y * w), w)) == std::vector<double>{1, 4});
}

TEST_CASE("a custom gradient inside the rule of another") {
  auto rt = runtime();
  Graph g(*rt);
  const Tensor x = leaf(g, {2});
  const Tensor y = custom_gradient(x, {&x, 1}, [x](Tensor c) {
    const Tensor inner =
        custom_gradient(c * x, {&x, 1}, [](Tensor d) { return std::vector<Tensor>{d * 7.0}; });
    return std::vector<Tensor>{inner};
  });
  const Tensor d = grad1(y, x);
  CHECK(values(d) == std::vector<double>{2});
  CHECK(values(grad1(d, x)) == std::vector<double>{7});
}

TEST_CASE("a custom rule of the wrong shape or number is refused") {
  auto rt = runtime();
  {
    Graph g(*rt);
    const Tensor x = leaf(g, {1, 2});
    grad1(sum(custom_gradient(x, {&x, 1}, [](Tensor c) { return std::vector<Tensor>{sum(c)}; })), x);
    CHECK(g.status().message() ==
          "custom_gradient: the rule returned f64[] as cotangent of input 0, which is f64[2]");
  }
  Graph g(*rt);
  const Tensor x = leaf(g, {1, 2});
  grad1(sum(custom_gradient(x, {&x, 1}, [](Tensor) { return std::vector<Tensor>{}; })), x);
  CHECK(g.status().message() == "custom_gradient: the rule returned 0 cotangents for 1 inputs");
}

TEST_CASE("derivatives at the special points of functions") {
  auto rt = runtime();
  Graph g(*rt);
  const Tensor zero = leaf(g, {0}), z2 = leaf(g, {0, 0});
  SECTION("0^b and a^0") {
    CHECK(values(grad1(pow(zero, g.scalar(0, DType::f64)), zero)) == std::vector<double>{0});
    CHECK(values(grad1(pow(zero, g.scalar(1, DType::f64)), zero)) == std::vector<double>{1});
    const Tensor b = leaf(g, {2});
    CHECK(values(grad1(pow(zero, b), b)) == std::vector<double>{0});
    // d^2 a^b / da db at b = 0 is 1/a.
    const Tensor a = leaf(g, {4}), e = leaf(g, {0});
    CHECK(values(grad1(grad1(pow(a, e), a), e)) == std::vector<double>{0.25});
  }
  SECTION("ties") {
    const Tensor x = leaf(g, {1, 3, 3, 2}), y = leaf(g, {3, 3, 0, 2});
    CHECK(values(grad1(reduce_max(x), x)) == std::vector<double>{0, 0.5, 0.5, 0});
    CHECK(values(grad1(sum(maximum(x, y)), x)) == std::vector<double>{0, 0.5, 1, 0.5});
    CHECK(values(grad1(sum(minimum(x, y)), y)) == std::vector<double>{0, 0.5, 1, 0.5});
  }
  SECTION("logsumexp of nothing but -inf") {
    const double inf = std::numeric_limits<double>::infinity();
    const Tensor x = leaf(g, {-inf, -inf, 0, -inf, 1000, 1001}, {3, 2});
    const std::vector<double> y = values(logsumexp(x, {1})), d = values(grad1(sum(logsumexp(x, {1})), x));
    CHECK(y[0] == -inf);
    CHECK(y[1] == 0);
    CHECK(y[2] == Approx(1001 + std::log1p(std::exp(-1.0))));
    CHECK(d[0] == 0);
    CHECK(d[1] == 0);
    CHECK(d[2] == 1);
    CHECK(d[3] == 0);
    CHECK(d[4] + d[5] == Approx(1));
  }
  SECTION("products with zeros, to the third order") {
    const Tensor x = leaf(g, {0, 2, 0, 5});
    CHECK(values(grad1(prod(x), x)) == std::vector<double>{0, 0, 0, 0});
    const Tensor d = grad1(prod(x), x);
    CHECK(values(grad1(sum(d), x)) == std::vector<double>{10, 0, 10, 0});  // d^2/dx0 dx2 = 2 * 5
    CHECK(values(grad1(sum(grad1(sum(d), x)), x)) == std::vector<double>{7 * 2, 10, 7 * 2, 4});
  }
  SECTION("kinks") {
    CHECK(values(grad1(sum(relu(z2)), z2)) == std::vector<double>{0, 0});
    CHECK(values(grad1(sum(abs(z2)), z2)) == std::vector<double>{0, 0});
  }
}

TEST_CASE("mistakes are reported once, with the op, both types and what to do") {
  auto rt = runtime();
  const auto error = [&](auto build) {
    Graph g(*rt);
    build(g);
    return g.status().message();
  };
  const auto contains = [](const std::string& text, std::initializer_list<std::string_view> parts) {
    INFO(text);
    for (std::string_view p : parts) CHECK(text.find(p) != std::string::npos);
  };
  contains(error([](Graph& g) {
             return leaf(g, {1, 2}) + leaf(g, {1, 2, 3});
           }),
           {"add:", "[2]", "[3]", "broadcast"});
  contains(error([](Graph& g) {
             return leaf(g, {1, 2}) * cast(leaf(g, {1}), DType::f32);
           }),
           {"mul:", "f64[2]", "f32[1]", "cast"});
  contains(error([](Graph& g) { return exp(cast(leaf(g, {1}), DType::i64)); }), {"exp:", "i64[1]", "cast"});
  contains(error([](Graph& g) { return sum(leaf(g, {1}), {1}); }), {"sum:", "axis 1", "rank 1"});
  contains(error([](Graph& g) { return sum(leaf(g, {1}, {1, 1}), {0, -2}); }), {"sum:", "twice"});
  contains(error([](Graph& g) {
             return reduce_max(leaf(g, {}, {2, 0}), {1});
           }),
           {"max:", "no elements", "f64[2, 0]"});
  contains(error([](Graph& g) { return var(leaf(g, {1}), {}, false, 1); }), {"var:", "ddof 1"});
  contains(error([](Graph& g) {
             return reshape(leaf(g, {1, 2, 3}), Shape{2, -1});
           }),
           {"reshape:", "f64[3]", "[2, -1]"});
  contains(error([](Graph& g) {
             return reshape(leaf(g, {}, {0, 3}), Shape{0, -1});
           }),
           {"reshape:", "[0, -1]"});
  contains(error([](Graph& g) {
             return transpose(leaf(g, {1, 2}, {1, 2}), {0});
           }),
           {"transpose:", "[0]", "rank 2"});
  contains(error([](Graph& g) {
             return broadcast_to(leaf(g, {1, 2}), Shape{3});
           }),
           {"broadcast_to:", "f64[2]", "[3]"});
  contains(error([](Graph& g) {
             return broadcast_to(leaf(g, {1}), Shape{1LL << 40, 1LL << 40});
           }),
           {"broadcast_to:", "memory"});
  contains(error([](Graph& g) { return slice(leaf(g, {1, 2}), {0}, {3}); }), {"slice:", "axis 0", "[2]"});
  contains(error([](Graph& g) { return slice(leaf(g, {1, 2}), {0}, {2}, {0}); }), {"slice:", "steps of 0"});
  contains(error([](Graph& g) { return narrow(leaf(g, {1, 2}), 0, 1, 2); }), {"narrow:", "axis 0"});
  contains(error([](Graph& g) { return squeeze(leaf(g, {1, 2}), 0); }), {"squeeze:", "f64[2]"});
  contains(error([](Graph& g) { return pad(leaf(g, {1}), {-1}, {0}); }), {"pad:", "[-1]"});
  contains(error([](Graph& g) {
             const Tensor xs[] = {leaf(g, {1, 2}, {1, 2}), leaf(g, {1, 2, 3}, {1, 3})};
             return concat(xs, 0);
           }),
           {"concat:", "f64[1, 2]", "f64[1, 3]", "axis 0"});
  contains(error([](Graph& g) { return where(leaf(g, {1}), leaf(g, {1}), leaf(g, {1})); }),
           {"where:", "bool"});
  contains(error([](Graph& g) { return gather(leaf(g, {1}), leaf(g, {0})); }), {"gather:", "i64", "f64[1]"});
  contains(error([](Graph& g) { return clamp(leaf(g, {1}), 2, 1); }), {"clamp:", "min"});
  contains(error([](Graph& g) {
             const Tensor i = cast(leaf(g, {1, 2}), DType::i64);
             return grad(i, {&i, 1})[0];
           }),
           {"grad:", "i64", "floating"});
  // A message is kept, and everything after it is null.
  Graph g(*rt);
  const Tensor bad = leaf(g, {1, 2}) + leaf(g, {1, 2, 3});
  const std::string first = g.status().message();
  CHECK(!exp(bad).valid());
  CHECK(!sum(leaf(g, {1}), {5}).valid());
  CHECK(!grad1(sum(bad), bad).valid());
  CHECK(g.status().message() == first);
}

TEST_CASE("indices out of range are errors that name them") {
  auto rt = runtime();
  for (double bad : {-1.0, 3.0}) {
    Graph g(*rt);
    const Tensor x = leaf(g, {1, 2, 3});
    const Tensor y = gather(x, cast(leaf(g, {0, bad}), DType::i64));
    const std::string message = y.valid() ? g.to_host(y).status().message() : g.status().message();
    INFO(message);
    CHECK(message.find("index " + std::to_string(static_cast<int>(bad)) + " at position 1") !=
          std::string::npos);
    CHECK(message.find("[0, 3)") != std::string::npos);
  }
}

TEST_CASE("attributes from outside are checked") {
  auto rt = runtime();
  const std::vector<int64_t> nine(9, 1);
  for (const char* id : {"reshape/1", "transpose/1", "broadcast_to/1", "flip/1"}) {
    Graph g(*rt);
    const Tensor x = leaf(g, {1});
    INFO(id);
    CHECK(!g.apply(*find_op(id), {x}, AttrList().ints(nine)).valid());
    CHECK(!g.status().is_ok());
  }
  Graph g(*rt);
  CHECK(!g.apply(*find_op("sum/1"), {leaf(g, {1})}, AttrList().ints(nine).i(0)).valid());
  Graph h(*rt);
  CHECK(!h.apply(*find_op("cast/1"), {leaf(h, {1})}, AttrList().i(7)).valid());
  Graph k(*rt);
  CHECK(!k.apply(*find_op("slice/1"), {leaf(k, {1})}, AttrList().ints(nine).ints(nine).ints({})).valid());
}

}  // namespace
}  // namespace tenon::test
