// Expected numbers: scikit-learn 1.9.1 on the same made arrays; mix(i, a, b, m) is written alike there.
#include "core/train/metrics.h"

#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <limits>

#include "tests/data/temp_files.h"

using namespace tenon;

namespace {

constexpr int64_t kRows = 40;

int64_t mix(int64_t i, int64_t a, int64_t b, int64_t m) { return (i * i * a + i * b + 1) / 2 % m; }

struct Arrays {
  HostArray outputs, labels;
};

// [40,4] scores with ties between classes, labels 0..3.
Arrays multiclass(double tie_break = 0) {
  Arrays a{HostArray(DType::f32, Shape{kRows, 4}), HostArray(DType::i32, Shape{kRows})};
  for (int64_t i = 0; i < kRows; ++i) {
    const int64_t label = mix(i, 7, 3, 4);
    a.labels.set(i, static_cast<double>(label));
    for (int64_t c = 0; c < 4; ++c)
      a.outputs.set(4 * i + c, static_cast<double>(mix(i, 11 + 5 * c, 2 + c, 17) - 8) / 4 +
                                   (label == c ? 1.5 : 0) + tie_break * static_cast<double>(c));
  }
  return a;
}

// [40] scores of nine values, so with many ties; labels 0/1.
Arrays binary() {
  Arrays a{HostArray(DType::f32, Shape{kRows}), HostArray(DType::i32, Shape{kRows})};
  for (int64_t i = 0; i < kRows; ++i) {
    a.labels.set(i, mix(i, 5, 1, 3) > 0);
    a.outputs.set(i, static_cast<double>(mix(i, 13, 4, 9) - 4) / 2);
  }
  return a;
}

Arrays regression() {
  Arrays a{HostArray(DType::f64, Shape{kRows, 2}), HostArray(DType::f64, Shape{kRows, 2})};
  for (int64_t i = 0; i < kRows; ++i) {
    a.labels.set(2 * i, static_cast<double>(mix(i, 7, 2, 23)) / 3 + 1000);
    a.labels.set(2 * i + 1, static_cast<double>(mix(i, 5, 9, 19)) / 7);
    a.outputs.set(2 * i, static_cast<double>(mix(i, 3, 8, 21)) / 3 + 1001);
    a.outputs.set(2 * i + 1, static_cast<double>(mix(i, 6, 1, 13)) / 5);
  }
  return a;
}

HostArray rows(const HostArray& a, int64_t begin, int64_t end) {
  Shape shape = a.shape();
  const size_t bytes = a.size_bytes() / static_cast<size_t>(shape[0]);
  shape[0] = end - begin;
  HostArray out(a.dtype(), shape);
  std::memcpy(out.data(), a.data() + static_cast<size_t>(begin) * bytes, out.size_bytes());
  return out;
}

// The value over batches of 7, checked equal after a reset and over one batch.
double measure(std::string_view id, const Arrays& a, const Options& options = {}) {
  auto made = make_metric(id, options);
  if (!made) FAIL(made.status().message());
  Metric& m = **made;
  CHECK_FALSE(m.value().is_ok());
  double values[2] = {};
  for (int64_t round = 0; round < 2; ++round) {
    m.reset();
    const int64_t n = a.labels.shape()[0], step = round ? n : 7;
    for (int64_t i = 0; i < n; i += step) {
      const HostArray o = rows(a.outputs, i, std::min(n, i + step)),
                      l = rows(a.labels, i, std::min(n, i + step));
      const Status s = m.update({{"outputs", &o}, {"labels", &l}}, o.shape()[0]);
      if (!s.is_ok()) FAIL(s.message());
    }
    const auto v = m.value();
    if (!v) FAIL(v.status().message());
    values[round] = *v;
  }
  CHECK(std::abs(values[0] - values[1]) <= 1e-12 * (1 + std::abs(values[1])));
  return values[1];
}

void check_near(double got, double expected) {
  INFO("got " << got << ", expected " << expected);
  CHECK(std::abs(got - expected) <= 1e-10 * (1 + std::abs(expected)));
}

const Options kMacro = {{"average", std::string("macro")}};

}  // namespace

TEST_CASE("classification metrics agree with scikit-learn") {
  const Arrays a = multiclass();
  check_near(measure("accuracy", a), 0.5);
  check_near(measure("precision", a), 0.49469696969696964);  // average="macro"
  check_near(measure("recall", a), 0.5);
  check_near(measure("f1", a), 0.49680451127819547);
  check_near(measure("top_k", multiclass(1e-3), {{"k", int64_t{2}}}), 0.75);
  check_near(measure("top_k", a, {{"k", int64_t{4}}}), 1);
}

TEST_CASE("binary metrics agree with scikit-learn, for scores and for two logits") {
  const Arrays a = binary();
  check_near(measure("accuracy", a), 0.675);
  check_near(measure("precision", a), 0.5);
  check_near(measure("recall", a), 0.46153846153846156);
  check_near(measure("f1", a), 0.48);
  check_near(measure("precision", a, kMacro), 0.625);
  check_near(measure("recall", a, kMacro), 0.6196581196581197);
  check_near(measure("f1", a, kMacro), 0.6218181818181818);
  check_near(measure("g_mean", a), std::sqrt(0.46153846153846156 * (2 * 0.6196581196581197 - 0.46153846153846156)));
  check_near(measure("auc", a), 0.6239316239316239);
  Arrays two{HostArray(DType::f32, Shape{kRows, 2}), a.labels}, column{a.outputs, a.labels}, sign = a,
                                                                                             shifted = a;
  for (int64_t i = 0; i < kRows; ++i) {
    two.outputs.set(2 * i, 0.25);
    two.outputs.set(2 * i + 1, a.outputs.at(i) + 0.25);
    sign.labels.set(i, 2 * a.labels.at(i) - 1);
    shifted.outputs.set(i, a.outputs.at(i) + 0.5);
  }
  column.outputs = std::move(column.outputs).reshaped(Shape{kRows, 1});
  for (const Arrays* same : {&two, &column, &sign}) {
    check_near(measure("accuracy", *same), 0.675);
    check_near(measure("f1", *same), 0.48);
    check_near(measure("auc", *same), 0.6239316239316239);
  }
  check_near(measure("accuracy", shifted, {{"threshold", 0.5}}), 0.675);
  Arrays logits{HostArray(DType::f32, Shape{kRows, 2}), a.labels};
  for (int64_t i = 0; i < kRows; ++i) {
    logits.outputs.set(2 * i, static_cast<double>(mix(i, 3, 5, 7)) / 2);
    logits.outputs.set(2 * i + 1, static_cast<double>(mix(i, 9, 1, 8)) / 2);
  }
  check_near(measure("auc", logits), 0.5512820512820513);
}

TEST_CASE("regression metrics agree with scikit-learn") {
  const Arrays a = regression();
  check_near(measure("mse", a), 3.0994104308389936);
  check_near(measure("mae", a), 1.3378571428571386);
  check_near(measure("r2", a), -0.4442148125227914);
  Arrays first{HostArray(DType::f64, Shape{kRows, 1}), HostArray(DType::f64, Shape{kRows})};
  for (int64_t i = 0; i < kRows; ++i) {
    first.outputs.set(i, a.outputs.at(2 * i));
    first.labels.set(i, a.labels.at(2 * i));
  }
  check_near(measure("r2", first), 0.000988981905813091);  // [N,1] against [N]
  Arrays constant = first;
  for (int64_t i = 0; i < kRows; ++i) constant.labels.set(i, 4);
  check_near(measure("r2", constant), 0);
  constant.outputs = constant.labels;
  check_near(measure("r2", constant), 1);
}

TEST_CASE("losses: per sample, or a batch mean weighted by its count") {
  const HostArray a = HostArray::of(std::vector<float>{1, 2, 3}), b = HostArray::of(std::vector<float>{6});
  HostArray mean(DType::f32, Shape{});
  mean.set(0, 2);
  for (const auto& [id, expected] :
       {std::pair{"loss", 3.0}, {"perplexity", std::exp(3.0)}, {"bits_per_char", 3.0 / std::log(2.0)}}) {
    CAPTURE(id);
    REQUIRE_GOOD(const auto m, make_metric(id));
    REQUIRE(m->update({{"loss", &a}}, 3).is_ok());
    REQUIRE(m->update({{"loss", &b}}, 1).is_ok());
    check_near(*m->value(), expected);
    m->reset();
    REQUIRE(m->update({{"loss", &mean}}, 3).is_ok());
    REQUIRE(m->update({{"loss", &b}}, 1).is_ok());
    check_near(*m->value(), expected);
    m->reset();
    CHECK_FAILS(m->value(), "no samples");
  }
}

TEST_CASE("tokens [B,T,C], ignored labels, soft labels") {
  const HostArray logits = HostArray::of<float>(std::vector<float>{1, 0, 0, 1, 0, 1, 1, 0}, Shape{2, 2, 2});
  const HostArray labels = HostArray::of<int32_t>(std::vector<int32_t>{0, 0, 1, -100}, Shape{2, 2});
  REQUIRE_GOOD(const auto m, make_metric("accuracy"));
  REQUIRE(m->update({{"outputs", &logits}, {"labels", &labels}}, 4).is_ok());
  check_near(*m->value(), 2.0 / 3);
  const HostArray soft =
      HostArray::of<float>(std::vector<float>{.9f, .1f, .2f, .8f, .3f, .7f, .4f, .6f}, Shape{2, 2, 2});
  m->reset();
  REQUIRE(m->update({{"outputs", &logits}, {"labels", &soft}}, 4).is_ok());
  check_near(*m->value(), 0.75);
}

TEST_CASE("max_vio and idle_experts sum the loads of all batches") {
  REQUIRE_GOOD(const auto m, make_metric("max_vio"));
  const HostArray a = HostArray::of(std::vector<int64_t>{5, 1}), b = HostArray::of(std::vector<int64_t>{1, 1}),
                  three = HostArray::of(std::vector<int64_t>{1, 1, 1});
  CHECK_FAILS(m->value(), "no tokens");
  REQUIRE(m->update({{"load", &a}}, 3).is_ok());
  REQUIRE(m->update({{"load", &b}}, 1).is_ok());
  check_near(*m->value(), 0.5);  // 6 against a share of 4
  CHECK_FAILS(m->update({{"load", &three}}, 1), "load of each expert");

  REQUIRE_GOOD(const auto idle, make_metric("idle_experts"));
  const HostArray first = HostArray::of(std::vector<int64_t>{4, 0, 0}), second = HostArray::of(std::vector<int64_t>{1, 0, 2});
  CHECK_FAILS(idle->value(), "no tokens");
  REQUIRE(idle->update({{"load", &first}}, 4).is_ok());
  check_near(*idle->value(), 2);
  REQUIRE(idle->update({{"load", &second}}, 3).is_ok());
  check_near(*idle->value(), 1);
}

TEST_CASE("the distribution of numbers: kurtosis, peak, share near zero") {
  const HostArray a = HostArray::of(std::vector<double>{1, -1, 3}), b = HostArray::of(std::vector<double>{-3, 0.1, -0.1});
  const HostArray same = HostArray::of(std::vector<double>{2, 2});
  const double variance = (1 + 1 + 9 + 9 + 0.02) / 6, fourth = (1 + 1 + 81 + 81 + 2e-4) / 6;  // the mean is 0
  for (const auto& [id, expected] : {std::pair("kurtosis", fourth / (variance * variance)), std::pair("peak", 3 / std::sqrt(variance)), std::pair("near_zero", 2.0 / 6)}) {
    CAPTURE(id);
    REQUIRE_GOOD(const auto m, make_metric(id));
    CHECK_FAILS(m->value(), "no numbers");
    REQUIRE(m->update({{"values0", &a}, {"values1", &b}}, 1).is_ok());
    check_near(*m->value(), expected);
    m->reset();
    REQUIRE(m->update({{"values", &same}}, 1).is_ok());
    CHECK_FAILS(m->value(), "all equal");
  }
  CHECK_FAILS(make_metric("near_zero", {{"fraction", 0.0}}), "fraction");
}

TEST_CASE("metrics: bad input") {
  CHECK_FAILS(make_metric("acuracy"), "did you mean 'accuracy'");
  const HostArray x = HostArray::of<float>(std::vector<float>{1, 2, 3, 4, 5, 6}, Shape{2, 3});
  const HostArray y = HostArray::of(std::vector<int32_t>{0, 3}),
                  three = HostArray::of(std::vector<int32_t>{0, 1, 2});
  const HostArray ok = HostArray::of(std::vector<int32_t>{0, 1});
  for (const MetricInfo& info : metrics()) {
    CAPTURE(info.id);
    CHECK_FAILS(make_metric(info.id, {{"no such", true}}), info.id, "unknown option");
    REQUIRE_GOOD(const auto m, make_metric(info.id));
    CHECK_FAILS(m->update({}, 1), "role", info.roles.substr(0, info.roles.find(',')));
    if (info.roles != "outputs,labels") continue;
    CHECK_FAILS(m->update({{"outputs", &x}}, 1), "role 'labels'");
    CHECK_FAILS(m->update({{"outputs", &x}, {"labels", &three}}, 2), "f32[2, 3]", "i32[3]");
  }
  for (const char* id : {"accuracy", "f1"}) {
    REQUIRE_GOOD(const auto m, make_metric(id));
    CHECK_FAILS(m->update({{"outputs", &x}, {"labels", &y}}, 2), "label 1 is 3", "0..2");
  }
  REQUIRE_GOOD(const auto top, make_metric("top_k"));
  CHECK_FAILS(top->update({{"outputs", &x}, {"labels", &ok}}, 2), "k is 5", "3 classes");
  CHECK_FAILS(make_metric("top_k", {{"k", int64_t{0}}}), "at least 1");
  REQUIRE_GOOD(const auto auc, make_metric("auc"));
  CHECK_FAILS(auc->update({{"outputs", &x}, {"labels", &ok}}, 2), "two classes");
  const HostArray scores = HostArray::of(std::vector<float>{1, 2}),
                  positive = HostArray::of(std::vector<int32_t>{1, 1});
  REQUIRE(auc->update({{"outputs", &scores}, {"labels", &positive}}, 2).is_ok());
  CHECK_FAILS(auc->value(), "one class");
  const HostArray nan = HostArray::of(std::vector<float>{1, std::numeric_limits<float>::quiet_NaN()});
  CHECK_FAILS(auc->update({{"outputs", &nan}, {"labels", &ok}}, 2), "sample 1", "NaN");
  CHECK_FAILS(make_metric("f1", {{"average", std::string("micro")}}), "micro", "macro");
  REQUIRE_GOOD(const auto f1, make_metric("f1", {{"average", std::string("binary")}}));
  CHECK_FAILS(f1->update({{"outputs", &x}, {"labels", &ok}}, 2), "two classes");
}
