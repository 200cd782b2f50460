#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <set>
#include <thread>

#include "core/base/random.h"
#include "core/data/batcher.h"
#include "core/data/split.h"
#include "tests/data/temp_files.h"

using namespace tenon;

namespace {

std::shared_ptr<Dataset> numbered(int64_t n) {
  auto d = std::make_shared<Dataset>(n);
  std::vector<float> x;
  std::vector<int32_t> y;
  for (int64_t i = 0; i < n; ++i) {
    x.insert(x.end(), {static_cast<float>(i), static_cast<float>(10 * i)});
    y.push_back(static_cast<int32_t>(i % 4 == 0));
  }
  REQUIRE(d->add("x", HostArray::of<float>(x, Shape{n, 2})).is_ok());
  REQUIRE(d->add("y", HostArray::of(y)).is_ok());
  d->add_ids();
  return d;
}

std::vector<int64_t> ids(const Columns& batch) {
  const auto v = batch.at("id").as<int64_t>();
  return {v.begin(), v.end()};
}

bool same(const Columns& a, const Columns& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const auto& p, const auto& q) {
    return p.first == q.first && p.second.dtype() == q.second.dtype() &&
           p.second.shape() == q.second.shape() &&
           std::memcmp(p.second.data(), q.second.data(), p.second.size_bytes()) == 0;
  });
}

}  // namespace

TEST_CASE("dataset: columns share their leading dimension") {
  Dataset d;
  CHECK(d.add("x", HostArray(DType::f32, Shape{3, 2})).is_ok());
  CHECK(d.size() == 3);
  CHECK_FAILS(d.add("y", HostArray(DType::i32, Shape{4})), "'y'", "4", "3");
  CHECK_FAILS(d.add("s", HostArray(DType::i32, Shape{})), "'s'", "scalar");
  CHECK_FAILS(d.column("z"), "'z'", "x");
  Dataset other(2);
  CHECK(other.add("x", HostArray(DType::f64, Shape{2, 2})).is_ok());
  CHECK_FAILS(d.append(other), "'x'", "f64");
}

TEST_CASE("labels and features are checked, with row, column and value") {
  CHECK(check_labels(HostArray::of(std::vector<int32_t>{0, 2, 1}), 3).is_ok());
  CHECK_FAILS(check_labels(HostArray::of(std::vector<int32_t>{0, 3, 1}), 3), "row 1", "label 3", "0..2");
  CHECK_FAILS(check_labels(HostArray::of(std::vector<int32_t>{-1}), 3), "row 0", "label -1");
  CHECK_FAILS(check_labels(HostArray::of(std::vector<float>{1, 0.5}), 3, "t"), "'t'", "row 1", "0.5");
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const HostArray x = HostArray::of<float>(std::vector<float>{1, 2, 3, 4, 5, nan}, Shape{2, 3});
  const std::vector<std::string> names = {"a", "b", "c"};
  CHECK_FAILS(check_finite(x, "x", names), "row 1", "feature 2", "'c'", "NaN");
  CHECK_FAILS(check_finite(HostArray::of(std::vector<float>{1, -std::numeric_limits<float>::infinity()})),
              "row 1", "infinite");
  CHECK(check_finite(HostArray::of(std::vector<int32_t>{1})).is_ok());
}

TEST_CASE("splits: disjoint, complete, repeatable") {
  const auto d = numbered(100);
  for (const char* how : {"random", "stratified", "first", "last"}) {
    CAPTURE(how);
    const SplitOptions o{.how = how, .fraction = 0.25, .seed = 3};
    REQUIRE_GOOD(const SplitRows a, split_rows(*d, o));
    REQUIRE_GOOD(const SplitRows b, split_rows(*d, o));
    CHECK(a.held.size() == 25);
    CHECK(a.held == b.held);
    std::vector<int64_t> all = a.rest;
    all.insert(all.end(), a.held.begin(), a.held.end());
    std::sort(all.begin(), all.end());
    CHECK(all == ids(d->columns()));
  }
  REQUIRE_GOOD(const SplitRows first, split_rows(*d, {.how = "first", .count = 2}));
  CHECK(first.held == std::vector<int64_t>{0, 1});
  REQUIRE_GOOD(const SplitRows last, split_rows(*d, {.how = "last", .count = 2}));
  CHECK(last.held == std::vector<int64_t>{98, 99});
  REQUIRE_GOOD(const SplitRows one, split_rows(*d, {.fraction = 0.25, .seed = 1}));
  REQUIRE_GOOD(const SplitRows two, split_rows(*d, {.fraction = 0.25, .seed = 2}));
  CHECK(one.held != two.held);
  REQUIRE_GOOD(const SplitRows strata, split_rows(*d, {.how = "stratified", .count = 40, .seed = 1}));
  int64_t positives = 0;
  for (int64_t r : strata.held) positives += r % 4 == 0;
  CHECK(positives == 10);
  REQUIRE_GOOD(const SplitData parts, split(*d, {.how = "last", .count = 10}));
  CHECK(parts.rest.size() == 90);
  CHECK((*parts.held.column("x"))->at(1) == 900);
  CHECK(ids(parts.held.columns())[0] == 90);
}

TEST_CASE("splits: folds hold out every row once, and of each class in turn") {
  const auto d = numbered(43);  // row i is of class 1 when 4 divides i
  std::vector<int64_t> all;
  for (const char* how : {"fold 1 of 5", "fold 2 of 5", "fold 3 of 5", "fold 4 of 5", "fold 5 of 5"}) {
    REQUIRE_GOOD(const SplitRows a, split_rows(*d, {.how = how}));
    all.insert(all.end(), a.held.begin(), a.held.end());
    CHECK(a.rest.size() + a.held.size() == 43);
  }
  std::sort(all.begin(), all.end());
  CHECK(all == ids(d->columns()));
  REQUIRE_GOOD(const SplitRows second, split_rows(*d, {.how = "fold 2 of 5"}));
  // Class 1 has the rows 0, 4, 8, ..: its number 1 and 6; the rest 1, 2, 3, 5, ..: number 1, 6, 11, ..
  CHECK(second.held == std::vector<int64_t>{2, 4, 9, 15, 22, 24, 29, 35, 42});
}

TEST_CASE("splits: bad requests") {
  const auto d = numbered(10);
  CHECK_FAILS(split_rows(*d, {.how = "fold 1 of 5", .count = 2}), "neither");
  CHECK_FAILS(split_rows(*d, {.how = "fold 6 of 5", .count = 2}), "fold 6 of 5");
  CHECK_FAILS(split_rows(*d, {.how = "fold 20 of 30"}), "empty");
  CHECK_FAILS(split_rows(*d, {.how = "fold 1 of 5", .label = "z"}), "'z'");
  CHECK_FAILS(split_rows(*d, {}), "either");
  CHECK_FAILS(split_rows(*d, {.fraction = 0.5, .count = 2}), "either");
  CHECK_FAILS(split_rows(*d, {.fraction = 1.5}), "between 0 and 1");
  CHECK_FAILS(split_rows(*d, {.fraction = 0.01}), "empty");
  CHECK_FAILS(split_rows(*d, {.count = 10}), "empty");
  CHECK_FAILS(split_rows(*d, {.count = -1}), "empty");
  CHECK_FAILS(split_rows(*d, {.how = "randon", .count = 1}), "did you mean 'random'");
  CHECK_FAILS(split_rows(*d, {.how = "stratified", .count = 1, .label = "x"}), "integer labels");
  CHECK_FAILS(split_rows(*d, {.how = "stratified", .count = 1, .label = "z"}), "'z'");
  CHECK_FAILS(split_rows(Dataset(), {.count = 1}), "empty");
}

TEST_CASE("k folds hold out every row once") {
  const auto d = numbered(23);
  std::vector<int64_t> seen;
  for (int64_t f = 0; f < 5; ++f) {
    REQUIRE_GOOD(const SplitRows r, k_fold(*d, 5, f, 9));
    CHECK((r.held.size() == 4 || r.held.size() == 5));
    CHECK(r.rest.size() + r.held.size() == 23);
    seen.insert(seen.end(), r.held.begin(), r.held.end());
  }
  std::sort(seen.begin(), seen.end());
  CHECK(seen == ids(d->columns()));
  CHECK_FAILS(k_fold(*d, 1, 0, 0), "2..23");
  CHECK_FAILS(k_fold(*d, 5, 5, 0), "0..4");
}

TEST_CASE("row batches: each epoch once through, its own order, rows stay together") {
  const auto d = numbered(10);
  REQUIRE_GOOD(const auto b, make_row_batcher(d, {.batch_size = 4, .seed = 5}));
  CHECK(b->steps_per_epoch() == 3);
  std::vector<std::vector<int64_t>> orders;
  for (int64_t epoch = 0; epoch < 3; ++epoch) {
    std::vector<int64_t> order;
    for (int64_t s = 0; s < 3; ++s) {
      REQUIRE_GOOD(const Columns batch, b->make(3 * epoch + s));
      CHECK(b->batch_rows(3 * epoch + s) == (s < 2 ? 4 : 2));
      CHECK(b->epoch_of(3 * epoch + s) == epoch);
      const auto rows = ids(batch);
      CHECK(static_cast<int64_t>(rows.size()) == b->batch_rows(s));
      for (size_t i = 0; i < rows.size(); ++i) {
        CHECK(batch.at("x").at(static_cast<int64_t>(2 * i + 1)) == static_cast<double>(10 * rows[i]));
        CHECK(batch.at("y").at(static_cast<int64_t>(i)) == (rows[i] % 4 == 0));
      }
      order.insert(order.end(), rows.begin(), rows.end());
    }
    orders.push_back(order);
    std::sort(order.begin(), order.end());
    CHECK(order == ids(d->columns()));
  }
  CHECK(orders[0] != orders[1]);
  CHECK(orders[1] != orders[2]);
  REQUIRE_GOOD(const auto dropping, make_row_batcher(d, {.batch_size = 4, .drop_last = true}));
  CHECK(dropping->steps_per_epoch() == 2);
  CHECK(dropping->batch_rows(1) == 4);
  REQUIRE_GOOD(const auto ordered, make_row_batcher(d, {.batch_size = 4, .shuffle = false}));
  REQUIRE_GOOD(const Columns third, ordered->make(2));
  CHECK(ids(third) == std::vector<int64_t>{8, 9});
}

TEST_CASE("a batch is a pure function of seed and step: any order, any thread, a new batcher") {
  const auto d = numbered(50);
  const RowBatcherOptions o{.batch_size = 7, .seed = 42};
  REQUIRE_GOOD(const auto a, make_row_batcher(d, o));
  std::vector<Columns> forward;
  for (int64_t s = 0; s < 20; ++s) {
    REQUIRE_GOOD(Columns batch, a->make(s));
    forward.push_back(std::move(batch));
  }
  REQUIRE_GOOD(const auto b, make_row_batcher(d, o));  // as after a resume
  for (int64_t s = 19; s >= 0; s -= 3) {
    REQUIRE_GOOD(const Columns batch, b->make(s));
    CHECK(same(batch, forward[static_cast<size_t>(s)]));
  }
  std::array<int, 2> right{};
  std::vector<std::thread> threads;
  for (size_t t = 0; t < 2; ++t)
    threads.emplace_back([&, t] {
      for (size_t s = 0; s < 20; ++s) {
        const auto batch = b->make(static_cast<int64_t>(t ? 19 - s : s));
        right[t] += batch && same(*batch, forward[t ? 19 - s : s]);
      }
    });
  for (auto& t : threads) t.join();
  CHECK(right == std::array<int, 2>{20, 20});
  REQUIRE_GOOD(const auto c, make_row_batcher(d, {.batch_size = 7, .seed = 43}));
  REQUIRE_GOOD(const Columns other, c->make(0));
  CHECK_FALSE(same(other, forward[0]));
}

TEST_CASE("transforms run on batches, augmentation by step, only in training") {
  auto d = std::make_shared<Dataset>();
  HostArray x(DType::u8, Shape{8, 1, 4, 4});
  for (int64_t i = 0; i < x.numel(); ++i) x.set(i, static_cast<double>(i % 251));
  REQUIRE(d->add("x", std::move(x)).is_ok());
  REQUIRE_GOOD(std::shared_ptr<const Transform> crop, make_transform("crop", {{"padding", int64_t{2}}}));
  REQUIRE_GOOD(std::shared_ptr<const Transform> scale, make_transform("scale", {{"factor", 0.5}}));
  REQUIRE_GOOD(const auto b,
               make_row_batcher(d, {.batch_size = 8, .shuffle = false, .transforms = {crop, scale}}));
  REQUIRE_GOOD(const Columns first, b->make(0));
  REQUIRE_GOOD(const Columns again, b->make(0));
  REQUIRE_GOOD(const Columns second, b->make(1));
  CHECK(same(first, again));
  CHECK_FALSE(same(first, second));
  CHECK(first.at("x").dtype() == DType::f32);
  CHECK(ids(first).size() == 8);
  REQUIRE_GOOD(const auto eval,
               make_row_batcher(
                   d, {.batch_size = 8, .shuffle = false, .transforms = {crop, scale}, .training = false}));
  REQUIRE_GOOD(const Columns plain, eval->make(0));
  CHECK(plain.at("x").at(17) == 8.5);
}

TEST_CASE("batchers: bad requests") {
  const auto d = numbered(10);
  CHECK_FAILS(make_row_batcher(d, {.batch_size = 0}), "batch_size");
  CHECK_FAILS(make_row_batcher(d, {.batch_size = 11, .drop_last = true}), "drop_last");
  CHECK_FAILS(make_row_batcher(std::make_shared<Dataset>(), {}), "no samples");
  REQUIRE_GOOD(const auto b, make_row_batcher(d, {}));
  CHECK_FAILS(b->make(-1), "-1");
  CHECK_FAILS(make_window_batcher(d, {}), "'tokens'");
  CHECK_FAILS(make_window_batcher(d, {.column = "x"}), "integer tokens", "[10, 2]");
  CHECK_FAILS(make_window_batcher(d, {.context = 10, .column = "y"}), "10 tokens", "context");
  CHECK_FAILS(make_window_batcher(d, {.batch_size = 0, .context = 2, .column = "y"}), "batch_size");
  CHECK_FAILS(make_window_batcher(d, {.context = 0, .column = "y"}), "context");
}

TEST_CASE("windows: y is x one token on; random ones vary, the others cover the stream once") {
  auto d = std::make_shared<Dataset>();
  std::vector<int32_t> tokens(103);
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i);
  REQUIRE(d->add("tokens", HostArray::of(tokens)).is_ok());
  REQUIRE_GOOD(const auto b, make_window_batcher(d, {.batch_size = 6, .context = 8, .seed = 1}));
  CHECK(b->steps_per_epoch() == 2);
  std::set<int64_t> starts;
  for (int64_t s = 0; s < 200; ++s) {
    REQUIRE_GOOD(const Columns batch, b->make(s));
    REQUIRE(batch.at("x").shape() == Shape{6, 8});
    for (int64_t r = 0; r < 6; ++r) {
      const int64_t start = ids(batch)[static_cast<size_t>(r)];
      starts.insert(start);
      for (int64_t t = 0; t < 8; ++t) {
        REQUIRE(batch.at("x").at(r * 8 + t) == static_cast<double>(start + t));
        REQUIRE(batch.at("y").at(r * 8 + t) == static_cast<double>(start + t + 1));
      }
    }
  }
  CHECK(starts.size() == 95);  // every place from 0 to 94 occurs in 1200 draws
  CHECK(*starts.rbegin() == 94);
  REQUIRE_GOOD(const Columns a, b->make(7));
  REQUIRE_GOOD(const auto b2, make_window_batcher(d, {.batch_size = 6, .context = 8, .seed = 1}));
  REQUIRE_GOOD(const Columns a2, b2->make(7));
  CHECK(same(a, a2));

  REQUIRE_GOOD(const auto eval, make_window_batcher(d, {.batch_size = 5, .context = 8, .random = false}));
  CHECK(eval->steps_per_epoch() == 3);  // 12 windows of 8 in 102 predictable tokens
  std::vector<int64_t> places;
  for (int64_t s = 0; s < 3; ++s) {
    REQUIRE_GOOD(const Columns batch, eval->make(s));
    const auto here = ids(batch);
    CHECK(static_cast<int64_t>(here.size()) == eval->batch_rows(s));
    places.insert(places.end(), here.begin(), here.end());
  }
  CHECK(places == std::vector<int64_t>{0, 8, 16, 24, 32, 40, 48, 56, 64, 72, 80, 88});
  REQUIRE_GOOD(const auto few,
               make_window_batcher(d, {.batch_size = 5, .context = 8, .random = false, .max_windows = 3}));
  REQUIRE_GOOD(const Columns spread, few->make(0));
  CHECK(ids(spread) == std::vector<int64_t>{0, 32, 64});
}

TEST_CASE("windows lie within one file, and are drawn from the places that are named") {
  auto d = std::make_shared<Dataset>();
  std::vector<int32_t> tokens(100), file(100);
  for (size_t i = 0; i < tokens.size(); ++i) {
    tokens[i] = static_cast<int32_t>(i);
    file[i] = i < 60 ? 0 : 1;
  }
  REQUIRE(d->add("tokens", HostArray::of(tokens)).is_ok());
  REQUIRE(d->add("file", HostArray::of(file)).is_ok());
  const auto starts = [&](WindowBatcherOptions o) {
    o.batch_size = 50;
    o.context = 8;
    REQUIRE_GOOD(const auto b, make_window_batcher(d, o));
    std::multiset<int64_t> out;
    for (int64_t s = 0; s < 20; ++s) {
      REQUIRE_GOOD(const Columns batch, b->make(s));
      for (const int64_t i : ids(batch)) out.insert(i);
    }
    return out;
  };
  const auto between = [](const std::multiset<int64_t>& s, int64_t low, int64_t high) {
    return std::distance(s.lower_bound(low), s.upper_bound(high));
  };
  // A window takes 9 tokens: it begins at 0 .. 51 or 60 .. 91.
  const auto all = starts({});
  CHECK(between(all, 0, 51) + between(all, 60, 91) == 1000);
  CHECK(std::set(all.begin(), all.end()).size() == 84);
  // 0.7 from the first 12 tokens of the second file, the rest from both files alike.
  const auto drawn = starts({.draws = {{.weight = 0.7, .file = 1, .first = 12}, {.weight = 0.3}}});
  CHECK(between(drawn, 0, 51) + between(drawn, 60, 91) == 1000);
  CHECK(std::abs(static_cast<double>(between(drawn, 0, 51)) - 150) < 50);
  CHECK(std::abs(static_cast<double>(between(drawn, 60, 63)) - 719) < 60);

  // Each file gives as many of the windows side by side.
  REQUIRE_GOOD(const auto eval, make_window_batcher(d, {.batch_size = 8, .context = 8, .random = false, .max_windows = 6}));
  REQUIRE_GOOD(const Columns batch, eval->make(0));
  CHECK(ids(batch) == std::vector<int64_t>{0, 16, 32, 60, 68, 76});

  REQUIRE_GOOD(const SplitRows rows, split_rows(*d, {.how = "last", .fraction = 0.1}));
  CHECK(rows.held == std::vector<int64_t>{54, 55, 56, 57, 58, 59, 96, 97, 98, 99});

  CHECK_FAILS(make_window_batcher(d, {.context = 40}), "40 tokens", "context");
  CHECK_FAILS(make_window_batcher(d, {.context = 8, .draws = {{.file = 2}}}), "file number 2", "2");
  CHECK_FAILS(make_window_batcher(d, {.context = 8, .draws = {{.first = 8}}}), "first 8 tokens", "takes 9");
  CHECK_FAILS(make_window_batcher(d, {.context = 8, .draws = {{.weight = 0}}}), "weight");
  CHECK_FAILS(make_window_batcher(d, {.context = 8, .random = false, .draws = {{}}}), "random windows");
}

TEST_CASE("windows for n-grams hold the tokens before each target") {
  auto d = std::make_shared<Dataset>();
  std::vector<int32_t> tokens(30);
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i);
  REQUIRE(d->add("tokens", HostArray::of(tokens)).is_ok());
  REQUIRE_GOOD(const auto b, make_window_batcher(d, {.batch_size = 2, .context = 5, .ngram = 3, .random = false}));
  CHECK(b->steps_per_epoch() == 3);  // 5 windows in 27 predictable tokens
  REQUIRE_GOOD(const Columns batch, b->make(1));
  const HostArray &x = batch.at("x"), &y = batch.at("y");
  REQUIRE(x.shape() == Shape{2, 5, 3});
  REQUIRE(y.shape() == Shape{2, 5});
  for (int64_t i = 0; i < 10; ++i) {
    CHECK(y.at(i) == static_cast<double>(10 + i + 3));
    for (int64_t k = 0; k < 3; ++k) CHECK(x.at(i * 3 + k) == static_cast<double>(10 + i + k));
  }
  CHECK_FAILS(make_window_batcher(d, {.context = 28, .ngram = 3}), "30 tokens");
  CHECK_FAILS(make_window_batcher(d, {.context = 5, .ngram = -1}), "ngram");
}

TEST_CASE("rows with replacement: every batch is whole, drawn anew, and repeats rows") {
  const auto d = numbered(10);
  REQUIRE_GOOD(const auto b, make_row_batcher(d, {.batch_size = 8, .replacement = true, .seed = 4}));
  std::multiset<int64_t> seen;
  for (int64_t s = 0; s < 100; ++s) {
    REQUIRE_GOOD(const Columns batch, b->make(s));
    const auto here = ids(batch);
    CHECK(here.size() == 8);
    seen.insert(here.begin(), here.end());
  }
  for (int64_t i = 0; i < 10; ++i) CHECK(std::abs(static_cast<double>(seen.count(i)) - 80) < 40);
  REQUIRE_GOOD(const Columns first, b->make(3));
  REQUIRE_GOOD(const Columns again, b->make(3));
  CHECK(same(first, again));
  CHECK_FAILS(make_row_batcher(d, {.batch_size = 4, .per_class = 2, .replacement = true}), "per_class and replacement");
}
