#include "core/base/random.h"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <set>

#include "core/base/nearest.h"

using namespace tenon;

TEST_CASE("philox gives the known answers of Random123") {
  // kat_vectors of Random123, philox4x32 10.
  CHECK(philox(0, 0, 0) == std::array<uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(philox(UINT64_MAX, UINT64_MAX, UINT64_MAX) ==
        std::array<uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
}

TEST_CASE("a stream is its key's draws in order") {
  Philox p(7);
  CHECK(p.next_u32() == philox(7, 0, 0)[0]);
  for (int i = 0; i < 3; ++i) p.next_u32();
  CHECK(p.next_u32() == philox(7, 1, 0)[0]);
  Philox a(3, "one"), b(3, "one"), c(3, "two"), d(4, "one");
  const uint64_t first = a.next_u64();
  CHECK(b.next_u64() == first);
  CHECK(c.next_u64() != first);
  CHECK(d.next_u64() != first);
}

TEST_CASE("split keys differ from each other and between numbers and labels") {
  std::set<uint64_t> keys;
  for (uint64_t i = 0; i < 1000; ++i) keys.insert(split_key(5, i));
  for (auto label : {"", "a", "b", "ab", "shuffle"}) keys.insert(split_key(5, label));
  keys.insert(split_key(5, hash_label("a")));
  CHECK(keys.size() == 1006);
  CHECK(split_key(5, "a") == split_key(5, "a"));
}

TEST_CASE("uniform, normal and below have the right moments") {
  const uint64_t seed = 2024;
  CAPTURE(seed);
  Philox p(seed);
  const int n = 200000;
  double u = 0, u2 = 0, z = 0, z2 = 0, z4 = 0;
  double low = 1, high = 0;
  for (int i = 0; i < n; ++i) {
    const double a = p.uniform(), b = p.normal();
    low = std::min(low, a);
    high = std::max(high, a);
    u += a / n;
    u2 += a * a / n;
    z += b / n;
    z2 += b * b / n;
    z4 += b * b * b * b / n;
  }
  CHECK(low >= 0);
  CHECK(high < 1);
  CHECK(std::abs(u - 0.5) < 0.004);
  CHECK(std::abs(u2 - 1.0 / 3) < 0.004);
  CHECK(std::abs(z) < 0.01);
  CHECK(std::abs(z2 - 1) < 0.02);
  CHECK(std::abs(z4 - 3) < 0.15);
  std::array<int, 7> hits{};
  for (int i = 0; i < 70000; ++i) ++hits[p.below(7)];
  for (int h : hits) CHECK(std::abs(h - 10000) < 500);
  CHECK(p.below(1) == 0);
}

TEST_CASE("a permutation holds every number once, and places are uniform") {
  Philox p(11);
  std::array<int, 5> first{};
  for (int i = 0; i < 5000; ++i) {
    auto order = p.permutation(5);
    ++first[static_cast<size_t>(order[0])];
    std::sort(order.begin(), order.end());
    REQUIRE(order == std::vector<int64_t>{0, 1, 2, 3, 4});
  }
  for (int f : first) CHECK(std::abs(f - 1000) < 150);
  CHECK(p.permutation(0).empty());
}

TEST_CASE("the nearest name is a likely typo, or none") {
  const std::vector<std::string> names = {"accuracy", "auc", "perplexity"};
  CHECK(nearest("acuracy", names) == "accuracy");
  CHECK(nearest("AUC", names) == "auc");
  CHECK(nearest("zebra crossing", names).empty());
  CHECK(did_you_mean("acuracy", names) == " (did you mean 'accuracy'?)");
  CHECK(did_you_mean("zebra crossing", names) == " (there are: accuracy, auc, perplexity)");
}
