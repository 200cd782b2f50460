// Weight compander: the family's functions, their inverses and derivatives, the pair a, b, and training through them.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
#include <random>

#include "core/graph/grad.h"
#include "core/ops/ops.h"
#include "core/plugin/parametrization.h"
#include "tests/plugins/loss_call.h"
#include "tests/support/opened.h"
#include "tests/support/values.h"

namespace tenon::test {
namespace {

using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::WithinAbs;
using Catch::Matchers::WithinRel;

const char* const kFunctions[] = {"arctan", "tanh", "softsign", "algebraic", "mu_law", "powerprop", "identity"};

Options with(Options options, const std::string& function) {
  options["function"] = function;
  return options;
}

// The plugin on one weight.
struct Compander {
  explicit Compander(Options options, Runtime& runtime = *shared_runtime()) : rt(runtime) {
    auto made = Instance::create(shipped(), TN_KIND_PARAMETRIZATION, "weight_compander", "w", options);
    if (made)
      plugin = std::move(made).value();
    else
      status = made.status();
  }
  static std::unique_ptr<Runtime>& shared_runtime() {
    static std::unique_ptr<Runtime> rt = test::runtime();
    return rt;
  }
  // What it starts from, given the initial weight: the same, or its inverse.
  std::vector<double> start(const HostArray& initial) {
    Graph g(rt);
    const Tensor raw = leaf(g, initial);
    auto begun = init_parametrization(*plugin, g, {}, raw);
    status = begun.status();
    return begun ? values(g, begun->valid() ? *begun : raw) : std::vector<double>{};
  }
  // The effective weight, and the two derivatives of sum(direction * weight), each projected on the direction.
  struct At {
    std::vector<double> weight, first, second;
  };
  At at(const HostArray& raw, const HostArray& direction) {
    Graph g(rt);
    const Tensor v = leaf(g, raw), d = leaf(g, direction), w = weight(g, v);
    const Tensor first = grad(sum(w * d), {&v, 1})[0], second = grad(sum(first * d), {&v, 1})[0];
    return {values(g, w), values(g, first), values(g, second)};
  }
  std::vector<double> weights(const HostArray& raw) {
    Graph g(rt);
    return values(g, weight(g, leaf(g, raw)));
  }
  Tensor weight(Graph& g, Tensor v) {
    auto w = effective_weight(*plugin, g, {}, v);
    INFO(w.status().message());
    REQUIRE(w.is_ok());
    return w->weight;
  }
  static Tensor leaf(Graph& g, const HostArray& a) { return g.input(Array::from_host(g.backend(), a).value()); }
  double slot(const std::string& name) const {
    const auto& s = plugin->slots().at(name);
    return (s.kind == TN_SLOT_TRAINABLE ? s.trainable[0]->value : s.values[0]).to_host()->at(0);
  }

  Runtime& rt;
  std::unique_ptr<Instance> plugin;
  Status status;
};

std::string refusal_of(Options options, const HostArray& initial = reals({3}, {0.1, -0.2, 0.3})) {
  Compander c(std::move(options));
  if (c.plugin) c.start(initial);
  return c.status.is_ok() ? "accepted" : c.status.message();
}

HostArray random_weights(std::mt19937& rng, int64_t n, double scale) {
  std::normal_distribution<double> normal;
  HostArray a(DType::f64, Shape{n});
  for (int64_t i = 0; i < n; ++i) {
    double x = 0;
    while (std::abs(x) < 0.02) x = scale * normal(rng);  // away from the kinks at zero
    a.set(i, x);
  }
  return a;
}

// A model of two layers on three blobs.
struct Run : Opened {
  explicit Run(const std::string& more, const std::string& split = "")
      : Opened(shipped(), R"(
      data { format: "synthetic" options { kind: "blobs" n: 96 features: 3 classes: 3 noise: 0.4 } )" +
                              split + R"( }
      model { layer { mlp { hidden: 8 activation: "tanh" } } }
      loss { id: "cross_entropy" }
      train { steps: 40 batch_size: 24 }
      precision: f64
      seed: 3
    )" + more) {}
};

const std::string kSgd = "optimizer { id: 'sgd' options { lr: 0.2 } } ";
std::string companded(const std::string& options, const std::string& more = "") {
  return kSgd + "parametrization { id: 'weight_compander' params: 'model.*weight' options { " + options + " } " + more +
         " } ";
}

}  // namespace

TEST_CASE("derivatives of weight companders agree with finite differences to second order") {
  const unsigned seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 rng(seed);
  for (const char* function : kFunctions) {
    CAPTURE(function);
    Compander c(with({{"a", 0.3}, {"b", 0.2}, {"mu", 5.0}, {"alpha", 2.5}}, function));
    const HostArray raw = random_weights(rng, 7, 0.4), direction = random_weights(rng, 7, 1);
    const Compander::At here = c.at(raw, direction);
    const double h = 1e-6;
    for (int64_t i = 0; i < raw.numel(); ++i) {
      HostArray up = raw, down = raw;
      up.set(i, raw.at(i) + h);
      down.set(i, raw.at(i) - h);
      const Compander::At plus = c.at(up, direction), minus = c.at(down, direction);
      const auto k = static_cast<size_t>(i);
      const double d = direction.at(i);
      const double first = d * (plus.weight[k] - minus.weight[k]) / (2 * h),
                   second = d * (plus.first[k] - minus.first[k]) / (2 * h);
      CHECK_THAT(here.first[k], WithinRel(first, 1e-6) || WithinAbs(first, 1e-6));
      CHECK_THAT(here.second[k], WithinRel(second, 1e-6) || WithinAbs(second, 1e-6));
    }
  }
}

TEST_CASE("a companded weight is bounded, odd, and steep at zero") {
  const HostArray raw = reals({5}, {0, 0.05, -0.05, 40, -40}), one = reals({5}, {1, 1, 1, 1, 1});
  const double a = 0.1, b = 0.05, mu = 255;
  for (const auto& [function, bound, slope] :
       {std::tuple("arctan", a * std::acos(0.0), a / b), std::tuple("tanh", a, a / b), std::tuple("softsign", a, a / b),
        std::tuple("algebraic", a, a / b), std::tuple("mu_law", 1.0, a / b * mu / std::log1p(mu)),
        std::tuple("identity", 40.0, 1.0)}) {
    CAPTURE(function);
    Compander c(with({{"a", a}, {"b", b}, {"mu", mu}}, function));
    const Compander::At w = c.at(raw, one);
    CHECK(w.weight[0] == 0);
    CHECK_THAT(w.first[0], WithinRel(slope, 1e-12));
    CHECK(w.weight[1] > 0);
    for (size_t i : {1u, 3u}) CHECK(w.weight[i + 1] == -w.weight[i]);
    CHECK(w.weight[3] <= bound);
    CHECK(w.weight[3] > 0.9 * std::min(bound, 0.1));
  }
  Compander straight(with({{"alpha", 1.0}}, "powerprop"));
  CHECK(straight.at(raw, one).first[0] == 1);
  Compander squared(with({{"alpha", 2.0}}, "powerprop"));
  CHECK_THAT(squared.weights(raw)[2], WithinRel(-0.0025, 1e-12));
  CHECK(squared.at(raw, one).first[0] == 0);
}

TEST_CASE("companding stays finite where weights are extreme") {
  for (DType dtype : {DType::f32, DType::f64}) {
    const double big = dtype == DType::f32 ? 1e30 : 1e200;
    const HostArray raw = reals({4}, {big, -big, 1e-30, 0}, dtype), one = reals({4}, {1, 1, 1, 1}, dtype);
    for (const char* function : {"arctan", "tanh", "softsign", "algebraic", "mu_law"}) {
      CAPTURE(function, name_of(dtype));
      Compander c(with({{"a", 1.0}, {"b", 1.0}}, function));
      const Compander::At w = c.at(raw, one);
      for (size_t i = 0; i < 4; ++i) CHECK((std::isfinite(w.weight[i]) && std::isfinite(w.first[i])));
      CHECK(w.weight[0] > 0.9);
      CHECK(w.first[0] < 1e-6);
    }
  }
}

TEST_CASE("training may start at the usual weights, cut to a part of the bound") {
  const HostArray initial = reals({5}, {0.2, -0.05, 0, 0.03, -0.2});
  for (const char* function : kFunctions) {
    CAPTURE(function);
    const bool bounded = std::string(function) != "mu_law" && std::string(function) != "powerprop" &&
                         std::string(function) != "identity";
    const double limit = !bounded ? 1 : 0.9 * (std::string(function) == "arctan" ? 0.1 * std::acos(0.0) : 0.1);
    Compander c(with({{"a", 0.1}, {"b", 0.05}, {"init", std::string("effective")}, {"inverse_clip", 0.9}}, function));
    const std::vector<double> raw = c.start(initial), w = c.weights(reals({5}, raw));
    for (int64_t i = 0; i < 5; ++i)
      CHECK_THAT(w[static_cast<size_t>(i)], WithinAbs(std::min(limit, std::max(-limit, initial.at(i))), 1e-12));
    Compander plain(with({{"a", 0.1}, {"b", 0.05}}, function));
    CHECK(plain.start(initial)[0] == 0.2);
  }
}

TEST_CASE("the pair a, b follows the spread of the initial weight, or is given") {
  const HostArray initial = reals({4}, {1, -1, 3, -3});  // standard deviation sqrt(5)
  const auto pair = [&](Options options, const std::string& prefix = "") {
    Compander c(std::move(options));
    c.start(initial);
    INFO(c.status.message());
    REQUIRE(c.status.is_ok());
    return std::pair(c.slot(prefix + "a"), c.slot(prefix + "b"));
  };
  const double std = std::sqrt(5.0);
  CHECK_THAT(pair({}).first, WithinRel(std, 1e-12));
  CHECK_THAT(pair({}).second, WithinRel(std, 1e-12));
  CHECK_THAT(pair({{"b_scale", 0.5}, {"a_scale", 3.0}}).first, WithinRel(1.5 * std, 1e-12));
  CHECK_THAT(pair({{"b_scale", 0.5}, {"a_scale", 3.0}}).second, WithinRel(0.5 * std, 1e-12));
  CHECK(pair({{"b", 0.5}, {"a_scale", 3.0}}) == std::pair(1.5, 0.5));
  CHECK(pair({{"a", 7.0}, {"b", 0.5}}) == std::pair(7.0, 0.5));
  // Trained, they are stored so that they stay positive; the weight starts the same.
  const std::vector<double> fixed = Compander({{"a", 7.0}, {"b", 0.5}}).weights(initial);
  for (const auto& [positive, prefix, stored] :
       {std::tuple("exp", "log_", std::log(7.0)),
        std::tuple("softplus", "inverse_softplus_", std::log(std::expm1(7.0))), std::tuple("none", "", 7.0)}) {
    CAPTURE(positive);
    const Options options = {
        {"a", 7.0}, {"b", 0.5}, {"learn", std::string("layer")}, {"positive", std::string(positive)}};
    CHECK_THAT(pair(options, prefix).first, WithinRel(stored, 1e-12));
    const std::vector<double> w = Compander(options).weights(initial);
    for (size_t i = 0; i < w.size(); ++i) CHECK_THAT(w[i], WithinRel(fixed[i], 1e-12));
  }
}

TEST_CASE("a network trains through companded weights, and the pair with it where it is learned") {
  Run plain(kSgd), same(companded("a: 1e6 b: 1e6")), strong(companded("b_scale: 0.5")),
      again(companded("b_scale: 0.5"));
  const double start = plain.step(0).loss;
  CHECK_THAT(same.step(0).loss, WithinRel(start, 1e-9));  // a straight line
  std::vector<double> losses;
  for (int64_t i = 0; i < 40; ++i) {
    losses.push_back(strong.step(i).loss);
    CHECK(losses.back() == again.step(i).loss);
  }
  CHECK(std::abs(losses.front() - start) > 1e-3);
  CHECK(losses.back() < 0.8 * losses.front());

  const std::string w0 = "model.mlp0.linear0.weight", w1 = "model.mlp0.linear1.weight";
  Run learned(companded("learn: 'layer' hyper_lr_scale: 0.1"));
  const StepResult first = learned.step(0);
  CHECK(first.parts.at(w0 + ".weight_compander/a") == first.parts.at(w0 + ".weight_compander/b"));
  learned.step(1);
  CHECK(learned.saved("parametrization/" + w0 + "/log_a") != learned.saved("parametrization/" + w1 + "/log_a"));

  // One pair for both weights, each of which starts where it would without.
  Run shared(companded("learn: 'model' a: 1 b: 1 init: 'effective'", "shared: true"));
  CHECK_THAT(shared.step(0).loss, WithinRel(Run(kSgd).step(0).loss, 1e-9));
  CHECK(shared.saved("parametrization/weight_compander/log_a") != 0);
}

TEST_CASE("metrics may look at the weights that layers use") {
  Run run(companded("a: 0.1 b: 0.01", "") + R"(
    metric { id: "peak" name: "used" bind { role: "values0" to: "model.mlp0.linear0.weight.effective" } bind { role: "values1" to: "model.mlp0.linear1.weight.effective" } }
    metric { id: "peak" name: "stored" bind { role: "values0" to: "model.mlp0.linear0.weight" } bind { role: "values1" to: "model.mlp0.linear1.weight" } }
  )",
          "test_split { count: 24 }");
  run.step(0);
  const auto values = run.experiment->evaluate("test", 1);
  INFO(values.status().message());
  REQUIRE(values.is_ok());
  // Far beyond b all weights are near +-a pi/2.
  CHECK_THAT(values->at("test/used"), WithinAbs(1, 0.2));
  CHECK(values->at("test/stored") > 1.4);
}

TEST_CASE("weight decay may act on the effective weight") {
  // Of the straight line a = b, decay of w by the objective is decay of v by the optimizer.
  Run penalised(companded("function: 'identity' decay_on: 'effective' weight_decay: 0.3"));
  Run decayed("optimizer { id: 'sgd' options { lr: 0.2 weight_decay: 0.3 } no_decay: '.*bias' } ");
  for (int64_t i = 0; i < 3; ++i) {
    const StepResult r = penalised.step(i);
    decayed.step(i);
    CHECK(r.parts.at("model.mlp0.linear0.weight.weight_compander/decay") > 0);
  }
  CHECK_THAT(penalised.saved("model.mlp0.linear0.weight"),
             WithinRel(decayed.saved("model.mlp0.linear0.weight"), 1e-12));
}

TEST_CASE("what a weight compander can't use is refused in a sentence") {
  CHECK(refusal_of({}) == "accepted");
  for (const char* name : {"a", "b", "a_scale", "b_scale", "mu", "hyper_lr_scale"})
    for (double bad : {0.0, -1.0, static_cast<double>(INFINITY), static_cast<double>(NAN)})
      CHECK_THAT(refusal_of({{name, bad}}), ContainsSubstring("'" + std::string(name) + "'"));
  CHECK_THAT(refusal_of({{"alpha", 0.5}}), ContainsSubstring("'alpha'"));
  CHECK_THAT(refusal_of({{"inverse_clip", 1.0}}), ContainsSubstring("'inverse_clip'"));
  CHECK_THAT(refusal_of({{"function", std::string("arctna")}}), ContainsSubstring("arctan"));
  for (const char* function : {"powerprop", "identity"})
    CHECK_THAT(refusal_of(with({{"learn", std::string("layer")}}, function)), ContainsSubstring("no a and b to learn"));
  CHECK_THAT(refusal_of({{"a", 1.0}, {"a_scale", 1.0}}), ContainsSubstring("both given"));
  CHECK_THAT(refusal_of({{"b", 1.0}, {"b_scale", 1.0}}), ContainsSubstring("both given"));
  CHECK_THAT(refusal_of({{"learn", std::string("model")}}), ContainsSubstring("give b"));
  CHECK_THAT(refusal_of({{"decay_on", std::string("effective")}}), ContainsSubstring("go together"));
  CHECK_THAT(refusal_of({{"weight_decay", 0.1}}), ContainsSubstring("go together"));
  CHECK_THAT(refusal_of({}, reals({3}, {2, 2, 2})), ContainsSubstring("standard deviation 0"));
  CHECK(refusal_of({{"a", 1.0}, {"b", 1.0}}, reals({3}, {2, 2, 2})) == "accepted");
  CHECK_THAT(refusal_of({}, numbers({1, 2})), ContainsSubstring("a floating type"));

  Run gone(companded("learn: 'layer' positive: 'none' a: 0.1 b: 0.1 hyper_lr_scale: 100"));
  Status failed;
  for (int64_t i = 0; i < 20 && failed.is_ok(); ++i) failed = gone.try_step(i).status();
  CHECK_THAT(failed.message(), ContainsSubstring("has reached 0"));
}

}  // namespace tenon::test
