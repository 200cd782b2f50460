// Training with the extensions of the contract: closures, several objectives, the model again, own parameters and state.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <cmath>

#include "core/graph/grad.h"
#include "core/ops/ops.h"
#include "tests/support/opened.h"

namespace tenon {
namespace {

using Catch::Matchers::WithinAbs;
using Catch::Matchers::WithinRel;

std::vector<double> numbers(const Array& a) {
  const HostArray h = a.to_host().value();
  std::vector<double> out;
  for (int64_t i = 0; i < h.numel(); ++i) out.push_back(h.at(i));
  return out;
}

Catalog& catalog() {
  static const std::unique_ptr<Catalog> all = test::load_plugins("extensions.so");
  return *all;
}

struct Run : test::Opened {
  explicit Run(const std::string& objective)
      : Opened(catalog(), R"(
      data { format: "synthetic" options { kind: "blobs" n: 96 features: 3 classes: 3 noise: 0.4 } }
      model { layer { mlp { hidden: 8 activation: "tanh" } } }
      train { steps: 40 batch_size: 32 }
      precision: f64
      seed: 3
    )" + objective) {}
  std::vector<double> parameters() {
    std::vector<double> out;
    for (const NamedParameter& p : experiment->optimizers().parameters())
      for (double x : numbers(p.parameter->value)) out.push_back(x);
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

TEST_CASE("a schedule scales the weight of a lone loss") {
  Run run("loss { id: 'cross_entropy' weight_schedule { id: 'linear' } } optimizer { id: 'sgd' options { lr: 1e-9 } }");
  const double first = run.step(0).loss;
  CHECK(first > 0);
  // The same samples again: 96 in batches of 32.
  double later = 0;
  for (int64_t i = 36; i < 39; ++i) later += run.step(i).loss / 3;
  CHECK(later < 0.2 * first);
}

TEST_CASE("a gradient passes through a frozen model, and its parameters stay") {
  Run run(R"(model { name: 'head' input: 'model.output' frozen: true layer { linear { units: 3 } } }
             loss { id: 'cross_entropy' model: 'head' } optimizer { id: 'sgd' options { lr: 0.1 } })");
  const auto value = [&](size_t model) { return numbers(run.experiment->objective().models[model].model.parameters[0]->value); };
  const auto body = value(0), head = value(1);
  run.step(0);
  CHECK(value(0) != body);
  CHECK(value(1) == head);
}

TEST_CASE("a constant role stops the gradient, and numbers of a plugin are reported") {
  const std::string bind = "bind { role: 'prediction' to: 'model.output' } bind { role: 'anchor' to: 'model.output' } ";
  Run run("loss { id: 'anchored' " + bind + "} optimizer { id: 'sgd' options { lr: 0.1 } }");
  // d/dp mean((p - 2 p0)^2) is -2 p / n at p = p0, not 2 p / n: a step moves the output away from zero.
  Run plain("loss { id: 'cross_entropy' } optimizer { id: 'sgd' options { lr: 0.1 } }");
  const auto norm = [](Run& r) {
    double s = 0;
    for (double x : r.parameters()) s += x * x;
    return s;
  };
  CHECK(run.step(0).parts.at("answer") == 42);
  plain.step(0);
  CHECK(norm(run) > norm(plain));
}

TEST_CASE("a plugin trains parts of the model in stages and begins it anew") {
  Run run("loss { id: 'stages' } optimizer { id: 'adam' options { lr: 0.05 } }");  // epochs of 3 steps
  const auto all = [&] {
    std::vector<std::vector<double>> out;
    for (const nn::ParameterPtr& p : run.experiment->objective().models[0].model.parameters) out.push_back(numbers(p->value));
    return out;
  };
  const auto names = [&] {
    std::vector<std::string> out;
    for (const nn::ParameterPtr& p : run.experiment->objective().models[0].model.parameters) out.push_back(p->name);
    return out;
  }();
  const auto first = all();
  for (int64_t i = 0; i < 4; ++i) run.step(i);  // the change takes effect after step 3
  const auto before = all();
  run.step(4);
  const auto staged = all();
  bool frozen_seen = false;
  for (size_t i = 0; i < names.size(); ++i) {
    INFO(names[i]);
    const bool trained = names[i].starts_with("mlp0.linear1");
    frozen_seen = frozen_seen || !trained;
    CHECK((staged[i] != before[i]) == trained);
  }
  CHECK(frozen_seen);
  CHECK(run.experiment->optimizers().parameters().size() < names.size());
  for (int64_t i = 5; i < 8; ++i) run.step(i);
  const auto thawed = all();
  for (size_t i = 0; i < names.size(); ++i) CHECK(thawed[i] != staged[i]);
  size_t total = 0;
  for (const auto& p : thawed) total += p.size();
  for (const auto& [name, array] : run.experiment->saved_arrays())
    if (name.ends_with("/m")) CHECK(static_cast<size_t>(array.shape().numel()) == total);
  for (int64_t i = 8; i < 10; ++i) run.step(i);
  const auto fresh = all();
  for (size_t i = 0; i < names.size(); ++i) {
    CHECK(fresh[i] != first[i]);  // drawn with another key
    CHECK(fresh[i] != thawed[i]);
  }
}

TEST_CASE("a plugin sets all parameters as one vector, after the optimizer") {
  Run run("loss { id: 'shrink' } optimizer { id: 'sgd' options { lr: 0.1 } }");
  Run plain("loss { id: 'cross_entropy' } optimizer { id: 'sgd' options { lr: 0.1 } }");
  run.step(0);
  plain.step(0);
  const auto halved = run.parameters(), whole = plain.parameters();
  REQUIRE(halved.size() == whole.size());
  for (size_t i = 0; i < whole.size(); ++i) CHECK_THAT(halved[i], WithinAbs(0.5 * whole[i], 1e-12));
}

TEST_CASE("a second derivative of a loss that has none is refused with its reason") {
  Run fine("loss { id: 'once_only' } optimizer { id: 'sgd' options { lr: 0.1 } }");
  Run plain("loss { id: 'cross_entropy' } optimizer { id: 'sgd' options { lr: 0.1 } }");
  CHECK_THAT(fine.step(0).loss, WithinRel(plain.step(0).loss, 1e-12));
  CHECK_THAT(fine.step(1).loss, WithinRel(plain.step(1).loss, 1e-12));
  Run twice("loss { id: 'once_only' } optimizer { id: 'penalised' }");
  Graph graph(*twice.runtime);
  const auto r = training_step(*twice.experiment, graph, 0);
  REQUIRE_FALSE(r.is_ok());
  INFO(r.status().message());
  CHECK(r.status().message().find("loss 'once_only'") != std::string::npos);
  CHECK(r.status().message().find("its kernel has no second derivative") != std::string::npos);
}

TEST_CASE("evaluation goes through each of several streams once") {
  auto rt = test::runtime();
  Catalog catalog;
  REQUIRE(catalog.add_folder(std::string(TENON_BINARY_DIR) + "/plugins").is_ok());
  auto recipe = parse_recipe(R"(
    data { name: 'a' format: 'synthetic' options { kind: 'blobs' n: 90 features: 3 classes: 3 } test_split { fraction: 0.33 } }
    data { name: 'b' format: 'synthetic' options { kind: 'blobs' n: 1200 features: 3 classes: 3 } test_split { fraction: 0.5 } }
    model { name: 'm' input: 'a.x' layer { mlp { hidden: 8 } } }
    model { name: 'n' input: 'b.x' share_with: 'm' layer { mlp { hidden: 8 } } }
    loss { name: 'la' id: 'cross_entropy' data: 'a' model: 'm' }
    loss { name: 'lb' id: 'cross_entropy' data: 'b' model: 'n' weight: 0.5 }
    optimizer { id: 'sgd' }
    metric { name: 'accuracy_a' id: 'accuracy' bind { role: 'outputs' to: 'm.output' } bind { role: 'labels' to: 'a.y' } }
    metric { name: 'accuracy_b' id: 'accuracy' bind { role: 'outputs' to: 'n.output' } bind { role: 'labels' to: 'b.y' } }
    train { steps: 3 batch_size: 16 eval_batch_size: 100 }
  )", "test.txtpb");
  INFO(recipe.status().message());
  REQUIRE(recipe.is_ok());
  auto e = Experiment::open(*rt, catalog, *recipe, "");
  INFO(e.status().message());
  REQUIRE(e.is_ok());
  const auto together = (*e)->evaluate("test", 0);
  INFO(together.status().message());
  REQUIRE(together.is_ok());
  CHECK_THAT(together->at("test/loss"), WithinRel(together->at("test/la") + 0.5 * together->at("test/lb"), 1e-6));
  // 600 samples in six batches, of which the first one alone has samples of the other stream.
  const double wrong = 600 * (1 - together->at("test/accuracy_b"));
  CHECK_THAT(wrong, WithinAbs(std::round(wrong), 1e-6));
  CHECK(together->contains("test/accuracy_a"));
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
