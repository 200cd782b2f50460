// Random numbers on the host: keys, and a stream that reads the draws of one key in order. Built on the
// counter-based generator of philox.h: number i of a stream is a pure function of (key, i), so the same
// numbers come out whatever the order, the thread count or the device.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <numeric>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "core/base/philox.h"

namespace tenon {

// FNV-1a, 64 bits.
constexpr uint64_t hash_label(std::string_view s) {
  uint64_t h = 0xcbf29ce484222325u;
  for (char c : s) h = (h ^ static_cast<uint8_t>(c)) * 0x100000001b3u;
  return h;
}

// A new key from an old one and a number or a label: independent streams for independent purposes. Labels
// have their own half of the splitting domain, so that no label can coincide with a number.
inline uint64_t split_key(uint64_t key, uint64_t index) { return philox_split(key, index); }
inline uint64_t split_key(uint64_t key, std::string_view label) {
  const auto b = philox(key, hash_label(label), philox_domain::kSplit | 1);
  return join_words(b[0], b[1]);
}

// [0, 1) from one 32-bit word (24 bits kept: exact in f32) or two (53 bits, f64).
constexpr float uniform_f32(uint32_t w) { return static_cast<float>(w >> 8) * 0x1p-24f; }
constexpr double uniform_f64(uint32_t lo, uint32_t hi) {
  return static_cast<double>((lo | static_cast<uint64_t>(hi) << 32) >> 11) * 0x1p-53;
}

// A host-side stream: reads the draws of one key in order. Copying it copies the position.
class Philox {
 public:
  explicit Philox(uint64_t key) : key_(key) {}
  Philox(uint64_t seed, std::string_view label) : key_(split_key(seed, label)) {}

  uint32_t next_u32() {
    if (at_ == 4) {
      block_ = philox(key_, counter_++, philox_domain::kDraw);
      at_ = 0;
    }
    return block_[at_++];
  }
  uint64_t next_u64() {
    const uint64_t lo = next_u32();
    return lo | static_cast<uint64_t>(next_u32()) << 32;
  }
  // [0, 1) with 53 random bits.
  double uniform() {
    const uint32_t lo = next_u32();
    return uniform_f64(lo, next_u32());
  }
  // Mean 0, variance 1 (Box-Muller, both values used).
  double normal() {
    if (has_spare_) {
      has_spare_ = false;
      return spare_;
    }
    const double r = std::sqrt(-2.0 * std::log(1.0 - uniform()));
    const double angle = 2.0 * std::numbers::pi * uniform();
    spare_ = r * std::sin(angle);
    has_spare_ = true;
    return r * std::cos(angle);
  }
  // An integer in [0, n), each equally likely (rejection, so without bias). n must be positive.
  uint64_t below(uint64_t n) {
    const uint64_t excess = (UINT64_MAX % n + 1) % n;  // 2^64 mod n
    uint64_t x = next_u64();
    while (x > UINT64_MAX - excess) x = next_u64();
    return x % n;
  }
  // Fisher-Yates.
  template <class T>
  void shuffle(std::span<T> v) {
    for (size_t i = v.size(); i > 1; --i) std::swap(v[i - 1], v[static_cast<size_t>(below(i))]);
  }
  // A uniformly random order of 0 .. n-1.
  std::vector<int64_t> permutation(int64_t n) {
    std::vector<int64_t> p(static_cast<size_t>(n));
    std::iota(p.begin(), p.end(), int64_t{0});
    shuffle(std::span<int64_t>(p));
    return p;
  }

 private:
  uint64_t key_;
  uint64_t counter_ = 0;
  std::array<uint32_t, 4> block_{};
  size_t at_ = 4;
  double spare_ = 0;
  bool has_spare_ = false;
};

}  // namespace tenon
