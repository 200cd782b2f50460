// EQ-Net's quantizer and losses: every form against its formulas, the elastic tables against single forms, refusals.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
#include <random>

#include "core/graph/grad.h"
#include "core/ops/elementwise.h"
#include "core/ops/reduce.h"
#include "core/plugin/quantizer.h"
#include "tests/plugins/loss_call.h"
#include "tests/support/device.h"

namespace tenon::test {
namespace {

using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::WithinAbs;
using Catch::Matchers::WithinRel;

const QuantSite kWeight{.name = "w", .flags = TN_SITE_WEIGHT}, kActivation{.name = "a", .flags = TN_SITE_ACTIVATION};

HostArray random_values(std::mt19937& rng, const Shape& shape, double shift = 0) {
  std::normal_distribution<double> normal;
  HostArray a(DType::f64, shape);
  for (int64_t i = 0; i < a.numel(); ++i) a.set(i, normal(rng) + shift);
  return a;
}

std::unique_ptr<Instance> make(Runtime& runtime, const Options& options, const QuantSite& site, const HostArray& x, Catalog& catalog = shipped()) {
  auto made = Instance::create(catalog, TN_KIND_QUANTIZER, "elastic_lsq", "elastic_lsq", options);
  INFO(made.status().message());
  REQUIRE(made.is_ok());
  Graph graph(runtime);
  const Status s = init_quantizer(**made, graph, {.train = true}, site, graph.input(Array::from_host(runtime.backend(), x).value()));
  INFO(s.message());
  REQUIRE(s.is_ok());
  return std::move(*made);
}

std::string refusal(const Options& options) {
  const auto made = Instance::create(shipped(), TN_KIND_QUANTIZER, "elastic_lsq", "elastic_lsq", options);
  return made ? "accepted" : made.status().message();
}

HostArray slot(const Instance& q, const std::string& name) {
  const Instance::Slot& s = q.slots().at(name);
  return (s.kind == TN_SLOT_TRAINABLE ? s.trainable[0]->value : s.values[0]).to_host().value();
}

// y, and the gradients of the sum of g times y with respect to x and the named slots.
std::vector<HostArray> quantised(Runtime& runtime, Instance& q, const QuantSite& site, int64_t choice, const HostArray& x, const HostArray& g,
                                 const std::vector<std::string>& slots) {
  Graph graph(runtime);
  const auto input = [&](const HostArray& a) { return graph.input(Array::from_host(runtime.backend(), a).value()); };
  const Tensor in = input(x);
  auto r = quantize(q, graph, {.train = true}, site, choice, in);
  INFO(r.status().message());
  REQUIRE(r.is_ok());
  std::vector<Tensor> xs = {in};
  for (const std::string& s : slots) xs.push_back(graph.input(q.slots().at(s).trainable[0]->value));
  std::vector<Tensor> wanted = {r->y};
  for (const Tensor& d : grad(sum(r->y * input(g)), xs)) wanted.push_back(d);
  auto arrays = graph.eval(wanted);
  INFO(arrays.status().message());
  REQUIRE(arrays.is_ok());
  std::vector<HostArray> out;
  for (const Array& a : *arrays) out.push_back(a.to_host().value());
  return out;
}

}  // namespace

TEST_CASE("a quantised tensor and its gradients follow the formulas in every form") {
  const unsigned seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 rng(seed);
  auto rt = runtime();
  for (const int64_t bits : {2, 3, 8})
    for (const bool symmetric : {true, false})
      for (const bool per_channel : {true, false})
        for (const bool official : {true, false}) {
          CAPTURE(bits, symmetric, per_channel, official);
          const HostArray x = random_values(rng, {3, 2, 5}, 0.4), g = random_values(rng, {3, 2, 5});
          const auto q = make(*rt, {{"bits", bits}, {"symmetric", symmetric}, {"per_channel", per_channel},
                                    {"grad_scale", std::string(official ? "official" : "lsq")}}, kWeight, x);
          std::vector<std::string> trained = {"scale"};
          if (!symmetric) trained.emplace_back("offset");
          const auto got = quantised(*rt, *q, kWeight, 0, x, g, trained);
          const HostArray scale = slot(*q, "scale"), offset = slot(*q, "offset");
          const int64_t channels = per_channel ? 3 : 1, n = 30 / channels;
          REQUIRE(scale.numel() == channels);
          const double half = std::pow(2, static_cast<double>(bits) - 1), qn = -half, qp = half - 1;
          const double c = official && per_channel ? 2 / std::sqrt(qp * 30 / 2) : 1 / std::sqrt(qp * static_cast<double>(n));
          for (int64_t ch = 0; ch < channels; ++ch) {
            double ds = 0, db = 0;
            for (int64_t i = ch * n; i < (ch + 1) * n; ++i) {
              const double s = std::abs(scale.at(ch)) + 1e-6, beta = offset.at(ch), v = (x.at(i) - beta) / s;
              const double r = std::nearbyint(std::min(std::max(v, qn), qp)), inside = v >= qn && v <= qp;
              CHECK_THAT(got[0].at(i), WithinAbs(r * s + beta, 1e-12));
              CHECK_THAT(got[1].at(i), WithinAbs(g.at(i) * inside, 1e-12));
              ds += c * g.at(i) * (r - inside * v);
              db += c * g.at(i) * (1 - inside);
            }
            CHECK_THAT(got[2].at(ch), WithinAbs(ds, 1e-10));
            if (!symmetric) CHECK_THAT(got[3].at(ch), WithinAbs(db, 1e-10));
          }
        }
}

TEST_CASE("each form of an elastic site is the single form of its bits, granularity and symmetry") {
  std::mt19937 rng(3);
  auto rt = runtime();
  const HostArray w = random_values(rng, {4, 6}), a = random_values(rng, {5, 6}, 0.3), g = random_values(rng, {4, 6});
  const Options elastic = {{"elastic", true}};
  const auto all = make(*rt, elastic, kWeight, w);
  const std::vector<int64_t> codes = quantizer_choices(*all, kWeight).value();
  REQUIRE(codes.size() == 28);
  CHECK(std::is_sorted(codes.begin(), codes.end()));
  for (size_t k = 0; k < codes.size(); ++k) {
    const int64_t bits = codes[k] / 4;
    const bool per_channel = codes[k] & 2, symmetric = codes[k] & 1;
    CAPTURE(bits, per_channel, symmetric);
    const std::string table = per_channel ? "scale_channel" : "scale_tensor";
    const auto one = make(*rt, {{"bits", bits}, {"symmetric", symmetric}, {"per_channel", per_channel}}, kWeight, w);
    const auto expected = quantised(*rt, *one, kWeight, 0, w, g, {"scale"});
    const auto got = quantised(*rt, *all, kWeight, static_cast<int64_t>(k), w, g, {table});
    for (int64_t i = 0; i < w.numel(); ++i) {
      CHECK(got[0].at(i) == expected[0].at(i));
      CHECK(got[1].at(i) == expected[1].at(i));
    }
    // Of the table, only the column of this form has a gradient.
    const int64_t wanted = bits - 2 + (symmetric ? 0 : 7);
    for (int64_t c = 0; c < (per_channel ? 4 : 1); ++c)
      for (int64_t column = 0; column < 14; ++column) CHECK_THAT(got[2].at(c * 14 + column), WithinAbs(column == wanted ? expected[2].at(c) : 0, 1e-12));
  }

  const auto act = make(*rt, elastic, kActivation, a);
  CHECK(quantizer_choices(*act, kActivation).value().size() == 14);
  CHECK(slot(*act, "unsigned").at(0) == 0);
  HostArray positive = a;
  for (int64_t i = 0; i < a.numel(); ++i) positive.set(i, std::max(a.at(i), 0.0));
  CHECK(slot(*make(*rt, elastic, kActivation, positive), "unsigned").at(0) == 1);

  // The ends keep 8 bits.
  for (const uint32_t end : {TN_SITE_FIRST, TN_SITE_LAST}) {
    const QuantSite site{.name = "w", .flags = TN_SITE_WEIGHT | end};
    CHECK(quantizer_choices(*make(*rt, elastic, site, w), site).value().size() == 4);
    CHECK(quantizer_choices(*make(*rt, {{"elastic", true}, {"keep_first_last_8bit", false}}, site, w), site).value().size() == 28);
  }
  CHECK(quantizer_choices(*make(*rt, {{"elastic", true}, {"weight_bits", std::vector<double>{4, 2}}}, kWeight, w), kWeight).value().size() == 8);
  CHECK(quantizer_choices(*make(*rt, {}, kWeight, w), kWeight).value().empty());
}

TEST_CASE("a constant channel has a tiny step and says so; wrong options are refused") {
  auto rt = runtime();
  std::vector<std::string> said;
  Catalog catalog({.log = [&](int32_t level, const std::string& text) { if (level == TN_LOG_WARNING) said.push_back(text); }, .cancelled = {}});
  REQUIRE(catalog.add_folder(std::string(TENON_BINARY_DIR) + "/plugins").is_ok());
  const HostArray x = reals({2, 3}, {0, 0, 0, 1, 2, 3});
  const auto q = make(*rt, {{"bits", int64_t{4}}, {"per_channel", true}}, kWeight, x, catalog);
  REQUIRE(said.size() == 1);
  CHECK_THAT(said[0], ContainsSubstring("constant"));
  CHECK(slot(*q, "scale").at(0) > 0);
  const auto y = quantised(*rt, *q, kWeight, 0, x, x, {})[0];
  for (int64_t i = 0; i < 3; ++i) CHECK(y.at(i) == 0);

  CHECK_THAT(refusal({{"bits", int64_t{1}}}), ContainsSubstring("'bits'") && ContainsSubstring(">= 2"));
  CHECK_THAT(refusal({{"bits", int64_t{9}}}), ContainsSubstring("'bits'") && ContainsSubstring("<= 8"));
  CHECK_THAT(refusal({{"weight_bits", std::vector<double>{4, 16}}}), ContainsSubstring("'weight_bits'") && ContainsSubstring("<= 8"));
  CHECK_THAT(refusal({{"act_bits", std::vector<double>{}}}), ContainsSubstring("at least one bit width"));
  CHECK_THAT(refusal({{"grad_scale", std::string("none")}}), ContainsSubstring("lsq"));
}

TEST_CASE("weight distribution regularization measures skewness and kurtosis") {
  auto rt = runtime();
  // -1, 1: std^2 = 2 with n - 1, so that z^4 = 1/4. 0, 0, 0, 4: z = (-1, -1, -1, 3)/2.
  const LossCall call{"weight_distribution_regularization", {}, {{"weight0", reals({1}, {5})}, {"weight1", reals({2}, {-1, 1})}, {"weight2", reals({2, 2}, {0, 0, 0, 4})}}};
  const LossValues v = loss_of(*rt, call);
  CHECK_THAT(v.emitted_values("skewness")[0], WithinAbs(0, 1e-15));
  CHECK_THAT(v.emitted_values("skewness")[1], WithinRel(24.0 / 8 / 4, 1e-12));
  CHECK_THAT(v.emitted_values("kurtosis")[0], WithinRel(0.25, 1e-12));
  CHECK_THAT(v.emitted_values("kurtosis")[1], WithinRel(84.0 / 16 / 4, 1e-12));
  CHECK_THAT(v.loss(), WithinRel((0.5625 + 0.015 * (1.55 * 1.55 + 0.4875 * 0.4875)) / 2, 1e-12));
  CHECK(v.grad("weight0") == std::vector<double>{0});

  std::mt19937 rng(5);
  LossCall random = call;
  random.input("weight1") = random_values(rng, {4, 3});
  random.input("weight2") = random_values(rng, {2, 2, 2}, 1);
  for (const char* role : {"weight1", "weight2"}) check_derivatives(*rt, random, role);
  random.options = {{"skip_first", false}, {"kurtosis_rate", 0.3}, {"skewness_rate", 0.2}, {"kurtosis_target", 2.0}};
  random.input("weight0") = random_values(rng, {5});
  check_derivatives(*rt, random, "weight0");

  const auto refused = [&](HostArray weight1, const Options& options = {}) {
    return refusal(*rt, LossCall{call.id, options, {{"weight0", reals({2}, {1, 2})}, {"weight1", std::move(weight1)}}});
  };
  CHECK_THAT(refused(reals({1}, {1})), ContainsSubstring("1 elements") && ContainsSubstring("at least 2"));
  CHECK_THAT(refused(reals({3}, {2, 2, 2})), ContainsSubstring("a weight is constant"));
  CHECK_THAT(refused(reals({2}, {1, 2}), {{"kurtosis_target", 0.5}}), ContainsSubstring("'kurtosis_target'"));
  CHECK_THAT(refusal(*rt, {call.id, {}, {{"weight0", reals({2}, {1, 2})}}}), ContainsSubstring("two weights are needed"));
}

TEST_CASE("progressive guidance goes from each sub-network to the next, and nothing goes back") {
  std::mt19937 rng(7);
  auto rt = runtime();
  LossCall call{"group_progressive_guidance", {{"alpha", 0.3}}, {}};
  for (const char* role : {"logits0", "logits1", "logits2"}) call.inputs.emplace_back(role, random_values(rng, {4, 3}));
  call.inputs.emplace_back("labels", numbers({0, 2, 1, 2}));
  check_derivatives(*rt, call, "logits2");  // the others are constants where they guide

  const auto losses = [&](const std::string& guide, double alpha) {
    call.options = {{"alpha", alpha}, {"guide", guide}};
    return loss_of(*rt, call).emitted_values("losses");
  };
  const auto previous = losses("previous", 0.3), highest = losses("highest", 0.3), none = losses("none", 0.3);
  CHECK(previous[1] == highest[1]);
  CHECK(previous[2] != highest[2]);
  CHECK(none == losses("previous", 0));
  call.options = {{"guide", std::string("none")}};
  for (const char* role : {"logits0", "logits1"}) check_derivatives(*rt, call, role);

  // With the same logits everywhere nothing is left to learn from one another.
  call.input("logits1") = call.input("logits2") = call.input("logits0");
  const auto same = losses("previous", 1);
  CHECK_THAT(same[1], WithinAbs(0, 1e-15));
  CHECK_THAT(refusal(*rt, LossCall{call.id, {{"alpha", 1.5}}, call.inputs}), ContainsSubstring("'alpha'"));
  CHECK_THAT(refusal(*rt, LossCall{call.id, {{"num_subnet", int64_t{1}}}, call.inputs}), ContainsSubstring("'num_subnet'"));
}

}  // namespace tenon::test
