// Training with the extensions of the contract: closures, several objectives, the model again, own parameters and state.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <cmath>

#include "core/graph/grad.h"
#include "core/ops/ops.h"
#include "core/train/experiment.h"
#include "core/train/fit.h"
#include "core/train/step.h"
#include "tests/support/device.h"

namespace tenon {
namespace {

using Catch::Matchers::WithinAbs;
using Catch::Matchers::WithinRel;

struct Run {
  std::unique_ptr<Runtime> runtime = test::runtime();
  Catalog catalog;
  std::unique_ptr<Experiment> experiment;

  explicit Run(const std::string& objective) {
    const std::string build = TENON_BINARY_DIR;
    REQUIRE(catalog.add_folder(build + "/plugins").is_ok());
    REQUIRE(catalog.add_file(build + "/tests/plugins/extensions.so").is_ok());
    const std::string text = R"(
      data { format: "synthetic" options { kind: "blobs" n: 96 features: 3 classes: 3 noise: 0.4 } }
      model { layer { mlp { hidden: 8 activation: "tanh" } } }
      train { steps: 40 batch_size: 32 }
      precision: f64
      seed: 3
    )" + objective;
    auto recipe = parse_recipe(text, "test.txtpb");
    INFO(recipe.status().message());
    REQUIRE(recipe.is_ok());
    auto opened = Experiment::open(*runtime, catalog, *recipe, "");
    INFO(opened.status().message());
    REQUIRE(opened.is_ok());
    experiment = std::move(opened).value();
  }
  StepResult step(int64_t n) {
    Graph graph(*runtime);
    auto r = training_step(*experiment, graph, n);
    INFO(r.status().message());
    REQUIRE(r.is_ok());
    return *r;
  }
  std::vector<double> parameters() {
    std::vector<double> out;
    for (const NamedParameter& p : experiment->optimizers().parameters()) {
      const HostArray h = p.parameter->value.to_host().value();
      for (int64_t i = 0; i < h.numel(); ++i) out.push_back(h.at(i));
    }
    return out;
  }
};

TEST_CASE("a closure optimizer evaluates the step's batch at other parameters") {
  Run with("loss { id: 'cross_entropy' } optimizer { id: 'sam' options { lr: 0.2 rho: 0 } }");
  Run plain("loss { id: 'cross_entropy' } optimizer { id: 'sgd' options { lr: 0.2 } }");
  // With radius 0 it is gradient descent.
  for (int64_t i = 0; i < 3; ++i) {
    const StepResult a = with.step(i), b = plain.step(i);
    CHECK_THAT(a.loss, WithinRel(b.loss, 1e-12));
    CHECK(a.parts.at("grad_norm") > 0);
  }
  const auto x = with.parameters(), y = plain.parameters();
  REQUIRE(x.size() == y.size());
  for (size_t i = 0; i < x.size(); ++i) CHECK_THAT(x[i], WithinAbs(y[i], 1e-12));

  Run sharp("loss { id: 'cross_entropy' } optimizer { id: 'sam' options { lr: 0.2 rho: 0.1 } }");
  double first = 0, last = 0;
  for (int64_t i = 0; i < 40; ++i) (i == 0 ? first : last) = sharp.step(i).loss;
  CHECK(last < 0.5 * first);
  CHECK(sharp.parameters() != x);
}

TEST_CASE("a multi-loss optimizer gets one gradient per objective") {
  const std::string losses = "loss { id: 'cross_entropy' weight: 0.7 } loss { id: 'focal' weight: 2 } ";
  Run separate(losses + "optimizer { id: 'summed' options { lr: 0.1 } }");
  Run joint(losses + "optimizer { id: 'sgd' options { lr: 0.1 } }");
  for (int64_t i = 0; i < 3; ++i) {
    const StepResult a = separate.step(i), b = joint.step(i);
    CHECK_THAT(a.loss, WithinRel(b.loss, 1e-12));
    CHECK_THAT(a.loss, WithinRel(0.7 * a.parts.at("cross_entropy") + 2 * a.parts.at("focal"), 1e-12));
  }
  const auto x = separate.parameters(), y = joint.parameters();
  for (size_t i = 0; i < x.size(); ++i) CHECK_THAT(x[i], WithinAbs(y[i], 1e-12));
}

TEST_CASE("a loss may apply the model again") {
  Run none("loss { id: 'adversarial' options { epsilon: 0 } } optimizer { id: 'sgd' options { lr: 0.1 } }");
  Run plain("loss { id: 'cross_entropy' } optimizer { id: 'sgd' options { lr: 0.1 } }");
  for (int64_t i = 0; i < 3; ++i) CHECK_THAT(none.step(i).loss, WithinRel(plain.step(i).loss, 1e-12));
  Run attacked("loss { id: 'adversarial' options { epsilon: 0.3 } } optimizer { id: 'sgd' options { lr: 0.1 } }");
  const StepResult r = attacked.step(0);
  CHECK(r.loss > r.parts.at("clean"));
}

TEST_CASE("a loss trains its own parameters and keeps a table by sample") {
  Run run("loss { id: 'tempered' } optimizer { id: 'adam' options { lr: 0.05 } }");
  const StepResult first = run.step(0);
  CHECK(first.parts.at("temperature") == 2);
  CHECK(first.parts.at("seen") == 0);
  const StepResult second = run.step(1);
  CHECK(second.parts.at("temperature") != 2);
  CHECK(second.parts.at("seen") == 32);
  // 96 samples, batches of 32: after an epoch each was seen once.
  run.step(2);
  const StepResult fourth = run.step(3);
  CHECK(fourth.parts.at("seen") == 96);
  bool found = false;
  for (const auto& [name, array] : run.experiment->saved_arrays()) {
    if (name != "loss/tempered/seen") continue;
    found = true;
    CHECK(array.shape() == Shape{96});
  }
  CHECK(found);
  // Evaluation leaves the state alone.
  REQUIRE_FALSE(run.experiment->evaluate("val", 4).is_ok());
  CHECK(run.step(4).parts.at("seen") == 128);
}

TEST_CASE("mixed precision follows f32 training") {
  const auto last_loss = [](const std::string& precision) {
    Catalog catalog;
    auto rt = test::runtime();
    REQUIRE(catalog.add_folder(std::string(TENON_BINARY_DIR) + "/plugins").is_ok());
    auto recipe = parse_recipe("data { format: 'synthetic' options { kind: 'blobs' n: 96 } } model { layer { mlp { hidden: 16 } } } "
                               "loss { id: 'cross_entropy' } optimizer { id: 'adamw' options { lr: 0.02 } } "
                               "train { steps: 40 batch_size: 32 } precision: " + precision, "test.txtpb");
    REQUIRE(recipe.is_ok());
    auto e = Experiment::open(*rt, catalog, *recipe, "");
    REQUIRE(e.is_ok());
    Observer quiet;
    auto summary = fit(**e, nullptr, quiet);
    INFO(summary.status().message());
    REQUIRE(summary.is_ok());
    return summary->metrics.at("train/loss");
  };
  const double full = last_loss("f32");
  CHECK_THAT(last_loss("bf16"), WithinAbs(full, 0.05 * full + 0.01));
}

}  // namespace
}  // namespace tenon
