// The built-in losses through the mini host, against their formulas written as plain loops.
#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <random>

#include "tests/abi/mini_host.h"

using namespace abi_test;
using Catch::Approx;

namespace {

constexpr double kTolerance = 1e-12;

struct Loss {
  explicit Loss(const std::string& id) : loaded(TENON_BINARY_DIR "/plugins/" + id + ".so", host) {
    INFO(loaded.error);
    REQUIRE(loaded.error.empty());
    REQUIRE(loaded.plugin->n_descriptors == 1);
    REQUIRE(std::string(loaded.plugin->descriptors[0]->id) == id);
    REQUIRE(std::string(loaded.plugin->descriptors[0]->kind) == TN_KIND_LOSS);
  }
  Outcome operator()(const std::map<std::string, Value>& in,
                     const std::map<std::string, tn_value>& options = {}) {
    Instance i(host, loaded.plugin->descriptors[0], options);
    REQUIRE(i.created.code == TN_STATUS_OK);
    return i.loss(in);
  }
  double value(const std::map<std::string, Value>& in, const std::map<std::string, tn_value>& options = {}) {
    const Outcome o = (*this)(in, options);
    INFO(o.message);
    REQUIRE(o.code == TN_STATUS_OK);
    REQUIRE(o.emitted.at("loss").as == TN_OUT_LOSS);
    REQUIRE(o.emitted.at("loss").value.shape.empty());
    return o.emitted.at("loss").value.data[0];
  }
  MiniHost host;
  Loaded loaded;
};

struct Draw {
  explicit Draw(unsigned seed) : rng(seed) {}
  std::vector<double> normal(size_t n, double scale = 1) {
    std::normal_distribution<double> d(0, scale);
    std::vector<double> v(n);
    for (double& x : v) x = d(rng);
    return v;
  }
  std::mt19937 rng;
};

// -log softmax(row of x)[c]
double nll(const std::vector<double>& x, size_t row, size_t classes, size_t c) {
  double total = 0;
  for (size_t j = 0; j < classes; ++j) total += std::exp(x[row * classes + j]);
  return std::log(total) - x[row * classes + c];
}
double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

}  // namespace

TEST_CASE("cross_entropy: label smoothing, class weights, ignored labels, sample weights, reductions") {
  const unsigned seed = std::random_device{}();
  CAPTURE(seed);
  Draw draw(seed);
  Loss loss("cross_entropy");
  const size_t B = 5, C = 4;
  const auto x = draw.normal(B * C);
  const std::vector<double> y = {0, 3, -100, 1, 3}, w = {1, 0.5, 2, 3}, sw = {1, 2, 3, 0.5, 0};
  const std::map<std::string, Value> in = {{"logits", tensor({5, 4}, x)}, {"labels", tensor({5}, y, TN_I64)}};

  // The general formula; smoothing s, weights optional.
  const auto expected = [&](double s, bool weighted, bool samples) {
    double total = 0, weight = 0;
    for (size_t i = 0; i < B; ++i) {
      if (y[i] < 0) continue;
      const auto c = static_cast<size_t>(y[i]);
      const auto wc = [&](size_t k) { return weighted ? w[k] : 1.0; };
      double l = (1 - s) * wc(c) * nll(x, i, C, c);
      for (size_t k = 0; k < C; ++k) l += s / static_cast<double>(C) * wc(k) * nll(x, i, C, k);
      total += l * (samples ? sw[i] : 1);
      weight += wc(c) * (samples ? sw[i] : 1);
    }
    return std::pair(total, weight);
  };
  for (const double s : {0.0, 0.2})
    for (const bool weighted : {false, true})
      for (const bool samples : {false, true}) {
        CAPTURE(s, weighted, samples);
        auto inputs = in;
        if (samples) inputs["sample_weight"] = tensor({5}, sw);
        std::map<std::string, tn_value> options = {{"label_smoothing", real(s)}};
        if (weighted) options["class_weights"] = reals(w);
        const auto [total, weight] = expected(s, weighted, samples);
        CHECK(loss.value(inputs, options) == Approx(total / weight).epsilon(kTolerance));
        options["reduction"] = text("sum");
        CHECK(loss.value(inputs, options) == Approx(total).epsilon(kTolerance));
      }

  const Outcome none = loss(in, {{"reduction", text("none")}});
  REQUIRE(none.code == TN_STATUS_OK);
  CHECK(none.emitted.at("loss").value.shape == Shape{5});
  CHECK(none.emitted.at("loss").value.data[1] == Approx(nll(x, 1, C, 3)).epsilon(kTolerance));
  CHECK(none.emitted.at("loss").value.data[2] == 0);
  CHECK(none.emitted.at("per_sample").as == TN_OUT_PER_SAMPLE);

  auto ignored = in;
  ignored["labels"] = tensor({5}, {-100, -100, -100, -100, -100}, TN_I64);
  CHECK(loss.value(ignored) == 0);

  const std::vector<double> two = {1, 2};
  const Outcome wrong = loss(in, {{"class_weights", reals(two)}});
  CHECK(wrong.code == TN_STATUS_INVALID);
  CHECK(wrong.message == "class_weights has 2 values for 4 classes");
}

TEST_CASE("cross_entropy of sequences averages over the tokens that count") {
  Loss loss("cross_entropy");
  Draw draw(7);
  const auto x = draw.normal(2 * 3 * 4);
  const std::vector<double> y = {1, -100, 2, 0, 3, -100};
  const Outcome o = loss({{"logits", tensor({2, 3, 4}, x)}, {"labels", tensor({2, 3}, y, TN_I64)}});
  REQUIRE(o.code == TN_STATUS_OK);
  const double a = (nll(x, 0, 4, 1) + nll(x, 2, 4, 2)) / 2, b = (nll(x, 3, 4, 0) + nll(x, 4, 4, 3)) / 2;
  CHECK(o.emitted.at("loss").value.data[0] == Approx((a + b) / 2).epsilon(kTolerance));
  CHECK(o.emitted.at("per_sample").value.shape == Shape{2});
  CHECK(o.emitted.at("per_sample").value.data[0] == Approx(a).epsilon(kTolerance));
}

TEST_CASE("bce_with_logits: pos_weight, columns, labels of another shape and type") {
  Loss loss("bce_with_logits");
  const std::vector<double> x = {0.3, -2, 40, -35, 1.5, 0}, y = {1, 0, 1, 0, 0, 1}, p = {2, 3};
  const auto expected = [&](auto weight_of) {
    double total = 0;
    for (size_t i = 0; i < 6; ++i) {
      const double sp = std::max(-x[i], 0.0) + std::log1p(std::exp(-std::fabs(x[i])));  // -log sigmoid(x)
      total += weight_of(i) * y[i] * sp + (1 - y[i]) * (x[i] + sp);
    }
    return total / 6;
  };
  const std::map<std::string, Value> flat = {{"logits", tensor({6, 1}, x)},
                                             {"labels", tensor({6}, y, TN_I64)}};
  CHECK(loss.value(flat) == Approx(expected([](size_t) { return 1.0; })).epsilon(kTolerance));
  const std::vector<double> one = {2.5};
  CHECK(loss.value(flat, {{"pos_weight", reals(one)}}) ==
        Approx(expected([](size_t) { return 2.5; })).epsilon(kTolerance));
  const std::map<std::string, Value> columns = {{"logits", tensor({3, 2}, x)}, {"labels", tensor({3, 2}, y)}};
  CHECK(loss.value(columns, {{"pos_weight", reals(p)}}) ==
        Approx(expected([&](size_t i) { return p[i % 2]; })).epsilon(kTolerance));
  const Outcome o = loss({{"logits", tensor({3, 2}, x)}, {"labels", tensor({6}, y)}});
  CHECK(o.message == "shapes do not match: prediction [3, 2], target [6]");
}

TEST_CASE("regression losses: mse, mae, huber") {
  const unsigned seed = std::random_device{}();
  CAPTURE(seed);
  Draw draw(seed);
  const auto x = draw.normal(12, 2), y = draw.normal(12);
  const std::vector<double> w = {1, 0, 2.5, 0.5};
  const double delta = 0.7;
  const std::map<std::string, double (*)(double)> formulas = {
      {"mse", [](double e) { return e * e; }},
      {"mae", [](double e) { return std::fabs(e); }},
      {"huber", [](double e) { return std::fabs(e) <= 0.7 ? e * e / 2 : 0.7 * (std::fabs(e) - 0.35); }}};
  for (const auto& [id, f] : formulas) {
    CAPTURE(id);
    Loss loss(id);
    std::map<std::string, tn_value> options;
    if (id == "huber") options["delta"] = real(delta);
    double total = 0, weighted = 0;
    for (size_t i = 0; i < 12; ++i) {
      total += f(x[i] - y[i]);
      weighted += w[i / 3] * f(x[i] - y[i]);
    }
    std::map<std::string, Value> in = {{"prediction", tensor({4, 3}, x)}, {"target", tensor({4, 3}, y)}};
    CHECK(loss.value(in, options) == Approx(total / 12).epsilon(kTolerance));
    options["reduction"] = text("sum");
    CHECK(loss.value(in, options) == Approx(total).epsilon(kTolerance));
    in["sample_weight"] = tensor({4}, w);
    options["reduction"] = text("mean");
    CHECK(loss.value(in, options) == Approx(weighted / (4 * 3)).epsilon(kTolerance));  // the weights sum to 4
    const Outcome o =
        loss({{"prediction", tensor({4, 1}, {1, 2, 3, 4})}, {"target", tensor({4}, {1, 2, 3, 4})}}, options);
    REQUIRE(o.code == TN_STATUS_OK);
    CHECK(o.emitted.at("loss").value.data[0] == 0);  // [B] against [B, 1] is not broadcast to [B, B]
  }
}

TEST_CASE("hinge: binary, Crammer-Singer, Weston-Watkins, squared") {
  Loss loss("hinge");
  const std::vector<double> x = {2, -0.5, 0.3}, zero_one = {1, 1, 0}, signs = {1, 1, -1};
  const double binary = (0 + 1.5 + 1.3) / 3;
  CHECK(loss.value({{"logits", tensor({3}, x)}, {"labels", tensor({3}, zero_one, TN_I64)}}) ==
        Approx(binary));
  CHECK(loss.value({{"logits", tensor({3, 1}, x)}, {"labels", tensor({3}, signs)}}) == Approx(binary));
  CHECK(loss.value({{"logits", tensor({3}, x)}, {"labels", tensor({3}, signs)}},
                   {{"squared", boolean(true)}}) == Approx((1.5 * 1.5 + 1.3 * 1.3) / 3));

  const std::map<std::string, Value> in = {{"logits", tensor({2, 3}, {1, 2, 3.5, -1, 0.2, 0})},
                                           {"labels", tensor({2}, {1, 1}, TN_I64)}};
  CHECK(loss.value(in) == Approx((2.5 + 0.8) / 2));
  CHECK(loss.value(in, {{"multi_class", text("weston_watkins")}}) == Approx((2.5 / 3 + 0.8 / 3) / 2));
  CHECK(loss.value(in, {{"margin", real(2)}, {"squared", boolean(true)}}) ==
        Approx((3.5 * 3.5 + 1.8 * 1.8) / 2));
}

TEST_CASE("focal: several and two classes, alpha, saturated logits") {
  Loss loss("focal");
  Draw draw(3);
  const auto x = draw.normal(3 * 4, 2);
  const std::vector<double> y = {2, 0, 3}, alpha = {0.5, 1, 2, 0.25};
  const std::map<std::string, Value> in = {{"logits", tensor({3, 4}, x)}, {"labels", tensor({3}, y, TN_I64)}};
  for (const double gamma : {0.0, 0.5, 1.0, 2.0}) {
    CAPTURE(gamma);
    double plain = 0, balanced = 0;
    for (size_t i = 0; i < 3; ++i) {
      const double l = nll(x, i, 4, static_cast<size_t>(y[i]));
      const double f = std::pow(1 - std::exp(-l), gamma) * l;
      plain += f / 3;
      balanced += alpha[static_cast<size_t>(y[i])] * f / 3;
    }
    CHECK(loss.value(in, {{"gamma", real(gamma)}}) == Approx(plain).epsilon(1e-10));
    CHECK(loss.value(in, {{"gamma", real(gamma)}, {"alpha", reals(alpha)}}) ==
          Approx(balanced).epsilon(1e-10));
  }
  const std::vector<double> z = {0.4, -3, 2}, t = {1, 0, 0}, a = {0.25};
  double binary = 0;
  for (size_t i = 0; i < 3; ++i) {
    const double p = t[i] > 0 ? sigmoid(z[i]) : 1 - sigmoid(z[i]);
    binary -= (t[i] > 0 ? 0.25 : 0.75) * (1 - p) * (1 - p) * std::log(p) / 3;
  }
  CHECK(loss.value({{"logits", tensor({3}, z)}, {"labels", tensor({3}, t)}}, {{"alpha", reals(a)}}) ==
        Approx(binary).epsilon(1e-10));
  const double tiny =
      loss.value({{"logits", tensor({1, 2}, {60, -60})}, {"labels", tensor({1}, {0}, TN_I64)}});
  CHECK(tiny == Approx(0).margin(1e-300));
  CHECK(loss(in, {{"alpha", reals(a)}}).message == "alpha has 1 values; these logits want 4");
}

TEST_CASE("kl_div: probabilities, teacher's logits, temperature, zero probabilities") {
  Loss loss("kl_div");
  Draw draw(11);
  const auto x = draw.normal(2 * 3), teacher = draw.normal(2 * 3);
  const std::vector<double> t = {0.2, 0.8, 0, 0.5, 0.25, 0.25};
  double expected = 0;
  for (size_t i = 0; i < 6; ++i)
    if (t[i] > 0) expected += t[i] * (std::log(t[i]) + nll(x, i / 3, 3, i % 3)) / 2;
  CHECK(loss.value({{"logits", tensor({2, 3}, x)}, {"target", tensor({2, 3}, t)}}) ==
        Approx(expected).epsilon(kTolerance));

  std::vector<double> log_q;
  for (size_t i = 0; i < 6; ++i) log_q.push_back(-nll(x, i / 3, 3, i % 3));
  CHECK(loss.value({{"logits", tensor({2, 3}, log_q)}, {"target", tensor({2, 3}, t)}},
                   {{"input_kind", text("log_probabilities")}}) == Approx(expected).epsilon(kTolerance));

  const double T = 4;
  std::vector<double> xs, ts;
  for (size_t i = 0; i < 6; ++i) xs.push_back(x[i] / T), ts.push_back(teacher[i] / T);
  double distilled = 0;
  for (size_t i = 0; i < 6; ++i) {
    const double log_t = -nll(ts, i / 3, 3, i % 3);
    distilled += T * T * std::exp(log_t) * (log_t + nll(xs, i / 3, 3, i % 3)) / 2;
  }
  CHECK(loss.value({{"logits", tensor({2, 3}, x)}, {"target", tensor({2, 3}, teacher)}},
                   {{"target_kind", text("logits")}, {"temperature", real(T)}}) ==
        Approx(distilled).epsilon(1e-11));
}
