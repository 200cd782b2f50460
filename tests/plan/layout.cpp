// Images stay channels-last between convolutions: the same bits, and no copies on the way.
#include <catch2/catch_test_macros.hpp>
#include <random>

#include "core/graph/grad.h"
#include "core/ops/ops.h"
#include "tests/plan/passes.h"

namespace tenon {
namespace {

using test::check;
using test::Ran;
using test::random_array;

struct Dice {
  uint32_t seed = std::random_device{}();
  std::mt19937 rng{seed};
  int64_t pick(int64_t lo, int64_t hi) { return std::uniform_int_distribution<int64_t>(lo, hi)(rng); }
};

// Values of the network, gradients of its loss, and gradients of their squares.
std::vector<Tensor> to_second_order(Tensor y, std::span<const Tensor> x) {
  const Tensor loss = mean(square(y));
  std::vector<Tensor> out{y}, first = grad(loss, x);
  Tensor squares;
  for (const Tensor& g : first) squares = squares.valid() ? squares + sum(square(g)) : sum(square(g));
  const std::vector<Tensor> second = grad(squares, x);
  out.insert(out.end(), first.begin(), first.end());
  out.insert(out.end(), second.begin(), second.end());
  return out;
}

bool kept() {
  auto rt = test::runtime();
  return !rt->options().eager && rt->options().pass_layout && rt->backend().name() == "cpu";
}

TEST_CASE("a residual network has the same bits in either layout, to the second derivative") {
  Dice dice;
  CAPTURE(dice.seed);
  for (int trial = 0; trial < 6; ++trial) {
    const int64_t groups = trial % 3 == 0 ? 2 : 1, c = dice.pick(1, 5) * groups,
                  o = dice.pick(1, 20) * groups;
    const int64_t batch = trial == 0 ? 37 : dice.pick(1, 5), h = dice.pick(5, 12), w = dice.pick(5, 12);
    CAPTURE(trial, groups, c, o, batch, h, w);
    const Conv2dOptions first{{dice.pick(1, 2), 1}, {dice.pick(0, 2), 1}, {1, 1}, groups};
    const Conv2dOptions same{{1, 1}, {1, 1}, {1, 1}, groups};
    const Pool2dOptions windows =
        trial % 2 == 0 ? Pool2dOptions{{2, 2}} : Pool2dOptions{{3, 2}, {1, 2}, {1, 0}};
    const HostArray in[] = {random_array(dice.rng, {batch, c, h, w}),
                            random_array(dice.rng, {o, c / groups, 3, 3}),
                            random_array(dice.rng, {o, 1, 1}),
                            random_array(dice.rng, {o, o / groups, 3, 3}),
                            random_array(dice.rng, {o}),
                            random_array(dice.rng, {o})};
    check(in, [&](Graph&, std::span<const Tensor> t) {
      const Tensor x = relu(conv2d(t[0], t[1], first) + t[2]);
      const Tensor y = x + relu(batch_norm(conv2d(x, t[3], same), t[4], t[5], 1e-3).y);
      const Tensor pooled = max_pool2d(conv2d(y, t[3], same), windows);
      const Tensor z = tanh(avg_pool2d(pooled + sum(pooled, {2, 3}, true), {{1, 2}, {1, 1}}));
      return to_second_order(concat({{reshape(z, {batch, -1}), global_avg_pool2d(y)}}, 1), t);
    });
  }
}

TEST_CASE("signals of one dimension, slices and transposes have the same bits in either layout") {
  Dice dice;
  CAPTURE(dice.seed);
  const HostArray in[] = {random_array(dice.rng, {3, 4, 19}), random_array(dice.rng, {6, 4, 3}),
                          random_array(dice.rng, {6, 3, 3}), random_array(dice.rng, {3, 19, 6})};
  check(in, [](Graph&, std::span<const Tensor> t) {
    const Tensor y = relu(conv1d(t[0], t[1], 1, 1)),
                 z = conv1d(y, t[2], 1, 1, 1, 2) * transpose(t[3], {0, 2, 1});
    const Tensor part = narrow(z, 1, 1, 4) + narrow(narrow(y, 0, 2, 1), 1, 2, 4) * sum(y) - 1.0;
    return to_second_order(matmul(reshape(part, {3, 4, 19}), softmax(z, 2), false, true), t);
  });
}

TEST_CASE("images that come channels-last are read so") {
  Dice dice;
  CAPTURE(dice.seed);
  const HostArray in[] = {random_array(dice.rng, {5, 8, 6, 7}), random_array(dice.rng, {3, 7, 3, 3}),
                          random_array(dice.rng, {7}), random_array(dice.rng, {7})};
  check(in, [](Graph&, std::span<const Tensor> t) {
    const Tensor x = transpose(t[0], {0, 3, 1, 2});
    const BatchNorm n = batch_norm(x, t[2], t[3], 1e-3);
    const Tensor y = conv2d(max_pool2d(n.y, {{2, 2}}), t[1]);
    return to_second_order(concat({{reshape(y, {5, -1}), reshape(max_pool2d(x, {{2, 3}}), {5, -1})}}, 1), t);
  });
}

TEST_CASE("between convolutions nothing is copied") {
  Dice dice;
  const HostArray in[] = {random_array(dice.rng, {4, 3, 12, 12}), random_array(dice.rng, {16, 3, 3, 3}),
                          random_array(dice.rng, {16, 16, 3, 3}), random_array(dice.rng, {16}),
                          random_array(dice.rng, {16})};
  const Ran ran = check(in, [](Graph&, std::span<const Tensor> t) -> std::vector<Tensor> {
    const Tensor x = relu(batch_norm(conv2d(t[0], t[1]), t[3], t[4], 1e-3).y);
    return {conv2d(max_pool2d(x + 1.0, {{2, 2}}), t[2])};
  });
  // Two convolutions, batch norm, what lies between as one piece, the pool, and a row-major copy of the
  // result.
  if (kept() && test::options().pass_fuse) CHECK(ran.kernels == 6);
}

}  // namespace
}  // namespace tenon
