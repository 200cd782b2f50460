// Whether two results are the same. A NaN equals any other: which one an operation on two of them gives depends on the
// order of its operands, and is promised nowhere.
#pragma once

#include <cmath>
#include <cstring>

#include "core/tensor/host_array.h"

namespace tenon::test {

inline bool same_bits(const HostArray& a, const HostArray& b) {
  if (a.dtype() != b.dtype() || a.shape() != b.shape()) return false;
  if (a.size_bytes() == 0 || std::memcmp(a.data(), b.data(), a.size_bytes()) == 0) return true;
  if (!is_floating(a.dtype())) return false;
  const size_t size = size_of(a.dtype());
  for (int64_t i = 0; i < a.numel(); ++i) {
    const size_t at = static_cast<size_t>(i) * size;
    if (std::memcmp(a.data() + at, b.data() + at, size) != 0 && !(std::isnan(a.at(i)) && std::isnan(b.at(i)))) return false;
  }
  return true;
}

}  // namespace tenon::test
