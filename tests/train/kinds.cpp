// Training with plugins of every kind: weights of samples, of weights and of experts, perturbed inputs, whole procedures.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>

#include "core/ops/ops.h"
#include "tests/io/temp_folder.h"
#include "tests/support/opened.h"

namespace tenon {
namespace {

using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::WithinAbs;
using Catch::Matchers::WithinRel;

const std::string kBlobs = R"(
  data { format: "synthetic" options { kind: "blobs" n: 96 features: 3 classes: 3 noise: 0.4 } test_split { count: 24 } }
  train { steps: 40 batch_size: 24 }
  precision: f64
  seed: 3
)";
const std::string kMlp = "model { layer { mlp { hidden: 8 activation: 'tanh' } } } ";
const std::string kSgd = "optimizer { id: 'sgd' options { lr: 0.2 } } ";

Catalog& catalog() {
  static const std::unique_ptr<Catalog> all = test::load_plugins("kinds.so");
  return *all;
}

struct Run : test::Opened {
  explicit Run(const std::string& text) : Opened(catalog(), kBlobs + text) {}
};

}  // namespace

TEST_CASE("a reweighter weighs the losses of the samples in training, and only there") {
  const std::string loss = "loss { id: 'cross_entropy' reweighter { id: 'hardest' options { r: R } } } ";
  const auto with = [&](const std::string& r) { return std::string(loss).replace(loss.find(" R ") + 1, 1, r); };
  // At a high temperature all weights are 1/B: the mean.
  Run flat(kMlp + kSgd + with("1e9")), plain(kMlp + kSgd + "loss { id: 'cross_entropy' }"), sharp(kMlp + kSgd + with("0.1"));
  const auto weight = [](Run& run) { return run.saved().at("model.mlp0.linear0.weight").at(0); };
  const StepResult a = flat.step(0), b = plain.step(0), c = sharp.step(0);
  CHECK_THAT(a.loss, WithinRel(b.loss, 1e-12));
  CHECK_THAT(c.loss, WithinRel(b.loss, 1e-12));  // the plain loss is shown
  CHECK_THAT(weight(flat), WithinAbs(weight(plain), 1e-9));
  CHECK(std::abs(weight(sharp) - weight(plain)) > 1e-4);
  CHECK_THAT(a.parts.at("largest_weight"), WithinAbs(1.0 / 24, 1e-9));
  CHECK(c.parts.at("largest_weight") > 0.1);
  CHECK(flat.experiment->evaluate("test", 1).is_ok());
}

TEST_CASE("a parametrization stands between the stored weight and the layer, and trains what it owns") {
  Run plain(kMlp + kSgd + "loss { id: 'cross_entropy' }");
  Run scaled(kMlp + kSgd + "loss { id: 'cross_entropy' } parametrization { id: 'scaled' params: 'model.*weight' }");
  CHECK_THAT(scaled.step(0).loss, WithinRel(plain.step(0).loss, 1e-12));  // exp(0) = 1
  const auto saved = scaled.saved();
  const double moved = saved.at("parametrization/model.mlp0.linear0.weight/log_scale").at(0);
  CHECK(moved != 0);
  CHECK(std::abs(moved) < 0.1);  // a tenth of the rate
  CHECK(scaled.experiment->optimizers().parameters().size() == 6);

  Run half(kMlp + kSgd + "loss { id: 'cross_entropy' } parametrization { id: 'scaled' params: 'model.*weight' options { halve: true pull: 2 } }");
  const StepResult r = half.step(0);
  CHECK(r.parts.at("model.mlp0.linear0.weight.scaled/pull") > 0);
  CHECK(r.loss != plain.step(0).loss);

  Run shared(kMlp + kSgd + "loss { id: 'cross_entropy' } parametrization { id: 'scaled' params: 'model.*weight' shared: true }");
  shared.step(0);
  CHECK(shared.saved().at("parametrization/scaled/log_scale").at(0) != 0);
  CHECK(shared.experiment->optimizers().parameters().size() == 5);
  Run all_half(kMlp + kSgd + "loss { id: 'cross_entropy' } parametrization { id: 'scaled' params: 'model.*weight' shared: true options { halve: true } }");
  Run untouched(kMlp + kSgd + "loss { id: 'cross_entropy' }");
  const auto halved = all_half.saved(), whole = untouched.saved();
  for (const char* name : {"model.mlp0.linear0.weight", "model.mlp0.linear1.weight"})
    CHECK_THAT(halved.at(name).at(0), WithinRel(0.5 * whole.at(name).at(0), 1e-12));

  Run none(kMlp + kSgd + "loss { id: 'cross_entropy' } parametrization { id: 'scaled' params: 'other' }");
  CHECK_THAT(none.status.message(), ContainsSubstring("matches no parameter"));
  Run unknown(kMlp + kSgd + "loss { id: 'cross_entropy' } parametrization { id: 'scalde' params: 'model.*' }");
  CHECK_THAT(unknown.status.message(), ContainsSubstring("did you mean 'scaled'"));
}

TEST_CASE("a router decides for its layer, and balances it after each step") {
  const std::string moe = "model { layer { linear { units: 6 } } layer { moe { experts: 4 top_k: 2 hidden: 5 shared_experts: 1 "
                          "router { id: 'biased' options { rate: 0.5 } } } } layer { linear {} } } ";
  Run run(moe + kSgd + "loss { id: 'cross_entropy' } metric { id: 'accuracy' } metric { id: 'max_vio' }");
  for (int64_t k = 0; k < 3; ++k) {
    const StepResult r = run.step(k);
    CHECK(r.parts.at("model.moe1/max_vio") >= 0);
    CHECK(r.parts.at("model.moe1/spread") > 0);
  }
  const auto saved = run.saved();
  const HostArray &bias = saved.at("router/model.moe1/bias"), &load = saved.at("router/model.moe1/load");
  double moved = 0;
  for (int64_t e = 0; e < 4; ++e) {
    moved += std::abs(bias.at(e));
    CHECK(load.at(e) == 0);
    CHECK(std::abs(std::remainder(bias.at(e), 0.5)) < 1e-12);
  }
  CHECK(moved > 0);
  const auto evaluated = run.experiment->evaluate("test", 3);
  REQUIRE(evaluated.is_ok());
  CHECK_THAT(evaluated->at("test/max_vio"), WithinAbs(evaluated->at("test/model.moe1/max_vio"), 1e-9));  // one batch
  const auto again = run.saved();
  for (int64_t e = 0; e < 4; ++e) CHECK(again.at("router/model.moe1/bias").at(e) == bias.at(e));  // frozen in evaluation

  Run missing(moe.substr(0, moe.find("'biased'")) + "'baised' } } } } " + kSgd + "loss { id: 'cross_entropy' }");
  CHECK_THAT(missing.status.message(), ContainsSubstring("did you mean 'biased'"));
}

TEST_CASE("an attack perturbs the input against the loss, in training and for a metric") {
  const auto loss = [](const std::string& id, const std::string& epsilon) {
    return "loss { id: '" + id + "' attack { id: 'sign_step' options { epsilon: " + epsilon + " } } } ";
  };
  Run plain(kMlp + kSgd + "loss { id: 'cross_entropy' }"), none(kMlp + kSgd + loss("cross_entropy", "0")),
      attacked(kMlp + kSgd + loss("cross_entropy", "0.3")), both(kMlp + kSgd + loss("both_inputs", "0.3"));
  const double clean = plain.step(0).loss, adversarial = attacked.step(0).loss;
  CHECK_THAT(none.step(0).loss, WithinRel(clean, 1e-12));
  CHECK(adversarial > clean);
  const StepResult r = both.step(0);
  CHECK_THAT(r.parts.at("clean"), WithinRel(clean, 1e-12));
  CHECK_THAT(r.loss, WithinRel((clean + adversarial) / 2, 1e-12));

  Run measured(kMlp + kSgd + "loss { id: 'cross_entropy' } metric { id: 'accuracy' } "
               "metric { id: 'accuracy' name: 'robust' attack { id: 'sign_step' options { epsilon: 0.6 } } }");
  for (int64_t k = 0; k < 30; ++k) measured.step(k);
  const auto values = measured.experiment->evaluate("test", 30);
  INFO(values.status().message());
  REQUIRE(values.is_ok());
  CHECK(values->at("test/accuracy") > 0.8);
  CHECK(values->at("test/robust") < values->at("test/accuracy"));
}

TEST_CASE("a procedure drives the run, and goes on where a checkpoint left off") {
  const std::string text = kMlp + kSgd + "loss { id: 'cross_entropy' } metric { id: 'accuracy' } procedure { id: 'rounds' options { rounds: 3 } } ";
  const test::TempFolder folder;
  Run run(text);
  REQUIRE(run.experiment);
  auto out = RunFolder::open(folder.file("run"), false, run.experiment->recipe());
  REQUIRE(out.is_ok());
  Observer quiet;
  const auto summary = run_recipe(*run.experiment, &*out, quiet);
  INFO(summary.status().message());
  REQUIRE(summary.is_ok());
  CHECK(summary->metrics.at("test/accuracy") > 0.5);
  CHECK(summary->metrics.at("norm") > 0);
  CHECK(run.saved().at("procedure/done").at(0) == 3);

  Run again(text);
  auto resumed = RunFolder::open(folder.file("run"), true, again.experiment->recipe());
  REQUIRE(resumed.is_ok());
  const auto step = resumed->restore(*again.experiment);
  INFO(step.status().message());
  REQUIRE(step.is_ok());
  const auto rest = run_recipe(*again.experiment, &*resumed, quiet, *step);
  REQUIRE(rest.is_ok());
  CHECK(rest->metrics.empty());  // all rounds were done
}

TEST_CASE("plugins that a procedure made are part of its checkpoints") {
  const auto text = [](const std::string& options) {
    return kMlp + "loss { id: 'cross_entropy' } procedure { id: 'descent' options { " + options + " } } ";
  };
  const test::TempFolder folder;
  const auto run = [&](int64_t steps, const std::string& name, bool resume) {
    Run r(text("steps: " + std::to_string(steps)));
    INFO(r.status.message());
    REQUIRE(r.experiment);
    return test::run_in_folder(*r.experiment, folder.file(name), resume);
  };
  const MetricValues whole = run(6, "whole", false), half = run(3, "parts", false);
  CHECK(run(3, "parts", true).empty());  // done: the optimizer is made, not used
  CHECK(run(6, "parts", true) == whole);
  CHECK(half.at("train/loss") != whole.at("train/loss"));
  CHECK(half.at("test/loss") != whole.at("test/loss"));  // metrics follow a model that a session changed
  CHECK(whole.at("val/rows") == 0);

  Run limited(text("limit: 0.5"));
  REQUIRE(limited.experiment);
  Observer quiet;
  CHECK_THAT(run_recipe(*limited.experiment, nullptr, quiet).status().message(), ContainsSubstring("procedure 'descent': the loss is above its limit"));
}

TEST_CASE("a procedure chooses the quantised form of a model, whose statistics follow") {
  const std::string model = "model { layer { linear { units: 6 } } layer { batch_norm {} } layer { relu {} } layer { linear {} } } ";
  const auto measure = [&](const std::string& quantizer) {
    Run run(model + quantizer + "procedure { id: 'forms' } loss { id: 'cross_entropy' } " + kSgd);
    INFO(run.status.message());
    REQUIRE(run.experiment);
    Observer quiet;
    const auto summary = run_recipe(*run.experiment, nullptr, quiet);
    INFO(summary.status().message());
    REQUIRE(summary.is_ok());
    return std::pair(summary->metrics, run.saved());
  };
  const auto [all, saved] = measure("quantizer { id: 'levels' } ");
  CHECK(all.at("sites") == 4);
  CHECK(all.at("first") == 1);
  CHECK(all.at("forms") == 3);
  CHECK(saved.at("quantizer/model.linear0.weight/calibrated").at(0) == 0);
  CHECK(saved.at("quantizer/model.linear0.input/calibrated").at(0) == 1);
  CHECK(saved.at("model.batch_norm1.running_mean").at(0) != 0);
  CHECK(std::abs(all.at("coarse") - all.at("fine")) > 1e-3);

  const auto [weights, unused] = measure("quantizer { id: 'levels' activations: false layers: 'model.linear3' } ");
  CHECK(weights.at("sites") == 1);
  // The finest grid is fine: the model as it is.
  Run plain(model + "procedure { id: 'forms' } loss { id: 'cross_entropy' } " + kSgd);
  REQUIRE(plain.experiment);
  Objective& objective = plain.experiment->objective();
  for (int64_t k = 0; k < 4; ++k) {
    Graph graph(*plain.runtime);
    const Batch batch = plain.experiment->training_batch(k, nullptr).value();
    objective.begin(batch, plain.experiment->training_info(k));
    objective.stats_share = 1.0 / static_cast<double>(k + 1);
    REQUIRE(objective.forward(graph).is_ok());
    const auto updates = objective.take_updates();
    REQUIRE(graph.eval({}, updates).is_ok());
    objective.end();
  }
  objective.stats_share = 0;
  CHECK_THAT(plain.experiment->evaluate("test", 0)->at("test/loss"), WithinAbs(all.at("fine"), 1e-4));

  Run none(model + "quantizer { id: 'levels' layers: 'other' } loss { id: 'cross_entropy' } " + kSgd);
  CHECK_THAT(none.status.message(), ContainsSubstring("no linear or convolution layer"));
}

}  // namespace tenon
