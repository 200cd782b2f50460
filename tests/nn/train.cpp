// A model trained from C++ through the graph alone: forward, grad, one evaluation a step.
#include <catch2/catch_test_macros.hpp>

#include "core/graph/grad.h"
#include "core/nn/layers.h"
#include "core/ops/ops.h"
#include "core/runtime.h"
#include "tests/support/device.h"

namespace tenon {
namespace {

// Plain gradient descent on two interleaved spirals' little brother: the sign of a product. Returns the
// losses.
std::vector<double> train(Runtime& rt, const nn::Layer& layer, int steps) {
  const auto model = nn::build(rt, layer, {{DType::f32, {1, 2}}}, {.seed = 3});
  INFO(model.status().message());
  REQUIRE(model.is_ok());
  Graph g(rt);
  std::vector<double> losses;
  for (int step = 0; step < steps; ++step) {
    nn::Context ctx(g, true, static_cast<uint64_t>(step));
    const Tensor x = random_normal(g.key(static_cast<uint64_t>(step) + 1000), {64, 2});
    const Tensor product = prod(x, {1});
    const Tensor label = cast(greater(product, zeros_like(product)), DType::i64);
    const Tensor loss = mean(cross_entropy((*model)(ctx, x), label));
    std::vector<Tensor> weights;
    for (const auto& p : model->parameters) weights.push_back(ctx.parameter(*p));
    const auto grads = grad(loss, weights);
    std::vector<Update> updates = ctx.updates();
    for (size_t i = 0; i < weights.size(); ++i)
      updates.push_back({model->parameters[i]->value, weights[i] - grads[i] * 0.5});
    const auto out = g.eval({&loss, 1}, updates);
    INFO(out.status().message() << g.status().message());
    REQUIRE(out.is_ok());
    losses.push_back((*out)[0].to_host()->at(0));
    g.reset();
  }
  return losses;
}

double mean_of_last(const std::vector<double>& v, size_t n) {
  double m = 0;
  for (size_t i = v.size() - n; i < v.size(); ++i) m += v[i] / static_cast<double>(n);
  return m;
}

TEST_CASE("a small network learns a product's sign, and the plan is made once") {
  auto rt = test::runtime();
  const auto layer = nn::sequential({nn::linear(32), nn::tanh(), nn::linear(2)});
  const auto losses = train(*rt, layer, 300);
  CHECK(losses[0] > 0.5);
  CHECK(mean_of_last(losses, 20) < 0.2);
  if (!rt->options().eager) CHECK(rt->stats().plan_misses < 5);
}

TEST_CASE("training repeats bit for bit") {
  auto rt = test::runtime();
  const auto layer =
      nn::sequential({nn::linear(16), nn::batch_norm(), nn::relu(), nn::dropout(0.2), nn::linear(2)});
  CHECK(train(*rt, layer, 20) == train(*rt, layer, 20));
}

TEST_CASE("a mixture of experts trains") {
  auto rt = test::runtime();
  const auto layer =
      nn::sequential({nn::linear(16), nn::moe({.experts = 4, .top_k = 2, .hidden = 16}), nn::linear(2)});
  CHECK(mean_of_last(train(*rt, layer, 300), 20) < 0.35);
}

}  // namespace
}  // namespace tenon
