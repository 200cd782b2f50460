// Layers: shapes, names, values against written-out formulas, state, sharing, and errors in words.
#include "core/nn/layers.h"

#include <catch2/catch_test_macros.hpp>
#include <cmath>

#include "core/graph/grad.h"
#include "core/ops/ops.h"
#include "core/runtime.h"
#include "tests/support/device.h"
#include "tests/support/values.h"

namespace tenon::nn {
namespace {

using test::values;

Model make(Runtime& rt, const Layer& layer, const TensorType& in, BuildOptions options = {.seed = 1}) {
  auto m = build(rt, layer, {in}, std::move(options));
  INFO(m.status().message());
  REQUIRE(m.is_ok());
  return std::move(m).value();
}

std::string error_of(Runtime& rt, const Layer& layer, const TensorType& in) {
  const auto m = build(rt, layer, {in});
  CHECK_FALSE(m.is_ok());
  return m.status().message();
}

bool contains(const std::string& text, const std::string& part) {
  INFO(text);
  const bool found = text.find(part) != std::string::npos;
  CHECK(found);
  return found;
}

double distance(const std::vector<double>& a, const std::vector<double>& b) {
  REQUIRE(a.size() == b.size());
  double d = 0;
  for (size_t i = 0; i < a.size(); ++i) d = std::max(d, std::abs(a[i] - b[i]));
  return d;
}

std::vector<std::string> names(const std::vector<ParameterPtr>& ps) {
  std::vector<std::string> n;
  for (const auto& p : ps) n.push_back(p->name);
  return n;
}

const TensorType kRows{DType::f32, {2, 6}}, kImages{DType::f32, {2, 3, 8, 8}},
    kSequence{DType::f32, {2, 5, 8}}, kTokens{DType::i64, {2, 5}};

using Names = std::vector<std::string>;

TEST_CASE("a sequence infers sizes and names its parameters") {
  auto rt = test::runtime();
  const Model m = make(*rt, sequential({linear(4), relu(), linear(3, {.bias = false})}), kRows);
  CHECK(names(m.parameters) == Names{"linear0.weight", "linear0.bias", "linear2.weight"});
  CHECK(m.output == TensorType{DType::f32, {2, 3}});
  CHECK(m.parameters[0]->value.shape() == Shape{4, 6});
  CHECK(m.parameter_count() == 4 * 6 + 4 + 3 * 4);
  CHECK(m.parameters[0]->decays());
  CHECK_FALSE(m.parameters[1]->decays());
}

TEST_CASE("initial values depend on seed and name alone") {
  auto rt = test::runtime();
  const auto first = [&](const Layer& l, uint64_t seed) {
    return make(*rt, l, kRows, {.seed = seed}).parameters[0]->value.to_host()->at(0);
  };
  CHECK(first(sequential({linear(4)}), 1) == first(sequential({linear(4), relu(), linear(9)}), 1));
  CHECK(first(sequential({linear(4)}), 1) != first(sequential({linear(4)}), 2));
}

TEST_CASE("convolutions, pools and shapes fit together") {
  auto rt = test::runtime();
  const auto shape = [&](const Layer& l, const TensorType& in) { return make(*rt, l, in).output.shape; };
  CHECK(shape(conv2d(4, {3}, {.padding = {1}}), kImages) == Shape{2, 4, 8, 8});
  CHECK(shape(conv2d(6, {3, 1}, {.stride = {2}, .groups = 3}), kImages) == Shape{2, 6, 3, 4});
  CHECK(shape(max_pool({2}), kImages) == Shape{2, 3, 4, 4});
  CHECK(shape(avg_pool({3}, {1}, {1}), kImages) == Shape{2, 3, 8, 8});
  CHECK(shape(adaptive_avg_pool({2}), kImages) == Shape{2, 3, 2, 2});
  CHECK(shape(global_avg_pool(), kImages) == Shape{2, 3});
  CHECK(shape(flatten(), kImages) == Shape{2, 192});
  CHECK(shape(reshape({3, -1}), kImages) == Shape{2, 3, 64});
  CHECK(shape(mean({1}), kSequence) == Shape{2, 8});
  const TensorType signal{DType::f32, {2, 3, 10}};
  CHECK(shape(conv1d(4, 3, {.stride = {2}}), signal) == Shape{2, 4, 4});
  CHECK(shape(max_pool({2}), signal) == Shape{2, 3, 5});
  CHECK(shape(batch_norm(), kImages) == Shape{2, 3, 8, 8});
  CHECK(shape(group_norm(3), kImages) == Shape{2, 3, 8, 8});
  CHECK(shape(mlp({.hidden = {5, 4}, .output = 3}), kImages) == Shape{2, 3});
}

TEST_CASE("dropout acts in training only and its key repeats it") {
  auto rt = test::runtime();
  const Model m = make(*rt, dropout(0.5), {DType::f32, {100, 20}});
  Graph g(*rt);
  const Tensor x = ones(g, {100, 20});
  Context eval(g, false), a(g, true, 1), b(g, true, 1), c(g, true, 2);
  const auto dropped = values(g, m(a, x));
  CHECK(values(g, m(eval, x)) == std::vector<double>(2000, 1));
  CHECK(dropped == values(g, m(b, x)));
  CHECK(dropped != values(g, m(c, x)));
  double mean = 0;
  for (double v : dropped) {
    CHECK((v == 0 || v == 2));
    mean += v / 2000;
  }
  CHECK(std::abs(mean - 1) < 0.12);
}

TEST_CASE("batch norm moves its running statistics as PyTorch does") {
  auto rt = test::runtime();
  const Model m = make(*rt, batch_norm(0.1), {DType::f32, {4, 1}});
  CHECK(names(m.states) == Names{"running_mean", "running_var"});
  Graph g(*rt);
  const Array x =
      Array::from_host(rt->backend(), HostArray::of<float>(std::vector<float>{1, 2, 3, 6}).reshaped({4, 1}))
          .value();
  Context train(g, true);
  const Tensor y = m(train, g.input(x));
  const auto out = g.eval({&y, 1}, train.updates());
  INFO(out.status().message());
  REQUIRE(out.is_ok());
  // Mean 3, population variance 3.5, sample variance 14/3.
  CHECK(std::abs((*out)[0].to_host()->at(0) + 2 / std::sqrt(3.5 + 1e-5)) < 1e-5);
  CHECK(std::abs(m.states[0]->value.to_host()->at(0) - 0.3) < 1e-6);
  CHECK(std::abs(m.states[1]->value.to_host()->at(0) - (0.9 + 0.1 * 14 / 3)) < 1e-6);
  g.reset();
  Context eval(g, false);
  const auto known = values(g, m(eval, g.input(x)));
  CHECK(std::abs(known[0] - 0.7 / std::sqrt(0.9 + 1.4 / 3 + 1e-5)) < 1e-5);
  CHECK(eval.updates().empty());
}

TEST_CASE("applied twice in a step, batch norm counts both batches") {
  auto rt = test::runtime();
  const Model m = make(*rt, batch_norm(0.5), {DType::f32, {4, 1}});
  Graph g(*rt);
  Context c(g, true);
  m(c, full(g, {4, 1}, 1));
  m(c, full(g, {4, 1}, 3));
  REQUIRE(c.updates().size() == 2);
  REQUIRE(g.eval({}, c.updates()).is_ok());
  CHECK(std::abs(m.states[0]->value.to_host()->at(0) - (0.5 * 0.5 * 1 + 0.5 * 3)) < 1e-6);
}

TEST_CASE("attention is causal and equals its formula") {
  auto rt = test::runtime();
  const Model m = make(*rt, attention({.heads = 2, .causal = true}), kSequence);
  CHECK(names(m.parameters) == Names{"qkv.weight", "qkv.bias", "proj.weight", "proj.bias"});
  Graph g(*rt);
  Context c(g, false);
  const Tensor x = random_normal(g.key(3), kSequence.shape);
  // Changing the last position leaves the others as they are.
  const Tensor changed = concat(std::vector<Tensor>{narrow(x, 1, 0, 4), narrow(x, 1, 4, 1) + 1.0}, 1);
  const Tensor y = m(c, x), z = m(c, changed);
  CHECK(distance(values(g, narrow(y, 1, 0, 4)), values(g, narrow(z, 1, 0, 4))) < 1e-6);
  CHECK(distance(values(g, narrow(y, 1, 4, 1)), values(g, narrow(z, 1, 4, 1))) > 1e-3);

  const auto p = [&](size_t i) { return c.parameter(*m.parameters[i]); };
  const Tensor packed = tenon::linear(x, p(0), p(1));
  std::vector<Tensor> heads;
  for (int64_t h = 0; h < 2; ++h) {
    const Tensor q = narrow(packed, 2, h * 4, 4), k = narrow(packed, 2, 8 + h * 4, 4),
                 v = narrow(packed, 2, 16 + h * 4, 4);
    const Tensor scores = matmul(q, k, false, true) * 0.5 + triu(full(g, {5, 5}, -1e9), 1);
    heads.push_back(matmul(tenon::softmax(scores), v));
  }
  CHECK(distance(values(g, y), values(g, tenon::linear(concat(heads, 2), p(2), p(3)))) < 1e-5);
}

TEST_CASE("attention with dropout agrees with attention without on average") {
  auto rt = test::runtime();
  const Model m = make(*rt, attention({.heads = 2, .causal = true, .dropout = 1e-9}), kSequence);
  Graph g(*rt);
  const Tensor x = random_normal(g.key(3), kSequence.shape);
  Context eval(g, false),
      train(g, true, 4);  // a rate this small drops nothing: the written-out form must agree
  CHECK(distance(values(g, m(eval, x)), values(g, m(train, x))) < 1e-5);
}

TEST_CASE("in mixed precision layers read bf16, and weights get gradients that are not rounded") {
  auto rt = test::runtime();
  const Model m = make(*rt, gpt({.layers = 2, .heads = 2, .width = 8, .vocab = 11, .context = 5}), kTokens);
  HostArray tokens(DType::i64, {2, 5});
  for (int64_t i = 0; i < 10; ++i) tokens.set(i, static_cast<double>(i * i % 11));
  Graph g(*rt);
  const auto step = [&](bool mixed) {
    Context c(g, true);
    c.mixed = mixed;
    const Tensor logits = m(c, g.input(Array::from_host(rt->backend(), tokens).value()));
    std::vector<Tensor> weights, out{logits};
    for (const ParameterPtr& p : m.parameters) weights.push_back(c.parameter(*p));
    for (const Tensor& t : grad(mean(square(logits)), weights)) out.push_back(t);
    return out;
  };
  const std::vector<Tensor> full = step(false), mixed = step(true);
  bool rounded_gradients = true;
  for (size_t i = 0; i < full.size(); ++i) {
    const std::vector<double> a = values(g, full[i]), b = values(g, mixed[i]);
    double size = 0;
    for (const double v : a) size = std::max(size, std::abs(v));
    CHECK(mixed[i].dtype() == DType::f32);
    CHECK(distance(a, b) <= 0.05 * size + 1e-6);
    CHECK(distance(a, b) > 0);
    for (const double v : b) {
      const double narrow = static_cast<double>(static_cast<float>(bf16(static_cast<float>(v))));
      if (i == 0)
        CHECK(v == narrow);  // activations are rounded
      else
        rounded_gradients &= v == narrow;
    }
  }
  CHECK_FALSE(rounded_gradients);
}

TEST_CASE("a mixture of experts equals its experts applied token by token") {
  auto rt = test::runtime();
  const Model m = make(
      *rt,
      moe({.experts = 4, .top_k = 2, .hidden = 6, .activation = "relu", .bias = true, .normalize = true}),
      kSequence);
  CHECK(names(m.parameters) == Names{"up.weight", "down.weight", "up.bias", "down.bias", "router.weight"});
  Graph g(*rt);
  Context c(g, false);
  const Tensor x = random_normal(g.key(5), kSequence.shape);
  const Tensor y = m(c, x);
  REQUIRE(c.routings.size() == 1);
  CHECK(values(g, sum(c.routings[0].load)) == std::vector<double>{20});

  const auto p = [&](size_t i) { return c.parameter(*m.parameters[i]); };
  const Tensor flat = tenon::reshape(x, {10, 8});
  const Tensor probability = tenon::softmax(tenon::linear(flat, p(4)));
  const Ranked top = top_k(probability, 2);
  const Tensor share = top.values / sum(top.values, {1}, true);
  Tensor expected = zeros_like(flat);
  for (int64_t e = 0; e < 4; ++e) {
    const auto part = [&](size_t i) { return squeeze(narrow(p(i), 0, e, 1), 0); };
    const Tensor h = tenon::relu(matmul(flat, part(0)) + part(2));
    const Tensor chosen =
        cast(equal(top.indices, full(g, {10, 2}, static_cast<double>(e), DType::i64)), DType::f32);
    expected = expected + (matmul(h, part(1)) + part(3)) * sum(chosen * share, {1}, true);
  }
  CHECK(distance(values(g, y), values(g, expected)) < 1e-5);

  // With a router of its own that gives nothing any weight, only the shared expert is left.
  std::shared_ptr<MoeRouter> slot;
  const auto keep = [&](const Module& layer, const std::shared_ptr<MoeRouter>& router) {
    CHECK(layer.type() == "moe");
    slot = router;
  };
  const Model shared = make(*rt, moe({.experts = 4, .top_k = 2, .hidden = 6, .activation = "relu", .shared_experts = 2, .built = keep}), kSequence);
  CHECK(names(shared.parameters) ==
        Names{"up.weight", "down.weight", "router.weight", "shared_up.weight", "shared_down.weight"});
  slot->route = [](Context& ctx, Tensor logits, int64_t k) {
    return Routing{zeros(ctx.graph(), {logits.dim(0), k}, DType::i64),
                   zeros(ctx.graph(), {logits.dim(0), k})};
  };
  Context own(g, false);
  const auto weight = [&](size_t i) { return own.parameter(*shared.parameters[i]); };
  CHECK(weight(3).shape() == Shape{12, 8});
  const Tensor alone = tenon::linear(tenon::relu(tenon::linear(flat, weight(3))), weight(4));
  CHECK(distance(values(g, shared(own, x)), values(g, alone)) < 1e-6);
}

TEST_CASE("gpt ties its output to the embedding and starts near the uniform distribution") {
  auto rt = test::runtime();
  const GptOptions options{
      .layers = 2, .heads = 2, .width = 16, .vocab = 11, .context = 5, .bias = false, .tied = true};
  const Model m = make(*rt, gpt(options), kTokens);
  CHECK(m.output == TensorType{DType::f32, {2, 5, 11}});
  // Embedding, positions, and per block 12 C^2 and two norms, then the last norm.
  CHECK(m.parameter_count() == 11 * 16 + 5 * 16 + 2 * (12 * 16 * 16 + 2 * 16) + 16);
  Graph g(*rt);
  Context c(g, true, 1);
  const Tensor x = random_integers(g.key(1), kTokens.shape, 0, 11);
  const Tensor labels = random_integers(g.key(2), kTokens.shape, 0, 11);
  const Tensor loss = tenon::mean(cross_entropy(m(c, x), labels));
  const auto v = g.value(loss);
  REQUIRE(v.is_ok());
  CHECK(std::abs(*v - std::log(11.0)) < 0.2);
  const Tensor table = c.parameter(*m.parameters[0]);
  CHECK(values(g, reduce_max(abs(grad(loss, {&table, 1})[0])))[0] > 0);
}

TEST_CASE("blocks with experts build and run") {
  auto rt = test::runtime();
  const Model m =
      make(*rt, transformer_block({.heads = 2, .moe = MoeOptions{.experts = 3, .top_k = 1}}), kSequence);
  CHECK(m.output == kSequence);
}

TEST_CASE("residual connections add, through a shortcut where shapes change") {
  auto rt = test::runtime();
  const Layer zero = linear(6, {.bias = false, .init = init::constant(0)});
  const Model same = make(*rt, residual({zero}), kRows);
  Graph g(*rt);
  Context c(g, false);
  const Tensor x = random_normal(g.key(1), kRows.shape);
  CHECK(values(g, same(c, x)) == values(g, x));
  const Model other = make(*rt, residual({linear(3)}, {linear(3)}), kRows);
  CHECK(names(other.parameters)[2] == "shortcut.linear0.weight");
  contains(error_of(*rt, residual({linear(3)}), kRows), "shortcut");
}

TEST_CASE("named graphs join branches") {
  auto rt = test::runtime();
  const Layer g2 =
      graph({"a", "b"},
            {{.name = "left", .layers = {linear(4)}, .inputs = {"a"}},
             {.name = "right", .layers = {linear(4), relu()}, .inputs = {"b"}},
             {.name = "both", .layers = {linear(2)}, .inputs = {"left", "right"}, .join = Join::concat}});
  auto m = build(*rt, g2, {kRows, kRows});
  INFO(m.status().message());
  REQUIRE(m.is_ok());
  CHECK(m->output.shape == Shape{2, 2});
  CHECK(m->parameters.back()->name == "both.linear0.bias");
  CHECK(m->parameters[4]->value.shape() == Shape{2, 8});
  Graph g(*rt);
  Context c(g, false);
  const Tensor in[] = {ones(g, {2, 6}), ones(g, {2, 6})};
  (*m)(c, in);
  CHECK(c.output_of("left").shape() == Shape{2, 4});
  CHECK_FALSE(c.output_of("middle").valid());
  contains(error_of(*rt, graph({"x"}, {{.name = "n", .layers = {relu()}, .inputs = {"y"}}}), kRows), "'y'");
  contains(error_of(*rt, graph({"x"}, {{.name = "x", .layers = {relu()}}}), kRows), "called 'x'");
}

TEST_CASE("a substitute stands for a parameter, and gradients reach it") {
  auto rt = test::runtime();
  const Model m = make(*rt, linear(1, {.bias = false}), kRows);
  Graph g(*rt);
  Context c(g, true);
  const Tensor w = full(g, {1, 6}, 2);
  c.substitute(*m.parameters[0], w);
  const Tensor y = m(c, ones(g, {2, 6}));
  CHECK(values(g, y) == std::vector<double>{12, 12});
  CHECK(values(g, grad(y, {&w, 1})[0]) == std::vector<double>(6, 2));
}

TEST_CASE("models share parameters by name") {
  auto rt = test::runtime();
  const Model a = make(*rt, sequential({linear(4), linear(3)}), kRows);
  const auto share = [&](const std::string& name) {
    return name.starts_with("linear0") ? a.parameters[name.ends_with("bias")] : nullptr;
  };
  const Model b = make(*rt, sequential({linear(4), linear(3)}), kRows, {.seed = 2, .share = share});
  CHECK(b.parameters[0] == a.parameters[0]);
  CHECK(b.parameters[1] == a.parameters[1]);
  CHECK(b.parameters[2] != a.parameters[2]);
  const auto bad = build(*rt, sequential({linear(5)}), {kRows}, {.share = share});
  contains(bad.status().message(), "must be f32[5, 6]");
}

TEST_CASE("layers that do not fit say which, where and what they want") {
  auto rt = test::runtime();
  contains(error_of(*rt, sequential({relu(), linear(0)}), kRows), "layer 'linear1' (linear): units is 0");
  contains(error_of(*rt, sequential({conv2d(4, {3})}), kRows), "wants floating [N, C, H, W], got f32[2, 6]");
  contains(error_of(*rt, conv2d(4, {3}, {.groups = 2}), kImages), "groups = 2 must divide the 3 input");
  contains(error_of(*rt, sequential({max_pool({9})}), kImages), "layer 'max_pool0' (max_pool)");
  contains(error_of(*rt, attention({.heads = 3}), kSequence), "divisible by heads = 3");
  contains(error_of(*rt, embedding(5, 4), kRows), "wants i32 or i64");
  contains(error_of(*rt, gpt({.vocab = 5, .context = 3}), kTokens), "length = 3");
  contains(error_of(*rt, moe({.experts = 2, .top_k = 3}), kSequence), "top_k = 3");
  contains(error_of(*rt, mlp({.hidden = {3}, .activation = "rellu"}), kRows), "'relu'");
  contains(error_of(*rt, sequential({linear(4, {.tied_to = "tokns.weight"})}), kRows), "tokns.weight");
  contains(error_of(*rt, dropout(1), kRows), "less than 1");
  contains(error_of(*rt, linear(int64_t{1} << 60), kRows), "too large");
  contains(error_of(*rt, conv2d(1, {int64_t{1} << 32}), kImages), "too large");
  Layer twin = linear(4);
  twin.name = "same";
  contains(error_of(*rt, sequential({twin, twin}), kRows), "'same.weight'");
}

}  // namespace
}  // namespace tenon::nn
