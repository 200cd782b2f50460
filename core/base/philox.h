// The counter-based generator behind all randomness: Philox4x32-10 of Random123 (Salmon et al., SC 2011).
//
// A block of four words is a pure function of (key, counter), so any element of a stream can be made
// anywhere, in any order. The upper half of the counter says what the block is for; draws from different
// domains never overlap.
#pragma once

#include <Random123/philox.h>

#include <array>
#include <cstdint>

namespace tenon {

namespace philox_domain {
inline constexpr uint64_t kDraw = 0;     // block `lo` of a stream of numbers
inline constexpr uint64_t kAttempt = 1;  // kAttempt + j: block j of rejection sampling for element `lo`
inline constexpr uint64_t kSplit = uint64_t{1} << 63;  // derivation of keys
}  // namespace philox_domain

inline std::array<uint32_t, 4> philox(uint64_t key, uint64_t counter_lo, uint64_t counter_hi) {
  const r123::Philox4x32::ctr_type counter = {
      {static_cast<uint32_t>(counter_lo), static_cast<uint32_t>(counter_lo >> 32),
       static_cast<uint32_t>(counter_hi), static_cast<uint32_t>(counter_hi >> 32)}};
  const r123::Philox4x32::key_type k = {{static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32)}};
  const auto block = r123::Philox4x32{}(counter, k);
  return {block[0], block[1], block[2], block[3]};
}

inline uint64_t join_words(uint32_t lo, uint32_t hi) { return uint64_t{hi} << 32 | lo; }

// A new key, independent of `key` and of those for other numbers. The op fold_in computes the same.
inline uint64_t philox_split(uint64_t key, uint64_t number) {
  const auto b = philox(key, number, philox_domain::kSplit);
  return join_words(b[0], b[1]);
}

}  // namespace tenon
