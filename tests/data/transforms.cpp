#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <limits>
#include <set>

#include "core/data/transform.h"
#include "tests/data/temp_files.h"

using namespace tenon;

namespace {

std::shared_ptr<Transform> make(std::string_view id, const Options& options = {}) {
  auto t = make_transform(id, options);
  if (!t) FAIL(t.status().message());
  return std::move(t).value();
}

HostArray array(const std::vector<float>& v, Shape shape) { return HostArray::of<float>(v, shape); }

Dataset table(HostArray x, std::string_view name = "x") {
  Dataset d;
  REQUIRE(d.add(std::string(name), std::move(x)).is_ok());
  return d;
}

Columns one(HostArray x, std::string_view name = "x") {
  Columns c;
  c.emplace(name, std::move(x));
  return c;
}

void check_near(const HostArray& a, const std::vector<double>& expected, double tolerance = 1e-6) {
  REQUIRE(a.numel() == static_cast<int64_t>(expected.size()));
  for (int64_t i = 0; i < a.numel(); ++i) {
    CAPTURE(i);
    CHECK(std::abs(a.at(i) - expected[static_cast<size_t>(i)]) <= tolerance);
  }
}

const float nan_f = std::numeric_limits<float>::quiet_NaN();

}  // namespace

TEST_CASE("standardize and minmax agree with scikit-learn, constant columns included") {
  const Dataset train = table(array({1, 10, 3, 2, 20, 3, 4, 60, 3, 9, 70, 3}, Shape{4, 3}));
  // StandardScaler().fit(X).transform([[3, 30, 4]]) and MinMaxScaler((-1, 1)), scikit-learn 1.9.1.
  const auto s = make("standardize");
  REQUIRE(s->needs_fit());
  REQUIRE(s->fit(train).is_ok());
  Columns c = one(array({3, 30, 4}, Shape{1, 3}));
  REQUIRE(s->apply(c, 0).is_ok());
  check_near(c.at("x"), {-0.3244428422615251, -0.3922322702763681, 1.0});
  const auto m = make("minmax", {{"low", -1.0}, {"high", int64_t{1}}});
  REQUIRE(m->fit(train).is_ok());
  c = one(array({3, 30, 4}, Shape{1, 3}));
  REQUIRE(m->apply(c, 0).is_ok());
  check_near(c.at("x"), {-0.5, -0.33333333333333326, 1.0});
  // A stored state makes an equal transform.
  const auto again = make("standardize");
  REQUIRE(again->load(s->state()).is_ok());
  c = one(array({3, 30, 4}, Shape{1, 3}));
  REQUIRE(again->apply(c, 0).is_ok());
  check_near(c.at("x"), {-0.3244428422615251, -0.3922322702763681, 1.0});
  c = one(array({3, 30}, Shape{1, 2}));
  CHECK_FAILS(s->apply(c, 0), "standardize", "'x'", "2 features", "3");
  CHECK_FAILS(make("standardize")->load({}), "stored state");
  Dataset bad = table(array({1, nan_f}, Shape{2, 1}));
  CHECK_FAILS(make("standardize")->fit(bad), "row 1", "NaN");
}

TEST_CASE("normalize_channels: given and fitted") {
  HostArray x(DType::u8, Shape{2, 2, 1, 2});
  for (int64_t i = 0; i < 8; ++i)
    x.set(i, static_cast<double>(i * 10));  // channel 0: 0 10 40 50, channel 1: 20 30 60 70
  const auto given =
      make("normalize_channels", {{"mean", std::vector<double>{10, 20}}, {"std", std::vector<double>{2, 5}}});
  CHECK_FALSE(given->needs_fit());
  Columns c = one(x);
  REQUIRE(given->apply(c, 0).is_ok());
  CHECK(c.at("x").dtype() == DType::f32);
  check_near(c.at("x"), {-5, 0, 0, 2, 15, 20, 8, 10});
  const auto fitted = make("normalize_channels");
  REQUIRE(fitted->fit(table(x)).is_ok());
  c = one(x);
  REQUIRE(fitted->apply(c, 0).is_ok());
  const double s = std::sqrt(425.0);  // of both channels
  check_near(c.at("x"), {-25 / s, -15 / s, -25 / s, -15 / s, 15 / s, 25 / s, 15 / s, 25 / s});
  CHECK_FAILS(make_transform("normalize_channels", {{"mean", std::vector<double>{1}}}), "mean and std");
  CHECK_FAILS(make_transform("normalize_channels", {{"mean", 1.0}, {"std", 0.0}}), "above 0");
}

TEST_CASE("scale, cast, reshape, one_hot, impute") {
  Columns c = one(HostArray::of<uint8_t>(std::vector<uint8_t>{0, 51, 255, 1}, Shape{2, 2}));
  REQUIRE(make("scale", {{"factor", 1.0 / 255}, {"offset", 1.0}})->apply(c, 0).is_ok());
  check_near(c.at("x"), {1, 1.2, 2, 1 + 1.0 / 255});
  CHECK(c.at("x").dtype() == DType::f32);

  REQUIRE(make("cast", {{"dtype", std::string("f64")}})->apply(c, 0).is_ok());
  CHECK(c.at("x").dtype() == DType::f64);
  REQUIRE(make("cast", {{"dtype", std::string("i64")}})->apply(c, 0).is_ok());
  check_near(c.at("x"), {1, 1, 2, 1});
  c = one(array({1, nan_f}, Shape{2}));
  CHECK_FAILS(make("cast", {{"dtype", std::string("i32")}})->apply(c, 0), "element 1", "i32");
  c = one(array({256}, Shape{1}));
  CHECK_FAILS(make("cast", {{"dtype", std::string("u8")}})->apply(c, 0), "element 0", "u8");

  c = one(HostArray(DType::f32, Shape{2, 12}));
  REQUIRE(make("reshape", {{"shape", std::vector<double>{1, -1, 4}}})->apply(c, 0).is_ok());
  CHECK(c.at("x").shape() == Shape{2, 1, 3, 4});
  REQUIRE(make("reshape")->apply(c, 0).is_ok());
  CHECK(c.at("x").shape() == Shape{2, 12});
  REQUIRE(make("reshape", {{"shape", std::vector<double>{}}, {"column", std::string("y")}}) != nullptr);
  CHECK_FAILS(make("reshape", {{"shape", std::vector<double>{5, -1}}})->apply(c, 0), "[12]", "[5, -1]");

  c = one(HostArray::of(std::vector<int32_t>{2, 0}), "y");
  REQUIRE(make("one_hot", {{"column", std::string("y")}, {"classes", int64_t{3}}, {"to", std::string("t")}})
              ->apply(c, 0)
              .is_ok());
  check_near(c.at("t"), {0, 0, 1, 1, 0, 0});
  CHECK(c.at("y").numel() == 2);
  CHECK_FAILS(make("one_hot", {{"column", std::string("y")}, {"classes", int64_t{2}}})->apply(c, 0), "row 0",
              "label 2");
  const auto learned = make("one_hot", {{"column", std::string("y")}});
  REQUIRE(learned->fit(table(c.at("y"), "y")).is_ok());
  REQUIRE(learned->apply(c, 0).is_ok());
  CHECK(c.at("y").shape() == Shape{2, 3});

  const Dataset holes = table(array({1, nan_f, 3, 10, nan_f, 40, 8, 30}, Shape{4, 2}));
  const auto median = make("impute"), mean = make("impute", {{"with", std::string("mean")}});
  REQUIRE(median->fit(holes).is_ok());
  REQUIRE(mean->fit(holes).is_ok());
  c = one(array({nan_f, nan_f, 5, 6}, Shape{2, 2}));
  REQUIRE(median->apply(c, 0).is_ok());
  check_near(c.at("x"), {3, 30, 5, 6});
  const auto stored = make("impute");
  REQUIRE(stored->load(mean->state()).is_ok());
  c = one(array({nan_f, nan_f, 5, 6}, Shape{2, 2}));
  REQUIRE(stored->apply(c, 0).is_ok());
  check_near(c.at("x"), {4, 80.0 / 3, 5, 6}, 1e-5);
  CHECK_FAILS(make("impute")->fit(table(array({nan_f}, Shape{1, 1}))), "feature 0", "no value");
}

TEST_CASE("flip mirrors whole images, about as often as asked") {
  HostArray x(DType::u8, Shape{400, 2, 2, 3});
  for (int64_t i = 0; i < x.numel(); ++i) x.set(i, static_cast<double>(i % 12));
  Columns c = one(x);
  const auto flip = make("flip");
  CHECK(flip->training_only());
  REQUIRE(flip->apply(c, 99).is_ok());
  int flipped = 0;
  for (int64_t n = 0; n < 400; ++n) {
    const bool here = c.at("x").at(n * 12) == 2;
    flipped += here;
    for (int64_t e = 0; e < 12; ++e)
      REQUIRE(c.at("x").at(n * 12 + e) == static_cast<double>(here ? e / 3 * 3 + 2 - e % 3 : e));
  }
  CHECK(std::abs(flipped - 200) < 50);
  Columns again = one(x), always = one(x);
  REQUIRE(flip->apply(again, 99).is_ok());
  CHECK(std::equal(c.at("x").data(), c.at("x").data() + x.size_bytes(), again.at("x").data()));
  REQUIRE(make("flip", {{"probability", 1.0}})->apply(always, 1).is_ok());
  CHECK(always.at("x").at(0) == 2);
  Columns flat = one(HostArray(DType::f32, Shape{2, 3}));
  CHECK_FAILS(flip->apply(flat, 0), "flip", "[2, 3]");
  CHECK_FAILS(make_transform("flip", {{"probability", 1.5}}), "probability");
}

TEST_CASE("crop shifts by at most the padding and fills with zeros") {
  HostArray x(DType::f32, Shape{600, 1, 4, 5});
  for (int64_t i = 0; i < x.numel(); ++i) x.set(i, static_cast<double>(1 + i % 20));
  Columns c = one(x);
  REQUIRE(make("crop", {{"padding", int64_t{1}}})->apply(c, 7).is_ok());
  std::set<std::pair<int64_t, int64_t>> shifts;
  for (int64_t n = 0; n < 600; ++n) {
    // An inner pixel says the shift; then every pixel must agree with it.
    const auto v = static_cast<int64_t>(c.at("x").at(n * 20 + 1 * 5 + 1)) - 1;
    const int64_t dy = v / 5 - 1, dx = v % 5 - 1;
    shifts.insert({dy, dx});
    for (int64_t r = 0; r < 4; ++r)
      for (int64_t k = 0; k < 5; ++k) {
        const bool inside = r + dy >= 0 && r + dy < 4 && k + dx >= 0 && k + dx < 5;
        REQUIRE(c.at("x").at(n * 20 + r * 5 + k) ==
                (inside ? static_cast<double>(1 + (r + dy) * 5 + k + dx) : 0.0));
      }
  }
  CHECK(shifts.size() == 9);
  // Padding larger than the image may leave nothing of it.
  Columns far = one(HostArray(DType::f32, Shape{50, 2, 2}));
  REQUIRE(make("crop", {{"padding", int64_t{10}}})->apply(far, 1).is_ok());
  CHECK_FAILS(make_transform("crop", {{"padding", int64_t{0}}}), "padding");
}

TEST_CASE("center_crop takes the middle, resize interpolates between pixel centres") {
  HostArray x(DType::u8, Shape{2, 1, 4, 5});
  for (int64_t i = 0; i < x.numel(); ++i) x.set(i, static_cast<double>(i));
  Columns c = one(x);
  REQUIRE(make("center_crop", {{"size", int64_t{2}}})->apply(c, 0).is_ok());
  CHECK(c.at("x").dtype() == DType::u8);
  CHECK(c.at("x").shape() == Shape{2, 1, 2, 2});
  check_near(c.at("x"), {6, 7, 11, 12, 26, 27, 31, 32});
  CHECK_FAILS(make("center_crop", {{"size", int64_t{5}}})->apply(c, 0), "2 x 2", "size 5");

  // As torch.nn.functional.interpolate(mode="bilinear", align_corners=False).
  Columns up = one(array({0, 1, 2, 3}, Shape{1, 2, 2}));
  REQUIRE(make("resize", {{"size", int64_t{3}}})->apply(up, 0).is_ok());
  check_near(up.at("x"), {0, 0.5, 1, 1, 1.5, 2, 2, 2.5, 3});
  HostArray line(DType::u8, Shape{1, 5, 5});
  for (int64_t i = 0; i < 25; ++i) line.set(i, static_cast<double>(10 * (i % 5)));
  Columns down = one(line);
  REQUIRE(make("resize", {{"size", int64_t{4}}})->apply(down, 0).is_ok());
  check_near(down.at("x"), {1.25, 13.75, 26.25, 38.75, 1.25, 13.75, 26.25, 38.75, 1.25, 13.75, 26.25, 38.75, 1.25, 13.75, 26.25, 38.75}, 1e-5);
  Columns flat = one(array({1, 2}, Shape{1, 2}));
  for (const char* id : {"center_crop", "resize"}) {
    CHECK_FAILS(make(id, {{"size", int64_t{1}}})->apply(flat, 0), "images");
    CHECK_FAILS(make_transform(id, {}), "size");
  }
}

TEST_CASE("label_noise gives some training samples a random class, the same one every time") {
  const int64_t n = 20000;
  HostArray y(DType::i32, Shape{n}), id(DType::i64, Shape{n});
  for (int64_t i = 0; i < n; ++i) y.set(i, 4), id.set(i, static_cast<double>(i));
  Columns c = one(y, "y");
  c.emplace("id", id);
  const auto t = make("label_noise", {{"rate", 0.3}, {"classes", int64_t{5}}, {"seed", int64_t{2}}});
  CHECK(t->training_only());
  REQUIRE(t->apply(c, 1).is_ok());
  std::vector<int64_t> counts(5);
  for (int64_t i = 0; i < n; ++i) ++counts[static_cast<size_t>(c.at("y").at(i))];
  for (size_t k = 0; k < 4; ++k) CHECK(std::abs(static_cast<double>(counts[k]) - 0.06 * n) < 200);
  CHECK(std::abs(static_cast<double>(counts[4]) - 0.76 * n) < 400);
  // In another batch and with another key.
  Columns batch = one(HostArray::of(std::vector<int32_t>{4, 4, 4}), "y");
  batch.emplace("id", HostArray::of(std::vector<int64_t>{700, 3, 19}));
  REQUIRE(t->apply(batch, 9).is_ok());
  int64_t at = 0;
  for (int64_t row : {700, 3, 19}) CHECK(batch.at("y").at(at++) == c.at("y").at(row));
  CHECK_FAILS(make_transform("label_noise", {{"rate", 0.1}}), "classes");
  CHECK_FAILS(make_transform("label_noise", {{"rate", 1.1}, {"classes", int64_t{5}}}), "rate");
  Columns alone = one(HostArray::of(std::vector<int32_t>{4}), "y");
  CHECK_FAILS(t->apply(alone, 0), "'id'");
}

TEST_CASE("a list is fitted in order on changed data, and the data stay as they were") {
  const Dataset train = table(HostArray::of<uint8_t>(std::vector<uint8_t>{0, 10, 20, 30}, Shape{4, 1}));
  const std::vector<std::shared_ptr<Transform>> list = {make("scale", {{"factor", 0.1}}), make("crop"),
                                                        make("standardize"), make("reshape")};
  REQUIRE(fit_all(list, train).is_ok());
  CHECK((*train.column("x"))->dtype() == DType::u8);
  Columns c = one(array({15}, Shape{1, 1}));
  REQUIRE(apply_all({list.begin(), list.end()}, c, 0, false).is_ok());
  check_near(c.at("x"), {0});
  check_near(list[2]->state().at("shift"), {1.5});
  CHECK_FAILS(apply_all({list.begin(), list.end()}, c, 0, true), "crop");
}

TEST_CASE("a linear teacher gives targets that are linear in x, and the same for the same seed") {
  const auto t = make("linear_teacher", {{"seed", int64_t{3}}});
  Columns c = one(array({1, 0, 0, 1, 2, -3}, Shape{3, 2}));
  REQUIRE(t->apply(c, 0).is_ok());
  const HostArray& y = c.at("y");
  REQUIRE(y.shape() == Shape{3});
  CHECK(y.at(0) != y.at(1));
  CHECK(std::abs(y.at(2) - (2 * y.at(0) - 3 * y.at(1))) < 1e-6);
  Columns again = one(array({1, 0}, Shape{1, 2})), other = again;
  REQUIRE(t->apply(again, 9).is_ok());
  CHECK(again.at("y").at(0) == y.at(0));
  REQUIRE(make("linear_teacher", {{"seed", int64_t{4}}})->apply(other, 0).is_ok());
  CHECK(other.at("y").at(0) != y.at(0));
  Columns images = one(array({1, 2, 3, 4}, Shape{1, 2, 2}));
  CHECK_FAILS(t->apply(images, 0), "linear_teacher", "[1, 2, 2]");
}

TEST_CASE("transforms: bad requests") {
  CHECK_FAILS(make_transform("standardise", {}), "did you mean 'standardize'");
  for (const TransformInfo& info : transforms()) {
    CAPTURE(info.id);
    CHECK_FAILS(make_transform(info.id, {{"no such", true}}), info.id, "unknown option 'no such'");
    Options options = {{"column", std::string("xx")}};  // and what has no default
    if (info.id == "center_crop" || info.id == "resize") options["size"] = int64_t{2};
    if (info.id == "label_noise") options["classes"] = int64_t{2};
    const auto t = make(info.id, options);
    Columns c = one(HostArray(DType::f32, Shape{1, 2}));
    CHECK_FAILS(t->apply(c, 0), info.id, "'xx'", "did you mean 'x'");
    if (t->needs_fit()) CHECK_FAILS(t->fit(table(HostArray(DType::f32, Shape{1, 2}))), "'xx'");
  }
  CHECK_FAILS(make_transform("minmax", {{"low", 2.0}}), "low");
  CHECK_FAILS(make_transform("scale", {{"factor", std::string("half")}}), "factor", "a number");
  CHECK_FAILS(make_transform("reshape", {{"shape", std::vector<double>{-1, -1}}}), "-1");
  CHECK_FAILS(make_transform("cast", {{"dtype", std::string("f16")}}), "f16", "f32");
  CHECK_FAILS(make_transform("impute", {{"with", std::string("zero")}}), "median");
}

TEST_CASE("label_noise changes the same rows whatever batch they are in, and says which") {
  const int64_t n = 20000, k = 5;
  std::vector<int64_t> labels, ids;
  for (int64_t i = 0; i < n; ++i) labels.push_back(i % k), ids.push_back(i);
  const auto noisy = [&](const Options& more, int64_t first, int64_t count) {
    Options options{{"classes", k}, {"seed", int64_t{3}}, {"mark", std::string("wrong")}};
    for (const auto& [name, value] : more) options[name] = value;
    Columns c;
    c.emplace("y", HostArray::of(std::vector<int64_t>(labels.begin() + first, labels.begin() + first + count)));
    c.emplace("id", HostArray::of(std::vector<int64_t>(ids.begin() + first, ids.begin() + first + count)));
    REQUIRE(make("label_noise", options)->apply(c, 7).is_ok());
    return c;
  };
  for (const auto& [kind, expected] : {std::pair<std::string, double>("uniform", 0.6 * 4 / 5), std::pair<std::string, double>("next", 0.6)}) {
    CAPTURE(kind);
    const Columns all = noisy({{"kind", kind}, {"rate", 0.6}}, 0, n);
    double wrong = 0;
    for (int64_t i = 0; i < n; ++i) {
      const bool differs = all.at("y").at(i) != static_cast<double>(labels[static_cast<size_t>(i)]);
      CHECK(all.at("wrong").at(i) == (differs ? 1 : 0));
      if (differs && kind == "next") CHECK(all.at("y").at(i) == static_cast<double>((labels[static_cast<size_t>(i)] + 1) % k));
      wrong += differs;
    }
    CHECK(std::abs(wrong / static_cast<double>(n) - expected) < 0.02);
    const Columns part = noisy({{"kind", kind}, {"rate", 0.6}}, 500, 64);
    for (int64_t i = 0; i < 64; ++i) CHECK(part.at("y").at(i) == all.at("y").at(500 + i));
  }
  const Columns none = noisy({{"rate", 0.0}}, 0, 100);
  for (int64_t i = 0; i < 100; ++i) CHECK(none.at("wrong").at(i) == 0);
  CHECK_FAILS(make_transform("label_noise", {{"kind", std::string("other")}, {"classes", k}}), "'other'");
}
