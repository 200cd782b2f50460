// EQ-Net's procedures on a small model: training for all forms, measuring them, predicting and searching.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "core/train/experiment.h"
#include "core/train/fit.h"
#include "tests/support/device.h"

namespace tenon {
namespace {

using Catch::Matchers::ContainsSubstring;

const std::string kModel = R"(
  data { format: "synthetic" options { kind: "blobs" n: 240 features: 3 classes: 3 noise: 0.6 } val_split { count: 60 } test_split { count: 60 } }
  model {
    layer { name: "a" linear { units: 8 } } layer { batch_norm {} } layer { relu {} }
    layer { name: "b" linear { units: 6 } } layer { batch_norm {} } layer { relu {} }
    layer { name: "c" linear { units: 6 } } layer { batch_norm {} } layer { relu {} }
    layer { name: "d" linear {} }
  }
  loss { id: "group_progressive_guidance" }
  loss {
    id: "weight_distribution_regularization"
    bind { role: "weight0" to: "model.a.weight" } bind { role: "weight1" to: "model.b.weight" }
    bind { role: "weight2" to: "model.c.weight" } bind { role: "weight3" to: "model.d.weight" }
  }
  optimizer { id: "adam" options { lr: 0.01 } clip_value: 1 schedule { id: "cosine" } }
  train { steps: 60 batch_size: 40 }
  seed: 2
)";
const std::string kElastic = "quantizer { id: 'elastic_lsq' options { elastic: true } } ";
const std::string kSearch = R"(
  configurations: 4 draw: "dirichlet" depth: 1 width: 8 epochs: 5 batch: 8 population: 8 generations: 3 random: 2 recalibration: 2)";

Result<MetricValues> run(const std::string& text) {
  const auto runtime = test::runtime();
  Catalog catalog;
  TN_RETURN_IF_ERROR(catalog.add_folder(std::string(TENON_BINARY_DIR) + "/plugins"));
  TN_ASSIGN(const Recipe recipe, parse_recipe(kModel + text, "test.txtpb"));
  TN_ASSIGN(const auto experiment, Experiment::open(*runtime, catalog, recipe, ""));
  Observer quiet;
  TN_ASSIGN(const Summary summary, run_recipe(*experiment, nullptr, quiet));
  return summary.metrics;
}

std::string refusal(const std::string& text) {
  const auto r = run(text);
  return r ? "accepted" : r.status().message();
}

}  // namespace

TEST_CASE("eq_net trains one set of weights for all forms, the same from the same seed") {
  const std::string text = kElastic + "procedure { id: 'eq_net' options { bits: [2, 8] recalibration: 3 } }";
  const auto first = run(text), again = run(text);
  INFO(first.status().message());
  REQUIRE(first.is_ok());
  REQUIRE(again.is_ok());
  CHECK(*first == *again);
  for (const char* bits : {"2", "8"}) {
    const std::string suffix = std::string("_") + bits + "_bits";
    CHECK(first->at("test/worst" + suffix) <= first->at("test/mean" + suffix));
    CHECK(first->at("test/mean" + suffix) > 0.8);
    CHECK(first->at("test/mean" + suffix) > first->at("test/start_mean" + suffix));
  }
}

TEST_CASE("eq_net_search finds a configuration within the budget") {
  const auto r = run(kElastic + "procedure { id: 'eq_net_search' options { average_bits: 3.5" + kSearch + " } }");
  INFO(r.status().message());
  REQUIRE(r.is_ok());
  for (const char* average : {"winner/average_weight_bits", "winner/average_act_bits"}) {
    CHECK(r->at(average) > 3);
    CHECK(r->at(average) <= 3.5);
  }
  CHECK(r->at("test/random_best") >= r->at("test/random_mean"));
  CHECK(r->at("test/winner") > 0.5);
  CHECK(r->at("val/rmse_points") > 0);
}

TEST_CASE("what the procedures cannot do is refused with a reason") {
  CHECK_THAT(refusal("procedure { id: 'eq_net' }"), ContainsSubstring("no quantised layers"));
  CHECK_THAT(refusal("quantizer { id: 'elastic_lsq' } procedure { id: 'eq_net' }"), ContainsSubstring("elastic: true"));
  CHECK_THAT(refusal("quantizer { id: 'elastic_lsq' options { elastic: true weight_bits: [4, 8] } } procedure { id: 'eq_net' options { bits: 2 } }"),
             ContainsSubstring("no form of 2 bits"));
  const auto search = [](const std::string& options) { return "procedure { id: 'eq_net_search' options { " + options + kSearch + " } }"; };
  CHECK_THAT(refusal("quantizer { id: 'elastic_lsq' options { elastic: true } layers: ['model.a', 'model.d'] } " + search("")),
             ContainsSubstring("2 quantised layers") && ContainsSubstring("at least 3"));
  CHECK_THAT(refusal(kElastic + search("average_bits: 1.5")), ContainsSubstring("averages from 2 to 8"));
  CHECK_THAT(refusal(kElastic + search("act_sizes: [1, 2]")), ContainsSubstring("2 numbers for 4 quantised layers"));
  CHECK_THAT(refusal("quantizer { id: 'elastic_lsq' options { elastic: true act_bits: [4, 8] } } " + search("")), ContainsSubstring("all bit widths from 2 to 8"));
  CHECK_THAT(refusal("quantizer { id: 'elastic_lsq' options { elastic: true } activations: false } " + search("")), ContainsSubstring("activations: false"));
}

}  // namespace tenon
