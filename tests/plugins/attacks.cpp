// The gradient attacks on a linear classifier, where the best perturbation is known.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
#include <random>

#include "core/golden/golden.h"
#include "core/ops/ops.h"
#include "core/plugin/attack.h"
#include "tests/plugins/loss_call.h"
#include "tests/support/device.h"

namespace tenon::test {
namespace {

using Catch::Matchers::ContainsSubstring;

// Two classes: class 0 has score x . (1, -2, 0), class 1 has 0. One sample at (0.5, 0.5, 0.5), of class 0.
golden::Case linear(const std::string& id, const Options& options) {
  golden::Case c;
  c.name = c.target = id;
  c.kind = "attack";
  c.id = id;
  c.options = options;
  c.inputs = {{"W", reals({2, 3}, {1, -2, 0, 0, 0, 0})}, {"b", reals({2}, {0.6, 0})}, {"x", reals({1, 3}, {0.5, 0.5, 0.5})}, {"labels", numbers({0})}};
  return c;
}

std::string problem(const golden::CaseResult& r) {
  std::string s = r.status.message();
  for (const golden::Comparison& v : r.values)
    if (!v.passed) s += v.key + ": got " + std::to_string(v.got) + ", expected " + std::to_string(v.expected) + " at " + std::to_string(v.place) + v.problem;
  return s.empty() ? "none" : s;
}

// What differs from the x_adv expected.
std::string x_adv(Runtime& rt, const std::string& id, const Options& options, const std::vector<double>& expected, double atol = 1e-9) {
  golden::Case c = linear(id, options);
  c.atol = atol;
  c.expected = {{"x_adv", {reals({1, 3}, expected), true, false}}};
  return problem(golden::run(rt, shipped(), c));
}

// The perturbed input of a linear classifier with these weights [K, D], and its logits there.
struct Perturbed {
  HostArray x_adv, logits;
};
Perturbed attack(Runtime& rt, const std::string& id, const Options& options, const HostArray& w, const HostArray& x, const HostArray& labels, uint64_t key) {
  const auto plugin = Instance::create(shipped(), TN_KIND_ATTACK, id, id, options).value();
  Graph graph(rt);
  const auto input = [&](const HostArray& a) { return graph.input(Array::from_host(graph.backend(), a).value()); };
  const Tensor weight = input(w), at = input(x), y = input(labels);
  AttackTarget target;
  target.evaluate = [&](Graph&, Tensor z, bool) -> Result<AttackTarget::At> {
    const Tensor h = matmul(z, weight, false, true);
    return AttackTarget::At{cross_entropy(h, y), h};
  };
  const NamedTensor in[] = {{"input", at}, {"labels", y}};
  const auto p = perturb_input(*plugin, graph, {.key = key, .train = true}, target, in);
  INFO(p.status().message());
  REQUIRE(p.is_ok());
  return {graph.to_host(p->x_adv).value(), graph.to_host(matmul(p->x_adv, weight, false, true)).value()};
}

}  // namespace

TEST_CASE("gradient attacks go to the corner of the ball, inside the box") {
  auto rt = runtime();
  const std::string none = "none";
  const auto start = [](const char* s) { return std::pair<const std::string, OptionValue>("start", std::string(s)); };
  // Along -sign(w); where the gradient is 0 nothing moves.
  CHECK(x_adv(*rt, "fgsm", {{"epsilon", 0.1}}, {0.4, 0.6, 0.5}) == none);
  for (const char* objective : {"ce", "margin", "cw", "loss"})
    CHECK(x_adv(*rt, "pgd", {{"epsilon", 0.1}, {"objective", std::string(objective)}, start("none")}, {0.4, 0.6, 0.5}) == none);
  CHECK(x_adv(*rt, "pgd", {{"epsilon", 0.7}, {"steps", int64_t{20}}, start("none")}, {0, 1, 0.5}) == none);
  CHECK(x_adv(*rt, "pgd", {{"epsilon", 0.1}, {"steps", int64_t{1}}, {"step_size", 0.03}, start("none")}, {0.47, 0.53, 0.5}) == none);
  CHECK(x_adv(*rt, "pgd", {{"epsilon", 0.1}, {"norm", std::string("l2")}, start("none")},
              {0.5 - 0.1 / std::sqrt(5.0), 0.5 + 0.2 / std::sqrt(5.0), 0.5}) == none);
  // Random starts end in the same corner but for the coordinate that does not count, which stays in the ball.
  for (const Options& o : {Options{{"epsilon", 0.1}, {"steps", int64_t{40}}}, Options{{"epsilon", 0.1}, start("gauss")}})
    CHECK(x_adv(*rt, "pgd", o, {0.4, 0.6, 0.5}, 0.1) == none);
  CHECK(x_adv(*rt, "fgsm", {{"epsilon", 0.1}, {"random_start", true}}, {0.4, 0.6, 0.5}, 0.1) == none);
  CHECK(x_adv(*rt, "pgd_worst", {{"epsilon", 0.1}, start("none")}, {0.4, 0.6, 0.5}) == none);
}

TEST_CASE("a distance to the clean output is made large from elsewhere than the input itself") {
  auto rt = runtime();
  for (const char* objective : {"kl", "margin_diff_norm"}) {
    CAPTURE(objective);
    const auto with_start = [&](const HostArray& at) {
      golden::Case c = linear("pgd", {{"epsilon", 0.1}, {"objective", std::string(objective)}, {"start", std::string("given")}});
      c.inputs.emplace_back("x_start", at);
      return c;
    };
    if (std::string_view(objective) == "margin_diff_norm") {  // (the gradient of kl there is 0 only up to rounding)
      golden::Case still = with_start(reals({1, 3}, {0.5, 0.5, 0.5}));
      still.expected = {{"x_adv", {reals({1, 3}, {0.5, 0.5, 0.5}), true, false}}};
      CHECK(problem(golden::run(*rt, shipped(), still)) == "none");
    }
    // From this side it goes on in that direction: the score of class 0 rises.
    golden::Case moved = with_start(reals({1, 3}, {0.51, 0.49, 0.5}));
    moved.expected = {{"x_adv", {reals({1, 3}, {0.6, 0.4, 0.5}), true, false}}};
    CHECK(problem(golden::run(*rt, shipped(), moved)) == "none");
  }
}

TEST_CASE("a random start stays in the ball and the box, and is the same for the same key") {
  const unsigned seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 rng(seed);
  std::uniform_real_distribution<double> uniform;
  auto rt = runtime();
  HostArray w(DType::f64, {3, 5}), x(DType::f64, {4, 5});
  for (int64_t i = 0; i < w.numel(); ++i) w.set(i, 2 * uniform(rng) - 1);
  for (int64_t i = 0; i < x.numel(); ++i) x.set(i, uniform(rng));
  const HostArray y = numbers({0, 1, 2, 0});
  for (const char* norm : {"linf", "l2"}) {
    CAPTURE(norm);
    // A step too small to be seen leaves the start.
    const Options o = {{"epsilon", 0.3}, {"steps", int64_t{1}}, {"step_size", 1e-15}, {"norm", std::string(norm)}};
    const HostArray a = attack(*rt, "pgd", o, w, x, y, 7).x_adv, same = attack(*rt, "pgd", o, w, x, y, 7).x_adv, other = attack(*rt, "pgd", o, w, x, y, 8).x_adv;
    double moved = 0, apart = 0;
    for (int64_t r = 0; r < 4; ++r) {
      double square = 0;
      for (int64_t i = r * 5; i < r * 5 + 5; ++i) {
        const double d = a.at(i) - x.at(i);
        square += d * d, moved += std::abs(d), apart += std::abs(a.at(i) - other.at(i));
        CHECK(a.at(i) == same.at(i));
        CHECK(std::abs(d) <= 0.3 + 1e-12);
        CHECK((a.at(i) >= 0 && a.at(i) <= 1));
      }
      if (std::string_view(norm) == "l2") CHECK(std::sqrt(square) <= 0.3 + 1e-12);
    }
    CHECK(moved > 0.01);
    CHECK(apart > 0.01);
  }
}

TEST_CASE("pgd_worst keeps of each sample the attack with the larger margin") {
  const unsigned seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 rng(seed);
  std::normal_distribution<double> normal;
  auto rt = runtime();
  const int64_t n = 1000, classes = 5, width = 6;  // some samples for each attack, whatever the seed
  HostArray w(DType::f64, {classes, width}), x(DType::f64, {n, width});
  for (int64_t i = 0; i < w.numel(); ++i) w.set(i, normal(rng));
  for (int64_t i = 0; i < x.numel(); ++i) x.set(i, normal(rng));
  std::vector<int64_t> labels;
  for (int64_t i = 0; i < n; ++i) labels.push_back(static_cast<int64_t>(rng() % static_cast<unsigned>(classes)));
  Options o = {{"epsilon", 0.5}, {"steps", int64_t{4}}, {"start", std::string("none")}, {"clip_min", -100.0}, {"clip_max", 100.0}};
  const Perturbed worst = attack(*rt, "pgd_worst", o, w, x, numbers(labels), 3);
  o["objective"] = std::string("margin");
  const Perturbed first = attack(*rt, "pgd", o, w, x, numbers(labels), 3);
  o["objective"] = std::string("ce");
  const Perturbed second = attack(*rt, "pgd", o, w, x, numbers(labels), 3);
  const auto margin = [&](const Perturbed& p, int64_t r) {
    double best = -1e9;
    const int64_t y = labels[static_cast<size_t>(r)];
    for (int64_t k = 0; k < classes; ++k)
      if (k != y) best = std::max(best, p.logits.at(r * classes + k) - p.logits.at(r * classes + y));
    return best;
  };
  int64_t of_ce = 0;
  for (int64_t r = 0; r < n; ++r) {
    const Perturbed& expected = margin(first, r) >= margin(second, r) ? first : second;
    of_ce += &expected == &second;
    for (int64_t i = r * width; i < (r + 1) * width; ++i) CHECK(worst.x_adv.at(i) == expected.x_adv.at(i));
  }
  CHECK(of_ce > 0);
  CHECK(of_ce < n);
}

TEST_CASE("kappa counts the steps before which the sample was right") {
  auto rt = runtime();
  // The score is 0.1, and each step takes 0.06 off.
  golden::Case c = linear("pgd", {{"epsilon", 0.1}, {"steps", int64_t{5}}, {"step_size", 0.02}, {"start", std::string("none")}});
  c.expected = {{"kappa", {reals({1}, {2}), true, false}}};
  CHECK(problem(golden::run(*rt, shipped(), c)) == "none");
}

TEST_CASE("what attacks can't use is refused in a sentence") {
  auto rt = runtime();
  const auto refused = [&](const std::string& id, const Options& options) {
    golden::Case c = linear(id, options);
    c.expected = {{"x_adv", {reals({1, 3}, {0, 0, 0}), true, false}}};
    return golden::run(*rt, shipped(), c).status.message();
  };
  CHECK_THAT(refused("pgd", {{"epsilon", 0.0}}), ContainsSubstring("'epsilon'"));
  CHECK_THAT(refused("pgd", {{"steps", int64_t{0}}}), ContainsSubstring("'steps'"));
  CHECK_THAT(refused("pgd", {{"step_size", -1.0}}), ContainsSubstring("'step_size'"));
  CHECK_THAT(refused("pgd", {{"norm", std::string("l1")}}), ContainsSubstring("'l1'"));
  CHECK_THAT(refused("fgsm", {{"clip_min", 1.0}}), ContainsSubstring("clip_min must be less than clip_max"));
  CHECK_THAT(refused("pgd", {{"start", std::string("given")}}), ContainsSubstring("role 'start' is not bound"));
  golden::Case shorter = linear("pgd", {{"start", std::string("given")}});
  shorter.inputs.emplace_back("x_start", reals({1, 2}, {0, 0}));
  CHECK_THAT(golden::run(*rt, shipped(), shorter).status.message(), ContainsSubstring("'start' is [1, 2], the input [1, 3]"));
  golden::Case counted = linear("fgsm", {});
  counted.inputs[2].second = HostArray(DType::i64, {1, 3});
  CHECK_THAT(golden::run(*rt, shipped(), counted).status.message(), ContainsSubstring("input"));
}

}  // namespace tenon::test
