// Balancing by a bias: selection and update of the router, the layer it serves beside the module of the same layer, the
// baseline's loss, the best balanced assignment against a search, the theory's facts on fixed scores.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
#include <map>
#include <random>

#include "core/golden/golden.h"
#include "tests/plugins/loss_call.h"
#include "tests/support/opened.h"

namespace tenon::test {
namespace {

using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::WithinAbs;
using Catch::Matchers::WithinRel;

// Six tokens of which five prefer expert 0, two of these strongly, and one prefers expert 1; K = 1 gives loads 5, 1, 0.
HostArray six_tokens() { return reals({6, 3}, {2, -1, -2, 3, 0, -1, 1, 0.5, 0, 0.5, 0.4, 0, 0.3, 0, 0.2, -1, 1, 0}); }

golden::Case routed(const Options& options, const HostArray& logits = six_tokens()) {
  golden::Case c;
  c.name = c.target = "router:alf_lb";
  c.kind = "router";
  c.id = "alf_lb";
  c.options = options;
  c.options.emplace("top_k", int64_t{1});
  c.inputs = {{"logits", logits}};
  return c;
}

golden::Expected expected(const HostArray& a) { return {a, true, false}; }

std::string problem(Runtime& rt, const golden::Case& c) {
  const golden::CaseResult r = golden::run(rt, shipped(), c);
  std::string s = r.status.message();
  for (const golden::Comparison& v : r.values)
    if (!v.passed) s += v.key + ": got " + std::to_string(v.got) + ", expected " + std::to_string(v.expected) + " at " + std::to_string(v.place) + v.problem;
  return s.empty() ? "none" : s;
}

// What differs from this bias after so many steps on the same logits.
std::string bias_after(Runtime& rt, const Options& options, int64_t steps, const std::vector<double>& bias) {
  golden::Case c = routed(options);
  c.repeat = steps;
  c.expected = {{"state:bias", expected(reals({3}, bias))}};
  return problem(rt, c);
}

std::string text(const char* s) { return s; }

struct Run : Opened {
  explicit Run(const std::string& text) : Opened(shipped(), text) {}
};

std::string recipe(const std::string& router, const std::string& rest = "loss { id: 'cross_entropy' } ", const std::string& moe = "activation: 'relu'") {
  return "data { format: 'synthetic' options { kind: 'blobs' n: 96 features: 6 classes: 3 noise: 0.4 } test_split { count: 24 } } "
         "model { layer { moe { experts: 4 top_k: 2 hidden: 5 shared_experts: 1 " + moe + " router { " + router + " } } } layer { linear {} } } "
         "optimizer { id: 'sgd' options { lr: 0.2 } } train { steps: 40 batch_size: 24 } precision: f64 seed: 3 " + rest;
}

}  // namespace

TEST_CASE("the bias follows the error of the loads by each rule") {
  auto rt = runtime();
  const Options raw = {{"normalize_error", false}, {"update_rate", 1e-6}};  // too small to move a token
  const auto with = [&](const char* rule) {
    Options o = raw;
    o["update_rule"] = text(rule);
    return o;
  };
  // L - A = -3, 1, 2 in every step; 1 + 1/2 and 1 + 1/sqrt(2) after two.
  CHECK(bias_after(*rt, with("sign"), 2, {-2e-6, 2e-6, 2e-6}) == "none");
  CHECK(bias_after(*rt, with("constant"), 2, {-6e-6, 2e-6, 4e-6}) == "none");
  CHECK(bias_after(*rt, with("inverse"), 2, {-4.5e-6, 1.5e-6, 3e-6}) == "none");
  const double r = 1 + 1 / std::sqrt(2.0);
  CHECK(bias_after(*rt, with("inverse_sqrt"), 2, {-3e-6 * r, 1e-6 * r, 2e-6 * r}) == "none");
  CHECK(bias_after(*rt, with("none"), 2, {0, 0, 0}) == "none");
  Options relative = with("constant");
  relative["normalize_error"] = true;
  CHECK(bias_after(*rt, relative, 1, {-1.5e-6, 0.5e-6, 1e-6}) == "none");
  Options centered = with("sign");
  centered["center_bias"] = true;
  CHECK(bias_after(*rt, centered, 1, {-4e-6 / 3, 2e-6 / 3, 2e-6 / 3}) == "none");
  Options scaled = with("sign");
  scaled["bias_mode"] = text("multiplicative");
  CHECK(bias_after(*rt, scaled, 1, {1 - 1e-6, 1 + 1e-6, 1 + 1e-6}) == "none");
}

TEST_CASE("the bias decides who is chosen and not what the choice weighs") {
  auto rt = runtime();
  const double s0 = 1 / (1 + std::exp(-0.5)), s1 = 1 / (1 + std::exp(-0.4));
  golden::Case c = routed({}, reals({1, 3}, {0.5, 0.4, 0}));
  c.expected = {{"selected", expected(reals({1, 1}, {0}))}, {"gates", expected(reals({1, 3}, {s0, 0, 0}))}};
  CHECK(problem(*rt, c) == "none");
  c.inputs.emplace_back("bias", reals({3}, {-0.1, 0, 0}));
  c.expected = {{"selected", expected(reals({1, 1}, {1}))}, {"gates", expected(reals({1, 3}, {0, s1, 0}))}};
  CHECK(problem(*rt, c) == "none");
  c.options["bias_mode"] = text("multiplicative");
  c.inputs.back().second = reals({3}, {1, 1, 2});
  c.expected = {{"gates", expected(reals({1, 3}, {0, 0, 0.5}))}};
  CHECK(problem(*rt, c) == "none");
  // Without a token the loads are 0 and the bias stays.
  golden::Case none = routed({}, HostArray(DType::f64, {0, 3}));
  none.expected = {{"state:bias", expected(reals({3}, {0, 0, 0}))}, {"state:updates", expected(reals({}, {0}))}, {"max_vio", expected(reals({}, {0}))}};
  CHECK(problem(*rt, none) == "none");
}

TEST_CASE("in training each layer's bias moves after the step, by that step's loads, and evaluation leaves it alone") {
  Run run(recipe("id: 'alf_lb' options { update_rate: 0.25 }", "loss { id: 'cross_entropy' } metric { id: 'max_vio' } "));
  const StepResult first = run.step(0);
  CHECK(first.parts.at("model.moe0/max_vio") >= 0);
  auto saved = run.saved();
  double moved = 0;
  for (int64_t e = 0; e < 4; ++e) {
    moved += std::abs(saved.at("router/model.moe0/bias").at(e));
    CHECK(std::remainder(saved.at("router/model.moe0/bias").at(e), 0.25) == 0);
    CHECK(saved.at("router/model.moe0/load").at(e) == 0);
  }
  CHECK(moved > 0);
  CHECK(saved.at("router/model.moe0/updates").at(0) == 1);
  REQUIRE(run.experiment->evaluate("test", 1).is_ok());
  CHECK(run.saved().at("router/model.moe0/bias").at(0) == saved.at("router/model.moe0/bias").at(0));

  // Many small steps bring the loads closer together than no balancing does.
  Run balanced(recipe("id: 'alf_lb' options { update_rate: 0.01 }")), plain(recipe("id: 'topk'"));
  double with = 0, without = 0;
  for (int64_t k = 0; k < 40; ++k) {
    const double a = balanced.step(k).parts.at("model.moe0/max_vio"), b = plain.step(k).parts.at("model.moe0/max_vio");
    if (k >= 20) with += a, without += b;
  }
  CHECK(with < without);
  // An unused bias is no bias.
  Run unused(recipe("id: 'alf_lb' options { update_rule: 'none' }")), again(recipe("id: 'topk'"));
  for (int64_t k = 0; k < 3; ++k) CHECK(unused.step(k).loss == again.step(k).loss);
}

TEST_CASE("the layer of a model and the module of the same layer agree") {
  Run run(recipe("id: 'alf_lb' options { update_rule: 'none' }"));
  REQUIRE(run.experiment);
  const auto saved = run.saved();
  const auto joined = [](HostArray shared, const HostArray& routed, bool transpose) {  // [1 + E, I, O]; shared [O, I]
    const int64_t in = routed.shape()[1], out = routed.shape()[2], each = in * out;
    HostArray w(DType::f64, {1 + routed.shape()[0], in, out});
    for (int64_t i = 0; i < in; ++i)
      for (int64_t o = 0; o < out; ++o) w.set(i * out + o, shared.at(transpose ? o * in + i : i * out + o));
    for (int64_t i = 0; i < routed.numel(); ++i) w.set(each + i, routed.at(i));
    return w;
  };
  Graph graph(*run.runtime);
  const Batch batch = run.experiment->training_batch(0, nullptr).value();
  run.experiment->objective().begin(batch, run.experiment->training_info(0));
  Pass* pass = run.experiment->objective().forward(graph).value();
  const HostArray inside = graph.to_host(run.experiment->objective().resolve(graph, *pass, "model.moe0").value()).value();

  golden::Case c;
  c.name = c.target = "module:deepseek_moe";
  c.kind = "module";
  c.id = "deepseek_moe";
  c.options = {{"routed_experts", int64_t{4}}, {"residual", false}};
  c.inputs = {{"x", batch.at("x").to_host().value()},
              {"gate_weight", saved.at("model.moe0.router.weight")},
              {"bias", reals({4}, {0, 0, 0, 0})},
              {"w1", joined(saved.at("model.moe0.shared_up.weight"), saved.at("model.moe0.up.weight"), true)},
              {"w2", joined(saved.at("model.moe0.shared_down.weight"), saved.at("model.moe0.down.weight"), true)}};
  c.expected = {{"y", expected(inside)}};
  c.rtol = 1e-10;
  CHECK(problem(*run.runtime, c) == "none");
}

TEST_CASE("the auxiliary loss is alpha where routing is uniform, in the router and beside it") {
  auto rt = runtime();
  const unsigned seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 rng(seed);
  std::normal_distribution<double> normal;
  HostArray z(DType::f64, {5, 4});
  for (int64_t i = 0; i < z.numel(); ++i) z.set(i, normal(rng));
  const auto call = [](const HostArray& logits, const std::vector<int64_t>& load, const Options& options) {
    return LossCall{"moe_load_balance", options, {{"logits", logits}, {"load", numbers(load)}}};
  };
  const HostArray flat = reals({2, 4}, std::vector<double>(8, 0.3));
  for (const char* gate : {"sigmoid", "softmax"})
    CHECK_THAT(loss_of(*rt, call(flat, {1, 1, 1, 1}, {{"alpha", 0.02}, {"gate", text(gate)}})).loss(), WithinRel(0.02, 1e-12));
  for (const Options& o : {Options{{"gate", text("softmax")}}, Options{}, Options{{"normalize", false}}}) check_derivatives(*rt, call(z, {4, 3, 2, 1}, o), "logits");
  CHECK_THAT(refusal(*rt, call(z, {5, 5}, {})), ContainsSubstring("the load is of 2 experts, the logits of 4"));
  CHECK_THAT(refusal(*rt, call(z, {4, 3, 2, 1}, {{"alpha", -1.0}})), ContainsSubstring("'alpha'"));

  Run inside(recipe("id: 'alf_lb' options { update_rule: 'none' aux_alpha: 0.5 }"));
  Run beside(recipe("id: 'topk'",
                    "loss { id: 'cross_entropy' } loss { id: 'moe_load_balance' options { alpha: 0.5 } bind { role: 'logits' to: 'model.moe0.router' } "
                    "bind { role: 'load' to: 'model.moe0.load' } } "));
  for (int64_t k = 0; k < 3; ++k) {
    const StepResult a = inside.step(k), b = beside.step(k);
    CHECK_THAT(a.parts.at("model.moe0/balance"), WithinRel(b.parts.at("moe_load_balance"), 1e-12));
  }
  CHECK_THAT(inside.saved().at("model.moe0.router.weight").at(0), WithinRel(beside.saved().at("model.moe0.router.weight").at(0), 1e-12));
}

TEST_CASE("the best balanced assignment is that of a search") {
  const unsigned seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 rng(seed);
  std::uniform_real_distribution<double> uniform;
  auto rt = runtime();
  for (int trial = 0; trial < 10; ++trial) {
    const int64_t tokens = 6, experts = 3;
    HostArray s(DType::f64, {tokens, experts});
    for (int64_t i = 0; i < s.numel(); ++i) s.set(i, trial == 0 ? std::round(2 * uniform(rng)) : uniform(rng) + (i % experts == 0 ? 0.5 : 0));
    double best = -1;
    for (int code = 0; code < 729; ++code) {
      double value = 0;
      int load[3] = {};
      for (int64_t i = 0, rest = code; i < tokens; ++i, rest /= 3) value += s.at(i * experts + rest % 3), ++load[rest % 3];
      if (load[0] == 2 && load[1] == 2) best = std::max(best, value);
    }
    golden::Case c = routed({});
    c.inputs = {{"scores", s}};
    c.expected = {{"optimal_value", expected(reals({}, {best}))}};
    CHECK(problem(*rt, c) == "none");
  }
}

TEST_CASE("on fixed scores the facts of the theory hold in every iteration") {
  Run run("data { format: 'synthetic' options { kind: 'blobs' n: 96 features: 6 classes: 3 noise: 0.4 } } model { layer { linear {} } } "
          "procedure { id: 'balance_scores' options { experts: 8 iterations: 300 update_rule: 'inverse' update_rate: 0.02 normalize_error: false } } "
          "precision: f64 seed: 5 ");
  REQUIRE(run.experiment);
  Observer quiet;
  const auto summary = run_recipe(*run.experiment, nullptr, quiet);
  INFO(summary.status().message());
  REQUIRE(summary.is_ok());
  const MetricValues& m = summary->metrics;
  CHECK(m.at("fact1_error") < 1e-12);
  CHECK(m.at("fact2_violations") == 0);
  CHECK(m.at("switches") > 0);
  CHECK(m.at("least_gap") >= -1e-12);
  CHECK(m.at("gap") < 1e-3);
  CHECK(m.at("final_violation") < 0.5 * m.at("start_violation"));

  Run uneven("data { format: 'synthetic' options { kind: 'blobs' n: 25 features: 6 } } model { layer { linear {} } } procedure { id: 'balance_scores' } ");
  REQUIRE(uneven.experiment);
  CHECK_THAT(run_recipe(*uneven.experiment, nullptr, quiet).status().message(), ContainsSubstring("25 tokens with 2 experts each can't be spread evenly over 16"));
  Run few("data { format: 'synthetic' options { kind: 'blobs' n: 24 features: 6 } } model { layer { linear {} } } "
          "procedure { id: 'balance_scores' options { experts: 4 top_k: 5 } } ");
  CHECK_THAT(few.status.message(), ContainsSubstring("top_k is 5, but there are only 4 experts"));
}

TEST_CASE("what the routers can't use is refused in a sentence") {
  auto rt = runtime();
  const auto refused = [&](const Options& options, const HostArray& logits = six_tokens(), const HostArray* bias = nullptr) {
    golden::Case c = routed(options, logits);
    if (bias) c.inputs.emplace_back("bias", *bias);
    c.expected = {{"load", expected(reals({3}, {0, 0, 0}))}};
    return golden::run(*rt, shipped(), c).status.message();
  };
  CHECK_THAT(refused({{"top_k", int64_t{0}}}), ContainsSubstring("'top_k'"));
  CHECK_THAT(refused({{"top_k", int64_t{4}}}), ContainsSubstring("top_k is 4, but there are only 3 experts"));
  CHECK_THAT(refused({{"update_rate", -0.1}}), ContainsSubstring("'update_rate'"));
  CHECK_THAT(refused({{"update_rule", text("signs")}}), ContainsSubstring("'signs'"));
  CHECK_THAT(refused({{"aux_alpha", -1.0}}), ContainsSubstring("'aux_alpha'"));
  CHECK_THAT(refused({}, reals({1, 3}, {1, NAN, 0})), ContainsSubstring("a logit of the router is not finite"));
  const HostArray wrong = reals({2}, {0, 0});
  CHECK_THAT(refused({}, six_tokens(), &wrong), ContainsSubstring("slot 'bias'"));

  Run nowhere(recipe("id: 'alf_lb'", "loss { id: 'cross_entropy' } "));
  nowhere.step(0);
  for (const nn::ParameterPtr& p : nowhere.experiment->objective().models[0].model.parameters)
    if (p->name == "moe0.router.weight") {
      HostArray bad = p->value.to_host().value();
      bad.set(0, NAN);
      REQUIRE(p->value.assign(bad).is_ok());
    }
  Graph graph(*nowhere.runtime);
  CHECK_THAT(training_step(*nowhere.experiment, graph, 1).status().message(), ContainsSubstring("model.moe0") && ContainsSubstring("not finite"));
}

}  // namespace tenon::test
