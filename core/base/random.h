// Counter-based random numbers: Philox4x32-10 (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy
// as 1, 2, 3", SC 2011) from Random123. Number i of a stream is a pure function of (key, i): no state, any
// order, any thread count, the same on the host and on a device.
//
// Words of the Philox counter, so that draws and derived keys can never coincide under one key:
//   {low 32 bits of i, high 32 bits of i, 0, 0}  block i of draws
//   {low, high of n, 0, 1}                       split_key(key, n)
//   {low, high of hash(label), 0, 2}             split_key(key, label)
// The Philox key is {low 32 bits of key, high 32 bits of key}.
#pragma once

#include <Random123/philox.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <numeric>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

namespace tenon {

using PhiloxBlock = std::array<uint32_t, 4>;

// Four random 32-bit words for one counter.
inline PhiloxBlock philox(uint64_t key, uint64_t counter, uint32_t word2 = 0, uint32_t word3 = 0) {
  const r123::Philox4x32::ctr_type c = {
      {static_cast<uint32_t>(counter), static_cast<uint32_t>(counter >> 32), word2, word3}};
  const r123::Philox4x32::key_type k = {{static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32)}};
  const r123::Philox4x32::ctr_type r = r123::Philox4x32{}(c, k);
  return {r[0], r[1], r[2], r[3]};
}

// FNV-1a, 64 bits.
constexpr uint64_t hash_label(std::string_view s) {
  uint64_t h = 0xcbf29ce484222325u;
  for (char c : s) h = (h ^ static_cast<uint8_t>(c)) * 0x100000001b3u;
  return h;
}

// A new key from an old one and a number or a label: independent streams for independent purposes.
inline uint64_t split_key(uint64_t key, uint64_t index) {
  const PhiloxBlock b = philox(key, index, 0, 1);
  return b[0] | static_cast<uint64_t>(b[1]) << 32;
}
inline uint64_t split_key(uint64_t key, std::string_view label) {
  const PhiloxBlock b = philox(key, hash_label(label), 0, 2);
  return b[0] | static_cast<uint64_t>(b[1]) << 32;
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
      block_ = philox(key_, counter_++);
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
  PhiloxBlock block_{};
  size_t at_ = 4;
  double spare_ = 0;
  bool has_spare_ = false;
};

}  // namespace tenon
