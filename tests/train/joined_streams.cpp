// Several streams through one model: joined and taken apart again, with shared weights and running statistics.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "tests/support/opened.h"


namespace tenon {
namespace {

using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::WithinRel;

Catalog& catalog() {
  static const std::unique_ptr<Catalog> all = test::load_plugins();
  return *all;
}

struct Run : test::Opened {
  explicit Run(const std::string& text)
      : Opened(catalog(), R"(
      data { name: "a" format: "synthetic" options { kind: "blobs" n: 32 features: 3 classes: 3 } shuffle: false test_split { how: "last" count: 8 } }
      data { name: "b" format: "synthetic" options { kind: "blobs" n: 24 features: 3 classes: 3 part: 1 } shuffle: false }
      train { steps: 9 batch_size: 8 }
      precision: f64
      seed: 3
    )" + text) {}
};

const std::string kSgd = "optimizer { id: 'sgd' options { lr: 0.1 } } ";

}  // namespace

TEST_CASE("models that share running statistics update them one after another, and frozen ones only use them") {
  const std::string norm = "layer { batch_norm { momentum: 0.25 } } layer { name: 'out' linear { units: 3 } } ";
  Run run("model { name: 'first' input: 'a.x' " + norm + "} model { name: 'second' input: 'b.x' share_with: 'first' " +
          norm + "} model { name: 'judge' input: 'a.x' share_with: 'first' frozen: true " + norm +
          "} loss { id: 'cross_entropy' model: 'first' } loss { name: 'other' id: 'cross_entropy' model: 'second' "
          "data: 'b' } "
          "metric { id: 'accuracy' bind { role: 'outputs' to: 'judge.output' } bind { role: 'labels' to: 'a.y' } } " +
          kSgd);
  REQUIRE(run.experiment);
  const Batch batch = run.experiment->training_batch(0, nullptr).value();
  const auto mean_of = [&](const char* column) {
    const HostArray x = batch.at(column).to_host().value();
    double sum = 0;
    for (int64_t i = 0; i < x.shape()[0]; ++i) sum += x.at(i * 3);
    return sum / static_cast<double>(x.shape()[0]);
  };
  const double a = mean_of("a.x"), b = mean_of("b.x");
  run.step(0);
  CHECK_THAT(run.saved("first.batch_norm0.running_mean"), WithinRel(0.75 * 0.25 * a + 0.25 * b, 1e-12));
  const double weight = run.saved("first.out.weight");
  run.step(1);
  CHECK(run.saved("first.out.weight") != weight);  // the frozen one does not freeze what it shares
  CHECK(run.experiment->optimizers().parameters().size() == 4);
  const double before = run.saved("first.batch_norm0.running_mean");
  REQUIRE(run.experiment->evaluate("test", 2).is_ok());
  CHECK(run.saved("first.batch_norm0.running_mean") == before);
}

TEST_CASE("a joined batch is taken apart into chunks, and stop_gradient trains nothing before it") {
  const std::string both =
      "model { name: 'both' input: ['a.x', 'b.x'] node { name: 'net' input: ['a.x', 'b.x'] join: 'concat' axis: 0 "
      "layer { linear { units: 4 } } } } ";
  const auto head = [](const std::string& name, const std::string& layers) {
    return "model { name: '" + name + "' input: 'both.output' " + layers +
           " layer { name: 'out' linear { units: 3 } } } ";
  };
  Run joined(both + head("first", "layer { chunk {} }") +
             head("second", "layer { chunk { index: 1 } } layer { stop_gradient {} }") +
             "loss { id: 'cross_entropy' model: 'first' } loss { name: 'other' id: 'cross_entropy' model: 'second' "
             "data: 'b' } " +
             kSgd);
  Run single("model { name: 'both' input: 'a.x' node { name: 'net' input: 'a.x' layer { linear { units: 4 } } } } " +
             head("first", "") + "loss { id: 'cross_entropy' model: 'first' } " + kSgd);
  const double loss = single.step(0).loss;
  CHECK_THAT(joined.step(0).parts.at("cross_entropy"), WithinRel(loss, 1e-12));
  CHECK_THAT(joined.saved("both.net.linear0.weight"),
             WithinRel(single.saved("both.net.linear0.weight"), 1e-12));
  const double second = joined.saved("second.out.weight");
  joined.step(1);
  CHECK(joined.saved("second.out.weight") != second);

  const auto refused = [&](const std::string& layers) {
    Run run(both + head("first", layers) + "loss { id: 'cross_entropy' model: 'first' } " + kSgd);
    return run.status.message();
  };
  CHECK_THAT(refused("layer { chunk { index: 2 } }"), ContainsSubstring("part 2 of 2 does not exist"));
  CHECK_THAT(refused("layer { chunk { of: 3 } }"), ContainsSubstring("has no 3 equal parts"));
}

}  // namespace tenon
