// Comp-sum losses: the family's members, derivatives, extremes, the bound of the smooth adversarial form, and the
// consistency transform against a search.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
#include <random>

#include "core/golden/golden.h"
#include "tests/plugins/loss_call.h"
#include "tests/support/device.h"

namespace tenon::test {
namespace {

using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::WithinAbs;
using Catch::Matchers::WithinRel;

LossCall clean(Options options, HostArray logits, HostArray labels) {
  return {"comp_sum", std::move(options), {{"logits", std::move(logits)}, {"labels", std::move(labels)}}};
}
LossCall both(const std::string& id, Options options, HostArray logits, HostArray adv, HostArray labels) {
  return {id, std::move(options), {{"logits", std::move(logits)}, {"logits_adv", std::move(adv)}, {"labels", std::move(labels)}}};
}

HostArray random_logits(std::mt19937& rng, const Shape& shape, double scale = 1.5) {
  std::normal_distribution<double> normal;
  HostArray a(DType::f64, shape);
  for (int64_t i = 0; i < a.numel(); ++i) a.set(i, scale * normal(rng));
  return a;
}

// T of the golden probe.
double transform(Runtime& rt, double beta, double tau, int64_t classes) {
  golden::Case c;
  c.name = "transform";
  c.target = "loss:comp_sum/transform";
  c.kind = "loss";
  c.id = "comp_sum";
  c.probe = "transform";
  c.options = {{"classes", classes}};
  c.inputs = {{"beta", reals({1}, {beta})}, {"tau", reals({1}, {tau})}};
  c.expected = {{"T", {reals({1, 1}, {0}), true, false}}};
  const golden::CaseResult r = golden::run(rt, shipped(), c);
  INFO(r.status.message());
  REQUIRE(r.values.size() == 1);
  REQUIRE(r.values[0].problem.empty());
  return r.values[0].got;
}

}  // namespace

TEST_CASE("members of the comp-sum family are the losses they are known as") {
  auto rt = runtime();
  const HostArray h = reals({1, 3}, {1, 0.5, -2}), y = numbers({1});
  const double p = std::exp(0.5) / (std::exp(1.0) + std::exp(0.5) + std::exp(-2.0));
  const auto value = [&](double tau) { return loss_of(*rt, clean({{"tau", tau}}, h, y)).loss(); };
  CHECK_THAT(value(0), WithinRel(1 / p - 1, 1e-12));
  CHECK_THAT(value(0.5), WithinRel(2 * (std::pow(p, -0.5) - 1), 1e-12));
  CHECK_THAT(value(1), WithinRel(-std::log(p), 1e-12));
  CHECK_THAT(value(1.7), WithinRel((1 - std::pow(p, 0.7)) / 0.7, 1e-12));
  CHECK_THAT(value(2), WithinRel(1 - p, 1e-12));
  CHECK_THAT(value(3), WithinRel((1 - p * p) / 2, 1e-12));
  const double at_half = std::exp(1.0) / (std::exp(2.0) + std::exp(1.0) + std::exp(-4.0));
  CHECK_THAT(loss_of(*rt, clean({{"rho", 0.5}}, h, y)).loss(), WithinRel(-std::log(at_half), 1e-12));
}

TEST_CASE("derivatives of comp-sum losses agree with finite differences to second order") {
  const unsigned seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 rng(seed);
  auto rt = runtime();
  const HostArray y = numbers({0, 3, 1});
  for (double tau : {0.0, 0.5, 1.0, 1.5, 2.0, 3.0})
    check_derivatives(*rt, clean({{"tau", tau}, {"rho", 1.3}}, random_logits(rng, {3, 4}, 0.7), y), "logits");
  for (const char* role : {"logits", "logits_adv"})
    for (const LossCall& call : {both("smooth_adv_comp_sum", {{"tau", 1.5}, {"nu", 0.7}}, random_logits(rng, {3, 4}), random_logits(rng, {3, 4}), y),
                                 both("trades", {{"reduction", std::string("sum")}}, random_logits(rng, {3, 4}), random_logits(rng, {3, 4}), y)})
      check_derivatives(*rt, call, role);
}

TEST_CASE("comp-sum losses stay finite where numbers are extreme") {
  auto rt = runtime();
  const HostArray y = numbers({0, 2});
  const HostArray h = reals({2, 3}, {1e4, -1e4, 0, 1e4, 1e4, -1e4}, DType::f32), same = reals({2, 3}, {5, 5, 5, 0, 0, 0}, DType::f32);
  for (double tau : {1.0, 1.000001, 1.5, 2.0, 3.0})
    for (const HostArray& logits : {h, same}) {
      CAPTURE(tau);
      const LossValues v = loss_of(*rt, clean({{"tau", tau}}, logits, y));
      CHECK(std::isfinite(v.loss()));
      for (double g : v.grad("logits")) CHECK(std::isfinite(g));
    }
  for (const char* id : {"smooth_adv_comp_sum", "trades"})
    for (const HostArray& adv : {h, same}) {
      CAPTURE(id);
      const LossValues v = loss_of(*rt, both(id, {}, h, adv, y));
      CHECK(std::isfinite(v.loss()));
      for (const char* role : {"logits", "logits_adv"})
        for (double g : v.grad(role)) CHECK(std::isfinite(g));
    }
}

TEST_CASE("with nu at least sqrt(n-1)/rho the smooth loss bounds the adversarial margin loss from above") {
  const unsigned seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 rng(seed);
  auto rt = runtime();
  const int64_t m = 200, n = 5;
  for (double tau : {0.0, 1.0, 1.5}) {
    const double rho = 0.8;
    const HostArray h = random_logits(rng, {m, n}, 1), adv = random_logits(rng, {m, n}, 1);
    std::vector<int64_t> labels;
    for (int64_t i = 0; i < m; ++i) labels.push_back(static_cast<int64_t>(rng() % static_cast<unsigned>(n)));
    const Options options = {{"tau", tau}, {"rho", rho}, {"nu", std::sqrt(static_cast<double>(n - 1)) / rho}, {"reduction", std::string("none")}};
    const std::vector<double> smooth = loss_of(*rt, both("smooth_adv_comp_sum", options, h, adv, numbers(labels))).emitted_values("per_sample");
    for (int64_t i = 0; i < m; ++i) {
      double u = 0;
      for (int64_t k = 0; k < n; ++k) {
        const int64_t y = labels[static_cast<size_t>(i)];
        if (k != y) u += std::min(std::max(0.0, 1 - (adv.at(i * n + y) - adv.at(i * n + k)) / rho), 1.0);
      }
      const double margin_loss = tau == 1 ? std::log1p(u) : (std::pow(1 + u, 1 - tau) - 1) / (1 - tau);
      CHECK(smooth[static_cast<size_t>(i)] >= margin_loss - 1e-12);
    }
  }
}

TEST_CASE("the consistency transform is the least regret of two classes, and keeps its form at the ends") {
  auto rt = runtime();
  for (double tau : {0.0, 0.5, 1.0, 1.5, 1.9})
    for (double beta : {0.1, 0.5, 0.9}) {
      CAPTURE(tau, beta);
      // The class of probability (1 + beta)/2 is missed by equal logits: their loss above that of the best logits.
      const double p = (1 + beta) / 2;
      const auto phi = [&](double u) { return tau == 1 ? std::log1p(u) : (std::pow(1 + u, 1 - tau) - 1) / (1 - tau); };
      const auto risk = [&](double margin) { return p * phi(std::exp(-margin)) + (1 - p) * phi(std::exp(margin)); };
      double low = 0, high = 60;
      for (int i = 0; i < 200; ++i) {
        const double a = low + (high - low) / 3, b = high - (high - low) / 3;
        (risk(a) < risk(b) ? high : low) = risk(a) < risk(b) ? b : a;
      }
      CHECK_THAT(transform(*rt, beta, tau, 2), WithinRel(risk(0) - risk(low), 1e-8));
    }
  CHECK(transform(*rt, 0, 1.5, 10) == 0);
  CHECK_THAT(transform(*rt, 1, 1, 10), WithinRel(std::log(2.0), 1e-12));
  CHECK_THAT(transform(*rt, 1, 0, 10), WithinRel(1.0, 1e-12));
  CHECK_THAT(transform(*rt, 0.3, 2, 10), WithinRel(0.03, 1e-12));
  CHECK_THAT(transform(*rt, 0.3, 2 - 1e-9, 10), WithinRel(0.03, 1e-6));
  CHECK_THAT(transform(*rt, 0.3, 1 + 1e-6, 10), WithinRel(transform(*rt, 0.3, 1, 10), 1e-4));
}

TEST_CASE("what comp-sum losses can't use is refused in a sentence") {
  auto rt = runtime();
  const HostArray h = reals({2, 3}, {1, 2, 3, 4, 5, 6}), y = numbers({0, 2});
  CHECK_THAT(refusal(*rt, clean({{"tau", -0.1}}, h, y)), ContainsSubstring("'tau'"));
  CHECK_THAT(refusal(*rt, clean({{"tau", NAN}}, h, y)), ContainsSubstring("'tau'"));
  CHECK_THAT(refusal(*rt, clean({{"rho", 0.0}}, h, y)), ContainsSubstring("'rho'"));
  CHECK_THAT(refusal(*rt, clean({}, reals({2, 1}, {1, 2}), numbers({0, 0}))), ContainsSubstring("at least 2 are needed"));
  CHECK_THAT(refusal(*rt, clean({}, h, numbers({0, 3}))), ContainsSubstring("not the number of a class"));
  CHECK_THAT(refusal(*rt, both("smooth_adv_comp_sum", {{"nu", -1.0}}, h, h, y)), ContainsSubstring("'nu'"));
  CHECK_THAT(refusal(*rt, both("smooth_adv_comp_sum", {}, h, reals({2, 2}, {1, 2, 3, 4}), y)), ContainsSubstring("must have one shape"));
  LossCall alone = clean({}, h, y);
  alone.id = "trades";
  CHECK_THAT(refusal(*rt, alone), ContainsSubstring("training needs an attack"));
}

}  // namespace tenon::test
