// A 128-bit running hash for plan structure: two independently mixed 64-bit lanes, so that collisions are not a concern.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace tenon {

struct Hash128 {
  uint64_t a = 0x9e3779b97f4a7c15u, b = 0xc2b2ae3d27d4eb4fu;

  void mix(uint64_t v) {
    a = (a ^ v) * 0xff51afd7ed558ccdu;
    a ^= a >> 32;
    b = (b + v) * 0xc4ceb9fe1a85ec53u;
    b ^= b >> 29;
  }
  void mix_list(std::span<const int64_t> vs) {
    mix(vs.size());
    for (int64_t v : vs) mix(static_cast<uint64_t>(v));
  }
  friend bool operator==(const Hash128&, const Hash128&) = default;
};

struct Hash128Hasher {
  size_t operator()(const Hash128& h) const { return static_cast<size_t>(h.a ^ (h.b << 1)); }
};

}  // namespace tenon
