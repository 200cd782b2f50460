// Layers that compute their inner values once more for their gradient: the same bits in less memory.
#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cmath>

#include "core/graph/grad.h"
#include "core/nn/layers.h"
#include "core/ops/checkpoint.h"
#include "core/ops/ops.h"
#include "core/runtime.h"
#include "tests/support/device.h"

namespace tenon {
namespace {

struct Step {
  std::vector<std::vector<double>> values;  // loss, gradients, or derivatives of their norm, new running statistics
  size_t arena = 0;
};

std::vector<double> numbers(const Array& a) {
  const HostArray h = a.to_host().value();
  std::vector<double> v;
  for (int64_t i = 0; i < h.numel(); ++i) v.push_back(h.at(i));
  return v;
}

Step step(const nn::Layer& layer, const HostArray& input, int order) {
  auto rt = test::runtime();
  const auto model = nn::build(*rt, layer, {TensorType{input.dtype(), input.shape()}}, {.seed = 3});
  INFO(model.status().message());
  REQUIRE(model.is_ok());
  Graph g(*rt);
  nn::Context ctx(g, true, 11);
  const Tensor y = (*model)(ctx, g.input(Array::from_host(rt->backend(), input).value()));
  std::vector<Tensor> weights;
  for (const auto& p : model->parameters) weights.push_back(ctx.parameter(*p));
  const Tensor loss = mean(square(y) + y);
  std::vector<Tensor> out = grad(loss, weights);
  if (order == 2) {
    Tensor norm = g.constant(0);
    for (const Tensor& d : out) norm = norm + sum(square(d));
    out = grad(norm, weights);
  }
  out.push_back(loss);
  const std::vector<Update> updates = ctx.updates();
  const auto values = g.eval(out, updates);
  INFO(values.status().message());
  REQUIRE(values.is_ok());
  Step s;
  for (const Array& a : *values) s.values.push_back(numbers(a));
  for (const Update& u : updates) s.values.push_back(numbers(u.target));
  s.arena = rt->stats().arena_bytes;
  return s;
}

HostArray tokens(int64_t batch, int64_t length, int64_t vocab) {
  HostArray t(DType::i64, {batch, length});
  for (int64_t i = 0; i < t.numel(); ++i) t.set(i, static_cast<double>((i * 7 + i / 5) % vocab));
  return t;
}

nn::Layer small_gpt(bool recompute, double dropout) {
  return nn::gpt({.layers = 6, .heads = 2, .width = 16, .vocab = 11, .context = 32, .dropout = dropout, .recompute = recompute});
}

TEST_CASE("recomputed blocks give the same gradients, with dropout too") {
  for (double dropout : {0.0, 0.25}) {
    INFO("dropout " << dropout);
    const HostArray x = tokens(3, 32, 11);
    const bool same = step(small_gpt(false, dropout), x, 1).values == step(small_gpt(true, dropout), x, 1).values;
    CHECK(same);
  }
}

// The terms of a second derivative are added in another order.
TEST_CASE("second derivatives through recomputed blocks are those of kept ones") {
  for (double dropout : {0.0, 0.25}) {
    const HostArray x = tokens(3, 32, 11);
    const auto kept = step(small_gpt(false, dropout), x, 2).values, again = step(small_gpt(true, dropout), x, 2).values;
    REQUIRE(kept.size() == again.size());
    for (size_t k = 0; k < kept.size(); ++k) {
      double largest = 0, difference = 0;
      for (size_t i = 0; i < kept[k].size(); ++i) {
        largest = std::max(largest, std::abs(kept[k][i]));
        difference = std::max(difference, std::abs(kept[k][i] - again[k][i]));
      }
      INFO("dropout " << dropout << ", tensor " << k);
      CHECK(difference <= 1e-5 * largest + 1e-9);
    }
  }
}

TEST_CASE("recomputed blocks need less memory") {
  if (test::options().eager) SKIP("an eager run keeps what the graph holds");
  for (double dropout : {0.0, 0.25}) {
    INFO("dropout " << dropout);
    const HostArray x = tokens(16, 32, 11);
    const size_t kept = step(small_gpt(false, dropout), x, 1).arena, recomputed = step(small_gpt(true, dropout), x, 1).arena;
    CHECK(recomputed * 2 < kept);
  }
}

TEST_CASE("running statistics of a recomputed layer move once") {
  HostArray x(DType::f32, {4, 3, 6, 6});
  for (int64_t i = 0; i < x.numel(); ++i) x.set(i, static_cast<double>(i % 17) / 9 - 1);
  const auto net = [](bool recompute) {
    const nn::Layer part = nn::sequential({nn::conv2d(5, {3}), nn::batch_norm(), nn::relu()});
    return nn::sequential({recompute ? nn::recomputed(part) : part, nn::conv2d(2, {3})});
  };
  const bool same = step(net(false), x, 1).values == step(net(true), x, 1).values;
  CHECK(same);
}

TEST_CASE("a checkpointed function has the function's derivative") {
  auto rt = test::runtime();
  Graph g(*rt);
  const Tensor x = g.input(Array::from_host(rt->backend(), HostArray::of<float>({0.5f, -1, 2})).value());
  const auto f = [](std::span<const Tensor> in) { return sum(exp(in[0]) * sin(in[0])); };
  const Tensor plain = f({&x, 1}), kept_less = checkpoint(f({&x, 1}), f, {&x, 1});
  const auto second = [&](Tensor y) { return grad(sum(grad(y, {&x, 1})[0]), {&x, 1})[0]; };
  const Tensor out[] = {grad(plain, {&x, 1})[0], grad(kept_less, {&x, 1})[0], second(plain), second(kept_less)};
  const auto values = g.eval(out);
  REQUIRE(values.is_ok());
  CHECK(numbers((*values)[0]) == numbers((*values)[1]));
  CHECK(numbers((*values)[2]) == numbers((*values)[3]));
}

}  // namespace
}  // namespace tenon
