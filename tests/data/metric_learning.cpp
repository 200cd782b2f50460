// What metric learning asks of the data: batches of so many rows a class, and Recall@k.
#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <map>
#include <set>

#include "core/data/batcher.h"
#include "core/train/metrics.h"

using namespace tenon;
using Catch::Matchers::ContainsSubstring;

namespace {

// Class c has c + 1 rows.
std::shared_ptr<Dataset> classes(int64_t n) {
  std::vector<int32_t> y;
  for (int64_t c = 0; c < n; ++c) y.insert(y.end(), static_cast<size_t>(c + 1), static_cast<int32_t>(c));
  auto d = std::make_shared<Dataset>(static_cast<int64_t>(y.size()));
  REQUIRE(d->add("y", HostArray::of(y)).is_ok());
  d->add_ids();
  return d;
}

std::vector<int64_t> ids(const Columns& batch) {
  const auto v = batch.at("id").as<int64_t>();
  return {v.begin(), v.end()};
}

double recall(const std::vector<float>& x, const std::vector<int32_t>& y, int64_t k) {
  const auto m = make_metric("recall_at_k", {{"k", k}}).value();
  const HostArray outputs = HostArray::of<float>(x, Shape{static_cast<int64_t>(y.size()), 2}), labels = HostArray::of(y);
  REQUIRE(m->update({{"outputs", &outputs}, {"labels", &labels}}, 0).is_ok());
  return m->value().value();
}

}  // namespace

TEST_CASE("balanced batches hold so many rows of each of their classes") {
  const auto data = classes(9);
  const auto batcher = make_row_batcher(data, {.batch_size = 12, .per_class = 3, .seed = 3}).value();
  CHECK(batcher->steps_per_epoch() == 45 / 12);
  std::set<int64_t> seen;
  for (int64_t step = 0; step < 40; ++step) {
    const Columns batch = batcher->make(step).value();
    CHECK(batcher->batch_rows(step) == 12);
    std::map<int32_t, std::set<int64_t>> rows;
    const auto y = batch.at("y").as<int32_t>();
    const std::vector<int64_t> id = ids(batch);
    REQUIRE(y.size() == 12);
    for (size_t i = 0; i < 12; ++i) {
      CHECK(y[i] == y[i / 3 * 3]);
      rows[y[i]].insert(id[i]);
      seen.insert(id[i]);
    }
    CHECK(rows.size() == 4);
    for (const auto& [label, distinct] : rows)
      if (label >= 2) CHECK(distinct.size() == 3);  // no row twice where there are enough
    CHECK(ids(batcher->make(step).value()) == id);
    CHECK(ids(batcher->make(step + 1).value()) != id);
  }
  CHECK(seen.size() == 45);
}

TEST_CASE("balanced batches that can't be drawn are refused") {
  const auto why = [](RowBatcherOptions o) { return make_row_batcher(classes(5), std::move(o)).status().message(); };
  CHECK_THAT(why({.batch_size = 10, .per_class = 3}), ContainsSubstring("not a multiple"));
  CHECK_THAT(why({.batch_size = 12, .per_class = 2}), ContainsSubstring("asks for 6 classes; there are 5"));
  CHECK_THAT(why({.batch_size = 4, .per_class = -2}), ContainsSubstring("at least 1"));
  auto real = std::make_shared<Dataset>(2);
  REQUIRE(real->add("y", HostArray::of(std::vector<float>{1, 2})).is_ok());
  CHECK_THAT(make_row_batcher(real, {.batch_size = 2, .per_class = 1}).status().message(), ContainsSubstring("integer column 'y'"));
}

TEST_CASE("recall at k looks at the nearest others, by angle") {
  // Directions 0, 10, 25 and 90 degrees, of different length.
  const std::vector<float> x = {1, 0, 9.848f, 1.736f, 0.0906f, 0.0423f, 0, 3};
  CHECK(recall(x, {0, 0, 1, 1}, 1) == 0.75);  // the nearest others: 1, 0, 1, 2
  CHECK(recall(x, {0, 1, 1, 0}, 1) == 0.25);
  CHECK(recall(x, {0, 1, 1, 0}, 2) == 0.5);
  CHECK(recall(x, {0, 1, 1, 0}, 3) == 1);
  CHECK(recall(x, {0, 1, 2, 3}, 3) == 0);  // none has another of its label
  const auto m = make_metric("recall_at_k").value();
  CHECK_THAT(m->value().status().message(), ContainsSubstring("no samples"));
  const HostArray scores = HostArray::of(std::vector<float>{1, 2}), labels = HostArray::of(std::vector<int32_t>{0, 1});
  CHECK_THAT(m->update({{"outputs", &scores}, {"labels", &labels}}, 0).message(), ContainsSubstring("embeddings [N, D]"));
  CHECK_THAT(make_metric("recall_at_k", {{"k", int64_t{0}}}).status().message(), ContainsSubstring("at least 1"));
}
