// Fusion: how many kernels a graph becomes, and that it keeps every bit.
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "core/graph/grad.h"
#include "core/ops/ops.h"
#include "core/plan/passes.h"
#include "core/runtime.h"
#include "tests/plan/passes.h"
#include "tests/support/device.h"

namespace tenon {
namespace {

using test::check;
using test::Ran;
using test::random_array;

// Kernel counts are those of a lazy run on a backend that fuses, with all passes on.
bool counts_hold() {
  auto rt = test::runtime();
  const RuntimeOptions& o = rt->options();
  return !o.eager && rt->backend().fuses("add/1", DType::f32) && o.pass_cse && o.pass_simplify &&
         o.pass_fuse && o.pass_rows;
}

// Rows x, their maximum-margin log-sum-exp against label y, averaged, and the derivative.
std::vector<Tensor> margin_loss(Graph& g, Tensor x, Tensor y) {
  const Tensor label = unsqueeze(y, 1);
  const Tensor wrong = cast(not_equal(unsqueeze(arange(g, x.dim(1), y.dtype()), 0), label), x.dtype());
  const Tensor z = (x - take_along_axis(x, label, 1) + 0.1 * wrong) / 0.7;
  const Tensor loss = mean(0.7 * (logsumexp(z, {1}) - 3.0));
  return {loss, grad(loss, {{x}})[0]};
}

TEST_CASE("a loss over rows and its derivative are one pass over the logits") {
  std::mt19937 rng(1);
  HostArray y(DType::i64, Shape{300});
  for (int64_t& v : y.as<int64_t>()) v = static_cast<int64_t>(rng() % 200);
  const HostArray in[] = {random_array(rng, {300, 200}), y};
  const Ran ran = check(in, [](Graph& g, std::span<const Tensor> t) { return margin_loss(g, t[0], t[1]); });
  // Class numbers, factors of the derivative, the piece over the logits, what is left of each row, its mean.
  if (counts_hold()) CHECK(ran.kernels <= 6);
}

TEST_CASE("a class number's indicator is compared where it is read") {
  std::mt19937 rng(5);
  for (const DType t : {DType::i32, DType::i64}) {
    HostArray y(t, Shape{20, 15});
    for (int64_t i = 0; i < y.numel(); ++i)
      y.set(i, static_cast<double>(rng() % 202) - 1);  // -1 and 200: none
    const HostArray in[] = {random_array(rng, {20, 15, 200}), y};
    const Ran ran = check(in, [](Graph&, std::span<const Tensor> x) -> std::vector<Tensor> {
      return {x[0] * one_hot(x[1], 200) - 0.5, cast(one_hot(x[1], 200, DType::boolean), DType::i64)};
    });
    // Numbers of the places, the product, the whole numbers.
    if (counts_hold() && test::runtime()->options().pass_expand) CHECK(ran.kernels <= 4);
  }
}

TEST_CASE("gradients of slices that lie side by side are laid side by side, with the bits of their sum") {
  std::mt19937 rng(6);
  HostArray factor = random_array(rng, {6, 7, 12});
  for (size_t i = 0; i < 100; ++i)
    factor.as<float>()[5 * i] = i % 2 ? -0.0f : std::numeric_limits<float>::quiet_NaN();
  const HostArray in[] = {random_array(rng, {6, 7, 12}), factor};
  for (const int axis : {0, 1, 2}) {
    const int64_t n = in[0].shape()[axis];
    const auto whole = [&](Graph&, std::span<const Tensor> t) -> std::vector<Tensor> {
      const auto part = [&](Tensor x, int64_t begin, int64_t end) {
        return narrow(x, axis, begin, end - begin);
      };
      Tensor y = sum(part(t[0], 2, 5) * part(t[1], 2, 5));
      y = y + sum(part(t[0], 0, 2) * part(t[1], 0, 2)) + sum(part(t[0], 5, n) * part(t[1], 5, n));
      return {grad(y, {{t[0]}})[0]};
    };
    const Ran ran = check(in, whole);
    for (const float v : ran.values[0].as<float>()) CHECK_FALSE((v == 0 && std::signbit(v)));
    // Overlapping, or with a gap: a sum.
    check(in, [&](Graph&, std::span<const Tensor> t) -> std::vector<Tensor> {
      const Tensor a = narrow(t[0], axis, 0, 4), b = narrow(t[0], axis, 3, n - 3),
                   c = narrow(t[0], axis, 5, n - 5);
      return {grad(sum(square(a)) + sum(exp(b)), {{t[0]}})[0],
              grad(sum(square(a)) + sum(exp(c)), {{t[0]}})[0]};
    });
  }
}

TEST_CASE("a fold may lie between any two element-wise chains") {
  std::mt19937 rng(2);
  const HostArray in[] = {random_array(rng, {260, 130}), random_array(rng, {130}),
                          random_array(rng, {260, 1})};
  const Ran ran = check(in, [](Graph&, std::span<const Tensor> t) -> std::vector<Tensor> {
    const Tensor centred = t[0] - mean(t[0], {1}, true);
    const Tensor scale = rsqrt(mean(square(centred), {1}, true) + 1e-5);
    const Tensor y = centred * scale * t[1] + t[2];
    const Tensor loss = sum(square(y));
    std::vector<Tensor> out = grad(loss, t);
    out.push_back(y);
    out.push_back(sum(square(grad(loss, {{t[0]}})[0])));
    out.push_back(grad(out.back(), {{t[0]}})[0]);
    return out;
  });
  CHECK(ran.kernels > 0);
}

TEST_CASE("a value that is folded, and used elsewhere, is computed once and kept") {
  std::mt19937 rng(3);
  const HostArray in[] = {random_array(rng, {256, 128})};
  check(in, [](Graph&, std::span<const Tensor> t) -> std::vector<Tensor> {
    const Tensor e = exp(t[0]), total = sum(e, {1});
    // Through views of its own, as columns and as rows of a square.
    const Tensor square_part = slice(e, {0, 0}, {128, 128}) + narrow(total, 0, 0, 128);
    return {e / unsqueeze(total, 1), total, square_part, transpose(e), reshape(total, {16, 16}) + 1.0};
  });
}

TEST_CASE("a vector that is the sum of rows does not overwrite itself while rows still read it") {
  // v <- A v by element-wise product and fold: v is a row of the piece and what the piece writes.
  std::mt19937 rng(4);
  const HostArray a = random_array(rng, {256, 256}), v = random_array(rng, {256});
  const auto step = [&](const RuntimeOptions& options) {
    auto rt = test::runtime(options);
    Array va = Array::from_host(rt->backend(), v).value();
    Graph g(*rt);
    const Tensor t = g.input(va), m = g.input(Array::from_host(rt->backend(), a).value());
    const Update u[] = {{va, sum(m * t, {1})}};
    REQUIRE(g.eval({}, u).is_ok());
    return va.to_host().value();
  };
  RuntimeOptions none = test::options();
  REQUIRE(set_passes(none, "-all").is_ok());
  const HostArray with = step(test::options()), without = step(none);
  CHECK(std::memcmp(with.data(), without.data(), with.size_bytes()) == 0);
}

TEST_CASE("parts of a joined vector are read where they lie") {
  std::mt19937 rng(5);
  const HostArray in[] = {random_array(rng, {70, 3}), random_array(rng, {5000}), random_array(rng, {1}),
                          random_array(rng, {5211})};
  const auto build = [](Graph& g, std::span<const Tensor> t) -> std::vector<Tensor> {
    const std::vector<Tensor> parts{reshape(t[0] * 2.0, {210}), t[1], zeros(g, {0}), t[2]};
    return {t[3] - concat(parts, 0) * 0.5};
  };
  const Ran ran = check(in, build);
  if (counts_hold() && test::runtime()->options().pass_joins) CHECK(ran.kernels == 2);
  // Read by others too, it is made.
  check(in, [&](Graph& g, std::span<const Tensor> t) -> std::vector<Tensor> {
    const std::vector<Tensor> parts{reshape(t[0] * 2.0, {210}), t[1], zeros(g, {0}), t[2]};
    const Tensor joined = concat(parts, 0);
    return {t[3] - joined * 0.5, sum(square(joined)), joined};
  });
}

TEST_CASE("a product adds its bias and applies relu itself, with the bits of a sum and a relu") {
  std::mt19937 rng(6);
  const auto size = [&](int64_t most) {
    return static_cast<int64_t>(1 + rng() % static_cast<uint64_t>(most));
  };
  for (int trial = 0; trial < 12; ++trial) {
    const int64_t rows = size(trial < 6 ? 70 : 300), from = size(trial < 6 ? 130 : 800),
                  to = size(trial < 6 ? 70 : 520);
    CAPTURE(rows, from, to);
    const HostArray in[] = {random_array(rng, {rows, from}), random_array(rng, {to, from}),
                            random_array(rng, {to}), random_array(rng, {2, rows, from})};
    const Ran ran = check(in, [](Graph&, std::span<const Tensor> t) -> std::vector<Tensor> {
      return {relu(linear(t[0], t[1], t[2])), linear(t[3], t[1], t[2])};
    });
    const RuntimeOptions o = test::runtime()->options();
    if (counts_hold() && o.pass_epilogue) CHECK(ran.kernels == 2);
    check(in, [](Graph&, std::span<const Tensor> t) -> std::vector<Tensor> {
      const Tensor x = cast(t[3], DType::bf16), w = cast(t[1], DType::bf16);
      return {relu(matmul(t[0], t[1], false, true)), relu(linear(t[3], t[1], t[2])),
              relu(mixed_linear(t[3], t[1], t[2])), relu(mixed_linear(x, w, t[2])), relu(mixed_linear(x, w))};
    });
    // Rounded to bf16 and widened, the layers of a model in mixed precision: one product each.
    const auto layers = [](Graph&, std::span<const Tensor> t) -> std::vector<Tensor> {
      const Tensor w = cast(t[1], DType::bf16);
      const Tensor h = relu(cast(mixed_linear(cast(t[3], DType::bf16), w, t[2]), DType::f32));
      const Tensor y = mixed_linear(cast(h, DType::bf16), transpose(w));
      return {h, y, grad(sum(square(cast(y, DType::f32))), {{t[3]}})[0]};
    };
    check(in, layers);
    const Ran forward = check(
        in, [&](Graph& g, std::span<const Tensor> t) -> std::vector<Tensor> { return {layers(g, t)[1]}; });
    if (counts_hold() && o.pass_epilogue) CHECK(forward.kernels == 4);  // two casts to bf16, two products
    // Nothing is taken that others read too, nor a sum that is not one vector for all rows.
    check(in, [](Graph&, std::span<const Tensor> t) -> std::vector<Tensor> {
      const Tensor y = matmul(t[0], t[1], false, true), z = linear(t[0], t[1], t[2]);
      return {y + t[2], y * 2.0, matmul(t[0], t[0], false, true) + matmul(t[0], t[0], false, true),
              relu(z) + z, relu(relu(linear(t[3], t[1], t[2])))};
    });
    check(in, [](Graph&, std::span<const Tensor> t) -> std::vector<Tensor> {
      const Tensor z = relu(matmul(relu(linear(t[0], t[1], t[2])), t[1]));
      return grad(sum(square(z)), t.subspan(0, 3));
    });
  }
}

TEST_CASE("relu in a product keeps NaN, signs of zero and the smallest numbers") {
  constexpr float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  std::mt19937 rng(7);
  // Each column of the product is 0 and its bias; 40 of them: whole vectors and a rest.
  HostArray zeros(DType::f32, Shape{40, 3}), bias(DType::f32, Shape{40});
  for (float& v : zeros.as<float>()) v = 0;
  const float special[] = {nan, -1, -3e38f, -1e-40f, -0.f, 0, 1e-40f, 1, 3e38f, inf};
  for (int64_t i = 0; i < 40; ++i) bias.as<float>()[static_cast<size_t>(i)] = special[i % 10];
  HostArray overflows = bias;
  overflows.as<float>()[11] = -inf;
  const HostArray in[] = {random_array(rng, {20, 3}), zeros, bias, overflows};
  const auto build = [](Graph&, std::span<const Tensor> t) -> std::vector<Tensor> {
    return {relu(linear(t[0], t[1], t[2])), relu(mixed_linear(t[0], t[1], t[2])),
            relu(linear(t[0], t[1], t[3]))};
  };
  RuntimeOptions without = test::options();
  without.pass_epilogue = false;
  const Ran got = test::run(test::options(), in, build), expected = test::run(without, in, build);
  for (size_t k = 0; k < 3; ++k)
    for (int64_t i = 0; i < got.values[k].numel(); ++i) {
      CAPTURE(k, i);
      const double x = got.values[k].at(i), y = expected.values[k].at(i);
      const bool overflowed = k == 2 && i % 40 == 11;  // the one value that may differ
      if (std::isnan(y) || (overflowed && std::isnan(x)))
        CHECK(std::isnan(x));
      else
        CHECK((x == y && std::signbit(x) == std::signbit(y)));
      if (i % 40 == 0) CHECK(std::isnan(x));
    }
}

TEST_CASE("a narrow value is widened where it is read, be it by a chain or a fold") {
  std::mt19937 rng(8);
  const HostArray in[] = {random_array(rng, {40, 200}), random_array(rng, {200})};
  const Ran ran = check(in, [](Graph&, std::span<const Tensor> t) -> std::vector<Tensor> {
    const Tensor narrow = cast(exp(t[0]), DType::bf16), wide = cast(narrow, DType::f32);
    // A chain, one that is not joined with it by the matrix product between them, and folds along either
    // axis.
    const Tensor y = matmul(wide * t[1], t[0], false, true);
    return {cast(wide, DType::bf16), sum(wide, {0}), reduce_max(wide, {1}), (wide + 1.0) * matmul(y, t[0]),
            wide};
  });
  CHECK(ran.values[0].dtype() == DType::bf16);

  const Ran kept = check(in, [](Graph&, std::span<const Tensor> t) -> std::vector<Tensor> {
    const Tensor narrow = cast(exp(t[0]), DType::bf16);
    return {narrow, sum(cast(narrow, DType::f32), {0})};
  });
  if (counts_hold() && test::runtime()->options().pass_widen) CHECK(kept.kernels == 2);
}

TEST_CASE("batch norm reads narrow images, and its derivative gives such, unless it is wanted wide as well") {
  std::mt19937 rng(10);
  for (const Shape& shape : {Shape{3, 5, 4, 7}, Shape{6, 5}, Shape{2, 5, 3}}) {
    const HostArray in[] = {random_array(rng, shape), random_array(rng, {5}), random_array(rng, {5})};
    const auto build = [](bool wide, bool twice) {
      return [=](Graph&, std::span<const Tensor> t) {
        const Tensor narrow = cast(t[0], DType::bf16), x = cast(narrow, DType::f32);
        const Tensor loss = mean(square(square(batch_norm(x, t[1], t[2], 1e-3).y)));
        std::vector<Tensor> out = grad(loss, {{wide ? x : narrow, t[1], t[2]}});
        if (twice) out = grad(sum(square(cast(out[0], DType::f32))) + sum(out[1]), {{narrow, t[1]}});
        return out;
      };
    };
    const Ran ran = check(in, build(false, false));
    CHECK(ran.values[0].dtype() == DType::bf16);
    const Ran kept = check(in, build(true, false));
    CHECK(kept.values[0].dtype() == DType::f32);
    check(in, build(false, true));
    RuntimeOptions without = test::options();
    without.pass_widen = false;
    const int64_t saved = test::run(without, in, build(false, false)).kernels - ran.kernels;
    if (counts_hold() && test::options().pass_widen) CHECK(saved == (shape == Shape{3, 5, 4, 7} ? 1 : 0));
  }
}

TEST_CASE("the operands of a mixed product are rounded once, and what is narrow already not at all") {
  std::mt19937 rng(9);
  const HostArray in[] = {random_array(rng, {40, 60}), random_array(rng, {30, 60}), random_array(rng, {30})};
  const Ran ran = check(in, [](Graph&, std::span<const Tensor> t) -> std::vector<Tensor> {
    const Tensor x = cast(t[0], DType::bf16);
    const Tensor y = mixed_linear(x, t[1], t[2]), z = mixed_linear(cast(x, DType::f32), t[1]);
    return {y, z};
  });
  // Two casts, two products.
  if (counts_hold() && test::runtime()->options().pass_expand) CHECK(ran.kernels == 4);
}

TEST_CASE("a chain that goes around a product does not swallow what the product reads") {
  std::mt19937 rng(7);
  const HostArray in[] = {random_array(rng, {24, 24}), random_array(rng, {24, 24}), random_array(rng, {24})};
  check(in, [](Graph&, std::span<const Tensor> t) -> std::vector<Tensor> {
    const Tensor h = relu(t[0] * 2.0), y = linear(h, t[1], t[2]);
    const Tensor error = mean(square((h + 1.0) * y));
    const Tensor loss = error + sum(square(grad(error, t.first(1))[0]));
    std::vector<Tensor> out = grad(loss, t);
    out.push_back(loss);
    return out;
  });
}

TEST_CASE("passes are named, and a wrong name is told") {
  RuntimeOptions o;
  REQUIRE(set_passes(o, "-all,cse").is_ok());
  CHECK((o.pass_cse && !o.pass_fuse && !o.pass_inplace));
  REQUIRE(set_passes(o, "fuse,-cse").is_ok());
  CHECK((!o.pass_cse && o.pass_fuse));
  const Status s = set_passes(o, "-fues");
  CHECK(s.message() == "no planner pass 'fues' (did you mean 'fuse'?)");
}

}  // namespace
}  // namespace tenon
