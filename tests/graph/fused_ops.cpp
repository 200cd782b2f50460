// Fused ops against the formulas they stand for, derivatives through shared inputs, and what they refuse.
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <limits>

#include "core/graph/grad.h"
#include "core/ops/ops.h"
#include "core/ops/sample_values.h"
#include "tests/support/device.h"

namespace tenon::test {
namespace {

Tensor leaf(Graph& g, const HostArray& h) {
  auto array = Array::from_host(g.backend(), h);
  REQUIRE(array);
  return g.input(*array);
}
Tensor leaf(Graph& g, const Shape& shape, uint64_t seed) { return leaf(g, sample_f64(shape, -1, 1, seed)); }

HostArray host(Tensor t) {
  REQUIRE(t.valid());
  const auto h = t.graph().to_host(t);
  INFO(h.status().message());
  REQUIRE(h);
  return *h;
}

void check_equal(Tensor a, Tensor b, double tolerance = 1e-12) {
  const HostArray x = host(a), y = host(b);
  REQUIRE(x.shape() == y.shape());
  for (int64_t i = 0; i < x.numel(); ++i) {
    CAPTURE(i, x.at(i), y.at(i));
    CHECK(std::fabs(x.at(i) - y.at(i)) <= tolerance * (1 + std::fabs(y.at(i))));
  }
}

// d <d<f(x), w>/dx, u>/dx, and the first derivative on the way.
template <class F>
std::pair<Tensor, Tensor> twice(Tensor x, F&& f) {
  const Tensor y = f(x);
  REQUIRE(y.valid());
  Graph& g = x.graph();
  const Tensor first = grad(sum(y * leaf(g, y.shape(), 50)), {&x, 1})[0];
  const Tensor second = grad(sum(first * leaf(g, x.shape(), 51)), {&x, 1})[0];
  return {first, second};
}
template <class F, class H>
void check_twice(Tensor x, F&& f, H&& composed) {
  check_equal(f(x), composed(x));
  const auto [f1, f2] = twice(x, f);
  const auto [c1, c2] = twice(x, composed);
  check_equal(f1, c1, 1e-10);
  check_equal(f2, c2, 1e-9);
}

template <class F>
std::string refusal(F&& f) {
  auto rt = runtime();
  Graph g(*rt);
  const Tensor y = f(g);
  if (y.valid() && g.status().is_ok()) {
    const auto h = g.to_host(y);  // what only the values can tell
    return h ? "" : h.status().message();
  }
  return g.status().message();
}
bool mentions(const std::string& message, std::string_view what) {
  INFO(message);
  return message.find(what) != std::string::npos;
}

TEST_CASE("linear is one product for all leading dimensions") {
  auto rt = runtime();
  Graph g(*rt);
  const Tensor w = leaf(g, {4, 3}, 2), b = leaf(g, {4}, 3);
  check_twice(
      leaf(g, {2, 5, 3}, 1), [&](Tensor x) { return tanh(linear(x, w, b)); },
      [&](Tensor x) { return tanh(sum(unsqueeze(x, 2) * w, {-1}) + b); });
  // A weight shared by a batch gets the sum of its derivatives.
  const Tensor x = leaf(g, {2, 5, 3}, 1);
  check_twice(
      w, [&](Tensor v) { return tanh(matmul(x, v, false, true)); },
      [&](Tensor v) { return tanh(sum(unsqueeze(x, 2) * v, {-1})); });
}

TEST_CASE("convolutions of one axis and pooling in its special cases") {
  auto rt = runtime();
  Graph g(*rt);
  const Tensor w = leaf(g, {4, 3, 2}, 2);
  // A kernel of two elements: two products of shifted inputs.
  check_twice(
      leaf(g, {2, 3, 7}, 1), [&](Tensor x) { return tanh(conv1d(x, w, 1, 0, 3)); },
      [&](Tensor x) {
        const auto tap = [&](int64_t k) {
          return matmul(squeeze(narrow(w, 2, k, 1), 2), narrow(x, 2, 3 * k, 4));
        };
        return tanh(tap(0) + tap(1));
      });
  const Tensor x = leaf(g, {2, 3, 4, 6}, 1);
  check_equal(adaptive_avg_pool2d(x, {2, 3}), avg_pool2d(x, {.kernel = {2, 2}}));
  check_equal(global_avg_pool2d(x), reshape(adaptive_avg_pool2d(x, {1, 1}), {2, 3}));
  check_equal(max_pool2d(x, {.kernel = {4, 6}}), reduce_max(x, {2, 3}, true));
  check_equal(
      neg(max_pool2d(neg(x), {.kernel = {3, 3}, .stride = {1, 1}, .padding = {1, 1}})),
      neg(reshape(
          take_along_axis(
              reshape(neg(x), {2, 3, 24}),
              reshape(max_pool2d_indices(neg(x), {.kernel = {3, 3}, .stride = {1, 1}, .padding = {1, 1}}),
                      {2, 3, 24}),
              2),
          {2, 3, 4, 6})));
  // Among equal elements the first gets the gradient.
  const Tensor flat = zeros(g, {1, 1, 2, 2}, DType::f64);
  const HostArray d = host(max_pool2d_grad(flat, ones(g, {1, 1, 1, 1}, DType::f64), {.kernel = {2, 2}}));
  CHECK((d.at(0) == 1 && d.at(1) == 0 && d.at(2) == 0 && d.at(3) == 0));
}

TEST_CASE("normalisation is its formula") {
  auto rt = runtime();
  Graph g(*rt);
  const double eps = 0.01;
  const Tensor gamma = leaf(g, {4}, 2), beta = leaf(g, {4}, 3);
  const auto standard = [&](Tensor x, const Axes& axes) {
    return (x - mean(x, axes, true)) * rsqrt(var(x, axes, true) + eps);
  };
  check_twice(
      leaf(g, {3, 4}, 1), [&](Tensor x) { return layer_norm(x, gamma, beta, eps); },
      [&](Tensor x) { return standard(x, {-1}) * gamma + beta; });
  check_twice(
      leaf(g, {3, 4}, 1), [&](Tensor x) { return rms_norm(x, gamma, eps); },
      [&](Tensor x) { return x * rsqrt(mean(square(x), {-1}, true) + eps) * gamma; });
  const auto wide = [](Tensor t) { return reshape(t, {4, 1}); };
  check_twice(
      leaf(g, {3, 4, 5}, 1), [&](Tensor x) { return batch_norm(x, gamma, beta, eps).y; },
      [&](Tensor x) {
        return standard(x, {0, 2}) * wide(gamma) + wide(beta);
      });
  check_twice(
      leaf(g, {3, 4, 5}, 1), [&](Tensor x) { return group_norm(x, 2, gamma, beta, eps); },
      [&](Tensor x) {
        const Tensor h = reshape(standard(reshape(x, {3, 2, 10}), {-1}), {3, 4, 5});
        return h * wide(gamma) + wide(beta);
      });
  // With the statistics of the batch, evaluation does what training does; they can be differentiated, too.
  check_twice(
      leaf(g, {3, 4, 5}, 1),
      [&](Tensor x) {
        const BatchNorm n = batch_norm(x, gamma, beta, eps);
        return batch_norm_eval(x, gamma, beta, n.mean, n.var, eps);
      },
      [&](Tensor x) { return batch_norm(x, gamma, beta, eps).y; });
}

TEST_CASE("batch norm of bf16 beside f32 is that of the images as f32") {
  auto rt = runtime();
  Graph g(*rt);
  const Tensor x = cast(leaf(g, {3, 4, 5}, 1), DType::bf16);
  const auto parameter = [&](uint64_t seed) { return cast(leaf(g, {4}, seed), DType::f32); };
  const Tensor gamma = parameter(2), beta = parameter(3);
  // The derivative in x, of all outputs at once.
  const auto derivative = [&](Tensor images) {
    const BatchNorm n = batch_norm(images, gamma, beta, 0.01);
    CHECK(n.y.dtype() == DType::f32);
    const Tensor known = batch_norm_eval(images, gamma, beta, n.mean, n.var, 0.01);
    const Tensor loss = mean(n.y * n.y * known) + sum(n.mean) + sum(n.var);
    return grad(loss, {&x, 1})[0];
  };
  const Tensor both[] = {derivative(cast(x, DType::f32)), derivative(x)};
  auto arrays = g.eval(both);
  REQUIRE(arrays);
  const HostArray e = (*arrays)[0].to_host().value(), a = (*arrays)[1].to_host().value();
  CHECK(a.dtype() == DType::bf16);
  for (int64_t i = 0; i < a.numel(); ++i) CHECK(std::abs(a.at(i) - e.at(i)) <= 0.02 * (std::abs(e.at(i)) + 0.1));

  Graph bad(*rt);
  batch_norm(cast(leaf(bad, {3, 4, 5}, 1), DType::bf16), leaf(bad, {4}, 2), leaf(bad, {4}, 3));
  CHECK(bad.status().message() == "batch_norm: mixes bf16[3, 4, 5] and f64[4]; cast one to the other's dtype");
}

TEST_CASE("cross-entropy is its formula, and an ignored label counts nothing") {
  auto rt = runtime();
  Graph g(*rt);
  const Tensor labels = leaf(g, sample_i64({2, -1, 0}, {3}));
  const Tensor counted = leaf(g, HostArray::of<double>({1, 0, 1}));
  check_twice(
      leaf(g, {3, 4}, 1),
      [&](Tensor x) { return cross_entropy(x, labels, {.label_smoothing = 0.2, .ignore_index = -1}); },
      [&](Tensor x) {
        const Tensor target = one_hot(labels, 4, DType::f64) * 0.8 + 0.05;
        return neg(sum(target * (x - logsumexp(x, {-1}, true)), {-1})) * counted;
      });
}

TEST_CASE("attention of a sequence to itself, to second order") {
  auto rt = runtime();
  Graph g(*rt);
  const Tensor mask = leaf(g, {1, 5}, 3), w = leaf(g, {3, 3}, 4);
  // The same tensor three times, and one input that depends on another: each gets its own share of the
  // derivative.
  for (bool dependent : {false, true}) {
    const auto keys = [&](Tensor x) { return dependent ? matmul(x, w) : x; };
    check_twice(
        leaf(g, {2, 5, 3}, 1),
        [&](Tensor x) { return scaled_dot_product_attention(x, keys(x), x, {.causal = true}, mask); },
        [&](Tensor x) {
          const Tensor s = matmul(x, keys(x), false, true) * (1 / std::sqrt(3.0)) + mask;
          const Tensor hidden = triu(ones(g, {5, 5}, DType::f64), 1) * -1e4;
          return matmul(softmax(s + hidden), x);
        });
  }
  // The mask's own derivative.
  const Tensor x = leaf(g, {2, 5, 3}, 1);
  check_twice(
      mask, [&](Tensor m) { return scaled_dot_product_attention(x, x, x, {.scale = 2}, m); },
      [&](Tensor m) { return matmul(softmax(matmul(x, x, false, true) * 2 + m), x); });
}

TEST_CASE("a query that sees no key gives zeros, and finite derivatives") {
  auto rt = runtime();
  Graph g(*rt);
  HostArray m(DType::f64, {2, 3});
  for (int64_t i = 0; i < 3; ++i) m.set(i, -std::numeric_limits<double>::infinity());
  const Tensor mask = leaf(g, m), x = leaf(g, {2, 2}, 1), k = leaf(g, {3, 2}, 2);
  const auto f = [&](Tensor q) { return scaled_dot_product_attention(q, k, k, {}, mask); };
  const HostArray y = host(f(x));
  CHECK((y.at(0) == 0 && y.at(1) == 0 && y.at(2) != 0));
  const auto [first, second] = twice(x, f);
  for (const Tensor& t : {first, second}) {
    const HostArray d = host(t);
    CHECK((d.at(0) == 0 && d.at(1) == 0));
    CHECK((std::isfinite(d.at(2)) && std::isfinite(d.at(3))));
  }
}

TEST_CASE("dropout keeps the mean and the gradient of what it keeps") {
  auto rt = runtime();
  Graph g(*rt);
  const Tensor x = ones(g, {10000}, DType::f64);
  const Tensor y = dropout(x, 0.25, g.key(7));
  const HostArray v = host(y), d = host(grad(sum(y), {&x, 1})[0]);
  double total = 0;
  for (int64_t i = 0; i < v.numel(); ++i) {
    CHECK((v.at(i) == 0 || v.at(i) == 1 / 0.75));
    CHECK(d.at(i) == v.at(i));
    total += v.at(i);
  }
  CHECK(std::fabs(total / 10000 - 1) < 0.03);  // five standard deviations
  CHECK(dropout(x, 0, g.key(7)) == x);
}

TEST_CASE("fused ops say what does not fit") {
  const auto zero = [](Graph& g, const Shape& s) { return zeros(g, s); };
  const auto m = [&](auto f) { return refusal(f); };
  CHECK(mentions(m([&](Graph& g) { return matmul(zero(g, {2, 3}), zero(g, {2, 3})); }), "inner dimensions"));
  CHECK(mentions(m([&](Graph& g) {
                   return matmul(zero(g, {2, 1, 3}), zero(g, {3, 3, 1}));
                 }),
                 "do not broadcast"));
  CHECK(mentions(m([&](Graph& g) { return matmul(zero(g, {3}), zero(g, {3, 1})); }), "wants matrices"));
  CHECK(mentions(m([&](Graph& g) { return matmul(zero(g, {1, 1}), ones(g, {1, 1}, DType::f64)); }), "mixes"));
  CHECK(mentions(m([&](Graph& g) { return conv2d(zero(g, {1, 3, 4, 4}), zero(g, {2, 2, 3, 3})); }), "group"));
  CHECK(mentions(m([&](Graph& g) {
                   return conv2d(zero(g, {1, 1, 2, 2}), zero(g, {1, 1, 3, 3}));
                 }),
                 "larger"));
  CHECK(mentions(m([&](Graph& g) {
                   return conv2d(zero(g, {1, 1, 2, 2}), zero(g, {1, 1, 1, 1}), {.stride = {0, 1}});
                 }),
                 "at least 1"));
  CHECK(mentions(m([&](Graph& g) { return conv1d(zero(g, {1, 2}), zero(g, {1, 1, 1})); }), "[B, C, T]"));
  CHECK(mentions(m([&](Graph& g) {
                   return max_pool2d(zero(g, {1, 1, 4, 4}), {.kernel = {2, 2}, .padding = {2, 2}});
                 }),
                 "half the kernel"));
  CHECK(mentions(m([&](Graph& g) { return adaptive_avg_pool2d(zero(g, {1, 1, 4, 4}), {1}); }), "1 numbers"));
  CHECK(mentions(m([&](Graph& g) {
                   return layer_norm(zero(g, {2, 3}), zero(g, {2}), zero(g, {2}));
                 }),
                 "[3]"));
  CHECK(mentions(m([&](Graph& g) {
                   return batch_norm(zero(g, {0, 3}), zero(g, {3}), zero(g, {3})).y;
                 }),
                 "empty batch"));
  CHECK(mentions(m([&](Graph& g) { return group_norm(zero(g, {2, 3}), 2, {}, {}); }), "multiple"));
  CHECK(mentions(m([&](Graph& g) { return softmax(zero(g, {2}), 1); }), "axis 1"));
  CHECK(mentions(m([&](Graph& g) {
                   return cross_entropy(zero(g, {2, 3}), arange(g, 3));
                 }),
                 "labels of shape [2]"));
  CHECK(mentions(m([&](Graph& g) {
                   return cross_entropy(zero(g, {4, 3}), arange(g, 4));
                 }),
                 "label 3 of sample 3"));
  CHECK(mentions(m([&](Graph& g) {
                   const Tensor q = zero(g, {3, 2}), k = zero(g, {2, 2});
                   return scaled_dot_product_attention(q, k, k, {.causal = true});
                 }),
                 "without any"));
  CHECK(mentions(m([&](Graph& g) { return dropout(zero(g, {2}), 1, g.key(1)); }), "[0, 1)"));
}

}  // namespace
}  // namespace tenon::test
