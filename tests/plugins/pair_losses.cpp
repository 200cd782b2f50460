// Multi-similarity and its family: values by hand, the pair-weighting identity, the sorted triplets against all triplets,
// derivatives, and batches without pairs.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
#include <random>

#include "tests/plugins/loss_call.h"
#include "tests/support/device.h"

namespace tenon::test {
namespace {

using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::WithinAbs;
using Catch::Matchers::WithinRel;

const std::vector<LossCall> kFamily = {
    {"multi_similarity", {{"alpha", 1.5}, {"beta", 6.0}, {"epsilon", 0.2}}, {}},
    {"multi_similarity", {{"beta", 6.0}, {"mining", false}, {"lambda", 0.1}}, {}},
    {"multi_similarity", {{"beta", 6.0}, {"self_exclusion", std::string("similarity")}}, {}},
    {"contrastive_pair", {{"lambda", 0.1}}, {}},
    {"contrastive_pair", {{"lambda", 0.1}, {"reduction", std::string("pair_mean")}}, {}},
    {"triplet_cosine", {{"margin", 0.2}}, {}},
    {"triplet_cosine", {{"margin", 0.2}, {"reduction", std::string("anchor_mean")}}, {}},
    {"lifted_structure", {{"lambda", 0.7}}, {}},
    {"n_pair", {{"scale", 3.0}}, {}},
    {"binomial_deviance", {{"beta", 6.0}}, {}},
};

LossCall with(LossCall call, HostArray embeddings, HostArray labels) {
  call.inputs = {{"embeddings", std::move(embeddings)}, {"labels", std::move(labels)}};
  return call;
}

// m rows of width d in `classes` classes; the last row is alone in a class of its own.
LossCall random_batch(const LossCall& call, std::mt19937& rng, int64_t m, int64_t d, int64_t classes) {
  std::normal_distribution<double> normal;
  HostArray e(DType::f64, Shape{m, d}), y(DType::i64, Shape{m});
  for (int64_t i = 0; i < e.numel(); ++i) e.set(i, normal(rng));
  for (int64_t i = 0; i < m; ++i) y.set(i, static_cast<double>(i + 1 < m ? i % classes : classes));
  return with(call, e, y);
}

}  // namespace

TEST_CASE("pair losses have the values of their formulas") {
  auto rt = runtime();
  // Rows along two axes: S is 1 on an axis and 0 across. Each anchor's positive is across; one negative is with it.
  const HostArray e = reals({4, 2}, {2, 0, 3, 0, 0, 1, 0, 5}), y = numbers({0, 1, 0, 1});
  const auto value = [&](const std::string& id, const Options& options) { return loss_of(*rt, with({id, options, {}}, e, y)).loss(); };
  const double near = std::log1p(std::exp(25.0)), far = std::log1p(std::exp(-25.0));
  CHECK_THAT(value("multi_similarity", {{"mining", false}}),
             WithinRel(std::log1p(std::exp(1.0)) / 2 + std::log1p(std::exp(25.0) + std::exp(-25.0)) / 50, 1e-12));
  // With mining the negative at 0 stays: 0 > 0 - 0.1.
  CHECK_THAT(value("multi_similarity", {{"epsilon", 0.0}}), WithinRel(std::log1p(std::exp(1.0)) / 2 + near / 50, 1e-12));
  CHECK_THAT(value("contrastive_pair", {}), WithinRel(1.5, 1e-12));
  CHECK_THAT(value("contrastive_pair", {{"reduction", std::string("pair_mean")}}), WithinRel(1.5, 1e-12));
  CHECK_THAT(value("triplet_cosine", {}), WithinRel((1.1 + 0.1) / 2, 1e-12));
  CHECK_THAT(value("triplet_cosine", {{"reduction", std::string("anchor_mean")}}), WithinRel(1.2, 1e-12));
  CHECK_THAT(value("triplet_cosine", {{"margin", 0.0}}), WithinRel(1.0, 1e-12));  // the tie is not active
  CHECK_THAT(value("lifted_structure", {}), WithinRel(1 + std::log(std::exp(1.0) + 1), 1e-12));
  CHECK_THAT(value("n_pair", {}), WithinRel(std::log(2 + std::exp(10.0)), 1e-12));
  CHECK_THAT(value("binomial_deviance", {}), WithinRel(std::log1p(std::exp(1.0)) + (near + far) / 2, 1e-12));
}

TEST_CASE("derivatives of pair losses agree with finite differences to second order") {
  auto rt = runtime();
  std::mt19937 rng(7);  // fixed: a mined set may not change within a difference
  for (const LossCall& call : kFamily) check_derivatives(*rt, random_batch(call, rng, 7, 3, 2), "embeddings");
}

TEST_CASE("the surrogate of general pair weighting has the gradient of each loss, and shows its value") {
  const unsigned seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 rng(seed);
  auto rt = runtime();
  for (const LossCall& call : kFamily) {
    CAPTURE(call.id);
    const LossCall batch = random_batch(call, rng, 9, 4, 3);
    LossCall surrogate = batch;
    surrogate.id = "gpw";
    surrogate.options.emplace("of", call.id);
    const LossValues a = loss_of(*rt, batch), b = loss_of(*rt, surrogate);
    const std::vector<double> first = a.grad("embeddings"), second = b.grad("embeddings");
    for (size_t i = 0; i < first.size(); ++i) CHECK_THAT(second[i], WithinAbs(first[i], 1e-10));
    CHECK(a.emitted_values("pair_weights") == b.emitted_values("pair_weights"));
    CHECK_THAT(b.emitted_values("report")[0], WithinRel(a.loss(), 1e-12));
  }
}

TEST_CASE("triplets that are counted by sorting are those of all triplets") {
  const unsigned seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 rng(seed);
  auto rt = runtime();
  for (int round = 0; round < 8; ++round) {
    const int64_t m = 2 + static_cast<int64_t>(rng() % 20);
    // Entries of few values, so that similarities tie.
    HostArray e(DType::f64, Shape{m, 2}), y(DType::i64, Shape{m});
    for (int64_t i = 0; i < e.numel(); ++i) e.set(i, static_cast<double>(rng() % 4) / 4);
    for (int64_t i = 0; i < m; ++i) y.set(i, static_cast<double>(rng() % 3));
    const double margin = static_cast<double>(rng() % 3) / 4;
    double total = 0;
    std::vector<double> weights(static_cast<size_t>(m * m));
    int64_t active = 0;
    const auto s = [&](int64_t i, int64_t j) { return e.at(2 * i) * e.at(2 * j) + e.at(2 * i + 1) * e.at(2 * j + 1); };
    for (int64_t i = 0; i < m; ++i)
      for (int64_t p = 0; p < m; ++p)
        for (int64_t n = 0; n < m; ++n) {
          if (p == i || y.at(p) != y.at(i) || y.at(n) == y.at(i)) continue;
          const double excess = s(i, n) - s(i, p) + margin;
          if (excess <= 0) continue;
          ++active;
          total += excess;
          weights[static_cast<size_t>(i * m + n)] += 1;
          weights[static_cast<size_t>(i * m + p)] -= 1;
        }
    const double divisor = static_cast<double>(std::max<int64_t>(active, 1));
    const LossValues got = loss_of(*rt, with({"triplet_cosine", {{"margin", margin}, {"normalize", false}}, {}}, e, y));
    CHECK_THAT(got.loss(), WithinAbs(total / divisor, 1e-12));
    const std::vector<double> got_weights = got.emitted_values("pair_weights");
    for (size_t i = 0; i < weights.size(); ++i) CHECK_THAT(got_weights[i], WithinAbs(weights[i] / divisor, 1e-12));
  }
}

TEST_CASE("a batch without pairs of both kinds has loss 0 and gradient 0") {
  auto rt = runtime();
  std::mt19937 rng(3);
  std::vector<LossCall> family = kFamily;
  family.push_back({"gpw", {}, {}});
  for (const LossCall& call : family)
    for (const std::vector<int64_t>& labels : {std::vector<int64_t>{4, 4, 4}, {1, 2, 3}}) {
      CAPTURE(call.id, labels);
      LossCall batch = random_batch(call, rng, 3, 2, 1);
      batch.input("labels") = numbers(labels);
      const LossValues v = loss_of(*rt, batch);
      // Either kind counts alone in these two.
      if (call.id == "contrastive_pair" || call.id == "binomial_deviance") {
        CHECK(std::isfinite(v.loss()));
        continue;
      }
      CHECK(v.loss() == 0);
      for (double g : v.grad("embeddings")) CHECK(g == 0);
    }
}

TEST_CASE("pair losses stay finite where numbers are extreme") {
  auto rt = runtime();
  for (const LossCall& call : kFamily) {
    CAPTURE(call.id);
    // A zero row, duplicates, and rows of very different size.
    LossCall batch = with(call, reals({5, 2}, {0, 0, 1, 2, 1, 2, 1e6, -1e6, 1e-6, 1e-6}, DType::f32), numbers({0, 0, 0, 1, 1}));
    for (bool normalize : {true, false}) {
      batch.options.insert_or_assign("normalize", normalize);
      const LossValues v = loss_of(*rt, batch);
      CHECK(std::isfinite(v.loss()));
      for (double g : v.grad("embeddings")) CHECK(std::isfinite(g));
    }
  }
}

TEST_CASE("what pair losses can't use is refused in a sentence") {
  auto rt = runtime();
  const LossCall call{"multi_similarity", {}, {}};
  const HostArray e = reals({3, 2}, {1, 0, 0, 1, 1, 1});
  CHECK_THAT(refusal(*rt, with(call, reals({3}, {1, 0, 0}), numbers({0, 0, 1}))), ContainsSubstring("embeddings"));
  CHECK_THAT(refusal(*rt, with(call, e, numbers({0, 1}))), ContainsSubstring("3 embeddings, but 2 labels"));
  CHECK_THAT(refusal(*rt, with(call, reals({1, 2}, {1, 0}), numbers({0}))), ContainsSubstring("at least 2"));
  CHECK_THAT(refusal(*rt, with(call, reals({2, 1}, {1, NAN}), numbers({0, 1}))), ContainsSubstring("not finite"));
  for (const char* option : {"alpha", "beta"})
    CHECK_THAT(refusal(*rt, with({"multi_similarity", {{option, 0.0}}, {}}, e, numbers({0, 0, 1}))), ContainsSubstring(option));
  CHECK_THAT(refusal(*rt, with({"multi_similarity", {{"epsilon", -0.1}}, {}}, e, numbers({0, 0, 1}))), ContainsSubstring("epsilon"));
  CHECK_THAT(refusal(*rt, with({"gpw", {{"of", std::string("n_pair")}, {"reduction", std::string("pair_mean")}}, {}}, e, numbers({0, 0, 1}))),
             ContainsSubstring("pair_mean is not one of n_pair"));
}

}  // namespace tenon::test
