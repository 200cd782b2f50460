// The spherical family and its factored output layer: values by hand, derivatives, invariance, and the layer's steps against
// those of dense stochastic gradient descent.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
#include <random>

#include "core/graph/grad.h"
#include "core/plugin/loss.h"
#include "tests/plugins/loss_call.h"
#include "tests/support/device.h"

namespace tenon::test {
namespace {

using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::WithinAbs;
using Catch::Matchers::WithinRel;

const std::vector<Options> kKinds = {
    {{"kind", std::string("z_loss")}, {"a", 1.0}, {"b", 3.0}},
    {{"kind", std::string("log_taylor_softmax")}},
    {{"kind", std::string("log_spherical_softmax")}},
    {{"kind", std::string("mse")}},
};

LossCall scores(Options options, HostArray logits, HostArray labels) {
  return {"spherical_loss", std::move(options), {{"logits", std::move(logits)}, {"labels", std::move(labels)}}};
}

HostArray random_reals(std::mt19937& rng, const Shape& shape, double scale, DType dtype = DType::f64) {
  std::normal_distribution<double> normal;
  HostArray a(dtype, shape);
  for (int64_t i = 0; i < a.numel(); ++i) a.set(i, scale * normal(rng));
  return a;
}
HostArray random_classes(std::mt19937& rng, int64_t m, int64_t classes) {
  HostArray a(DType::i64, Shape{m});
  for (int64_t i = 0; i < m; ++i) a.set(i, static_cast<double>(rng() % static_cast<unsigned>(classes)));
  return a;
}

// A factored layer, step after step.
class Layer {
 public:
  struct Outcome {
    double loss = 0;
    HostArray grad, weights;
  };
  Layer(Runtime& runtime, const Options& options)
      : runtime_(runtime), plugin_(LossPlugin::create(shipped(), "factored_spherical_output", "", options).value()) {}

  Result<Outcome> step(const HostArray& h, const HostArray& labels, const HostArray& w0, bool train = true, int backward = 1) {
    Graph g(runtime_);
    std::vector<NamedTensor> inputs;
    for (const auto& [role, a] : {std::pair<const char*, const HostArray&>{"embeddings", h}, {"labels", labels}, {"W0", w0}})
      inputs.push_back({role, g.input(Array::from_host(runtime_.backend(), a).value())});
    const CallInfo info{.step = at_++, .lr = 0.02, .train = train};
    TN_ASSIGN(const LossResult loss, plugin_->build(g, info, inputs, nullptr));
    std::vector<Tensor> wanted = {loss.value};
    for (int i = 0; i < backward; ++i) wanted.push_back(grad(loss.value, {&inputs[0].value, 1})[0]);
    TN_ASSIGN(const Emissions after, plugin_->instance().after_step(g, info, nullptr));
    wanted.push_back(after.find("W"));
    const auto checks = loss.emitted.checks("layer");
    const size_t n = wanted.size();
    for (const NamedTensor& c : checks) wanted.push_back(c.value);
    const std::vector<Update> updates = plugin_->instance().take_updates();
    TN_RETURN_IF_ERROR(g.status());
    TN_ASSIGN(const auto values, g.eval(wanted, updates));
    TN_RETURN_IF_ERROR(verify(checks, std::span(values).subspan(n)));
    Outcome out;
    out.loss = values[0].to_host().value().at(0);
    if (backward > 0) out.grad = values[1].to_host().value();
    out.weights = values[n - 1].to_host().value();
    return out;
  }

 private:
  Runtime& runtime_;
  std::unique_ptr<LossPlugin> plugin_;
  int64_t at_ = 0;
};

}  // namespace

TEST_CASE("spherical losses have the values of their formulas") {
  auto rt = runtime();
  // One row: mean 1, variance 2; q = 15, s = 5.
  const auto value = [&](const Options& options) {
    return loss_of(*rt, scores(options, reals({1, 5}, {3, 1, 2, -1, 0}), numbers({0}))).loss();
  };
  const double z = 2 / std::sqrt(2.0);
  CHECK_THAT(value({}), WithinRel(std::log1p(std::exp(-z)), 1e-11));
  CHECK_THAT(value({{"a", 0.5}, {"b", 10.0}}), WithinRel(2 * std::log1p(std::exp((10 - z) / 2)), 1e-11));
  CHECK_THAT(value(kKinds[1]), WithinRel(std::log(5 + 5 + 7.5) - std::log(1 + 3 + 4.5), 1e-12));
  CHECK_THAT(value(kKinds[2]), WithinRel(std::log(15 + 0.05) - std::log(9.01), 1e-12));
  CHECK_THAT(value(kKinds[3]), WithinRel(4.0 + 1 + 4 + 1 + 0, 1e-12));
  const LossCall named{"z_loss", {{"b", 1.0}}, {{"logits", reals({1, 5}, {3, 1, 2, -1, 0})}, {"labels", numbers({0})}}};
  CHECK_THAT(loss_of(*rt, named).loss(), WithinRel(value({{"b", 1.0}}), 1e-12));
}

TEST_CASE("derivatives of spherical losses agree with finite differences to second order") {
  const unsigned seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 rng(seed);
  auto rt = runtime();
  for (Options options : kKinds)
    for (const char* reduction : {"mean", "sum", "none"}) {
      options.insert_or_assign("reduction", std::string(reduction));
      check_derivatives(*rt, scores(options, random_reals(rng, {3, 5}, 1), random_classes(rng, 3, 5)), "logits");
    }
}

TEST_CASE("the Z-loss does not see shift and scale, in f32 neither") {
  const unsigned seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 rng(seed);
  auto rt = runtime();
  const HostArray o = random_reals(rng, {6, 9}, 1), y = random_classes(rng, 6, 9);
  const auto moved = [&](double scale, double shift, DType t) {
    HostArray a(t, o.shape());
    for (int64_t i = 0; i < a.numel(); ++i) a.set(i, scale * o.at(i) + shift);
    return loss_of(*rt, scores({{"b", 2.0}}, a, y)).loss();
  };
  const double here = moved(1, 0, DType::f64);
  CHECK_THAT(moved(7, 13, DType::f64), WithinAbs(here, 1e-10));
  CHECK_THAT(moved(1, 0, DType::f32), WithinAbs(here, 1e-5));
  CHECK_THAT(moved(1, 4096, DType::f32), WithinAbs(here, 2e-3));  // o itself has lost its last 12 bits
}

TEST_CASE("spherical losses stay finite where numbers are extreme") {
  auto rt = runtime();
  for (const Options& options : kKinds)
    for (double size : {0.0, 1e-20, 1e15}) {
      CAPTURE(size);
      const LossValues v = loss_of(*rt, scores(options, reals({2, 2}, {size, size, size, -size}, DType::f32), numbers({0, 1})));
      CHECK(std::isfinite(v.loss()));
      for (double g : v.grad("logits")) CHECK(std::isfinite(g));
    }
}

TEST_CASE("the factored layer takes the steps of dense gradient descent") {
  const unsigned seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 rng(seed);
  auto rt = runtime();
  const int64_t classes = 50, d = 7, m = 6;
  for (DType dtype : {DType::f64, DType::f32})
    for (size_t k = 0; k < kKinds.size(); ++k) {
      CAPTURE(name_of(dtype), k);
      // Rounding errors grow with the numbers, and over the steps.
      const auto near = [&](double x) { return WithinAbs(x, (dtype == DType::f64 ? 1e-9 : 1e-3) * std::max(1.0, std::abs(x))); };
      // Squared error at this rate pushes singular values out of range; a few are stabilised alone, many as a whole. In f32
      // nothing is left of the digits of a matrix so far out.
      const double rate = k == 3 && dtype == DType::f64 ? 0.2 : 0.05;
      Options options = kKinds[k];
      options.insert_or_assign("learning_rate", rate);
      options.insert_or_assign("stabilize_every", int64_t{k == 1 ? 0 : 10});
      options.insert_or_assign("reduction", std::string(k == 2 ? "sum" : "mean"));
      Layer layer(*rt, options);
      const HostArray w0 = random_reals(rng, {classes, d}, 0.3, dtype);
      HostArray w(DType::f64, w0.shape());
      for (int64_t i = 0; i < w.numel(); ++i) w.set(i, w0.at(i));
      for (int step = 0; step < 45; ++step) {
        const HostArray h = random_reals(rng, {m, d}, 0.7, dtype), y = random_classes(rng, m, step % 2 == 0 ? 3 : classes);
        HostArray o(DType::f64, Shape{m, classes});
        for (int64_t i = 0; i < m; ++i)
          for (int64_t c = 0; c < classes; ++c) {
            double sum = 0;
            for (int64_t j = 0; j < d; ++j) sum += h.at(i * d + j) * w.at(c * d + j);
            o.set(i * classes + c, sum);
          }
        Options dense_options = kKinds[k];
        dense_options.insert_or_assign("reduction", options.at("reduction"));
        const LossValues dense = loss_of(*rt, scores(dense_options, o, y));
        const std::vector<double> g = dense.grad("logits");
        auto got = layer.step(h, y, w0);
        INFO(got.status().message());
        REQUIRE(got.is_ok());
        CHECK_THAT(got->loss, near(dense.loss()));
        for (int64_t i = 0; i < m; ++i)
          for (int64_t j = 0; j < d; ++j) {
            double sum = 0;
            for (int64_t c = 0; c < classes; ++c) sum += g[static_cast<size_t>(i * classes + c)] * w.at(c * d + j);
            CHECK_THAT(got->grad.at(i * d + j), near(sum));
          }
        for (int64_t c = 0; c < classes; ++c)
          for (int64_t j = 0; j < d; ++j) {
            double slope = 0;
            for (int64_t i = 0; i < m; ++i) slope += g[static_cast<size_t>(i * classes + c)] * h.at(i * d + j);
            w.set(c * d + j, w.at(c * d + j) - rate * slope);
          }
        double worst = 0;
        for (int64_t i = 0; i < w.numel(); ++i) worst = std::max(worst, std::abs(w.at(i) - got->weights.at(i)));
        CHECK(worst <= (dtype == DType::f64 ? 1e-9 : 1e-3));
        w = got->weights;  // each step for itself: roundings grow from step to step
      }
    }
}

TEST_CASE("the factored layer changes in training alone, and once a step") {
  std::mt19937 rng(5);
  auto rt = runtime();
  const HostArray w0 = random_reals(rng, {9, 4}, 0.3), h = random_reals(rng, {3, 4}, 1), y = numbers({8, 0, 8});
  const auto weights = [&](bool train, int backward) {
    Layer layer(*rt, {});
    const HostArray w = layer.step(h, y, w0, train, backward).value().weights;
    return std::vector<double>(w.as<double>().begin(), w.as<double>().end());
  };
  const std::vector<double> start(w0.as<double>().begin(), w0.as<double>().end());
  CHECK(weights(false, 1) == start);
  CHECK(weights(true, 0) == start);
  const std::vector<double> once = weights(true, 1);  // at the recipe's rate
  CHECK(once != start);
  CHECK(weights(true, 2) == once);
}

TEST_CASE("what spherical losses can't use is refused in a sentence") {
  auto rt = runtime();
  const HostArray o = reals({2, 3}, {1, 2, 3, 4, 5, 6}), y = numbers({0, 2});
  CHECK_THAT(refusal(*rt, scores({}, reals({2, 1}, {1, 2}), numbers({0, 0}))), ContainsSubstring("at least 2 are needed"));
  CHECK_THAT(refusal(*rt, scores({}, o, numbers({0, 3}))), ContainsSubstring("not the number of a class"));
  CHECK_THAT(refusal(*rt, scores({}, o, numbers({-1, 0}))), ContainsSubstring("not the number of a class"));
  CHECK_THAT(refusal(*rt, scores({}, reals({1, 2}, {NAN, 1}), numbers({0}))), ContainsSubstring("not finite"));
  CHECK_THAT(refusal(*rt, scores({{"a", 0.0}}, o, y)), ContainsSubstring("'a'"));
  CHECK_THAT(refusal(*rt, scores({{"eps", -1.0}}, o, y)), ContainsSubstring("'eps'"));
  CHECK_THAT(refusal(*rt, scores({{"kind", std::string("z_los")}}, o, y)), ContainsSubstring("did you mean 'z_loss'"));
  CHECK_THAT(refusal(*rt, scores({{"kind", std::string("log_spherical_softmax")}, {"eps", 0.0}}, o, y)), ContainsSubstring("needs more"));

  const auto layer = [&](Options options, std::vector<std::pair<std::string, HostArray>> more = {}) {
    LossCall call{"factored_spherical_output", std::move(options), {{"embeddings", o}, {"labels", y}}};
    call.inputs.insert(call.inputs.end(), more.begin(), more.end());
    return refusal(*rt, call);
  };
  CHECK_THAT(layer({}), ContainsSubstring("give `classes`"));
  CHECK_THAT(layer({{"classes", int64_t{2}}}), ContainsSubstring("not the number of a class"));
  CHECK_THAT(layer({}, {{"W0", reals({4, 2}, std::vector<double>(8, 1))}}), ContainsSubstring("W0 has 2 columns, the embeddings 3"));
  CHECK_THAT(layer({{"learning_rate", 0.0}}), ContainsSubstring("'learning_rate'"));
  CHECK_THAT(layer({{"momentum", 0.9}}), ContainsSubstring("unknown option 'momentum'"));
  CHECK_THAT(layer({{"kind", std::string("log_softmax")}}), ContainsSubstring("'log_softmax'"));
  CHECK(layer({{"classes", int64_t{5}}}) == "accepted");

  // 2 eta F_q |h|^2 = 1: no inverse is left.
  Layer singular(*rt, {{"kind", std::string("mse")}, {"learning_rate", 0.5}});
  const HostArray w0 = reals({2, 1}, {0.5, 0.25}), h = reals({1, 1}, {1}), label = numbers({0});
  REQUIRE(singular.step(h, label, w0).is_ok());
  CHECK_THAT(singular.step(h, label, w0).status().message(), ContainsSubstring("learning rate was too large for the factored update"));
}

}  // namespace tenon::test
