// Arena offsets: blocks that live together never overlap, and the arena is not wasteful.
#include <catch2/catch_test_macros.hpp>
#include <random>

#include "core/plan/plan.h"

namespace tenon {
namespace {

TEST_CASE("blocks that live at the same time do not overlap") {
  const unsigned seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 rng(seed);
  for (int round = 0; round < 50; ++round) {
    std::vector<Lifetime> blocks(1 + rng() % 60);
    for (Lifetime& b : blocks) {
      b.bytes = rng() % 5000;
      b.first = static_cast<int>(rng() % 40);
      b.last = b.first + static_cast<int>(rng() % 10);
    }
    const size_t total = assign_offsets(blocks);
    size_t sum = 0;
    for (size_t i = 0; i < blocks.size(); ++i) {
      const Lifetime& a = blocks[i];
      REQUIRE(a.offset % 64 == 0);
      REQUIRE(a.offset + a.bytes <= total);
      sum += (a.bytes + 127) / 64 * 64;
      for (size_t j = 0; j < i; ++j) {
        const Lifetime& b = blocks[j];
        const bool together = a.first <= b.last && b.first <= a.last;
        if (together) REQUIRE((a.offset + a.bytes <= b.offset || b.offset + b.bytes <= a.offset));
      }
    }
    REQUIRE(total <= sum);
  }
}

TEST_CASE("blocks that follow each other share memory") {
  std::vector<Lifetime> chain;
  for (int i = 0; i < 100; ++i) chain.push_back({.bytes = 1024, .first = i, .last = i + 1});
  CHECK(assign_offsets(chain) == 2048);
}

}  // namespace
}  // namespace tenon
