// Deterministic values for the sample inputs of ops: spread out, and without ties.
#pragma once

#include <algorithm>
#include <numeric>
#include <vector>

#include "core/base/philox.h"
#include "core/tensor/host_array.h"

namespace tenon {

// n = numel values, evenly spaced in [low, high] and shuffled: no two are closer than (high - low) / n.
inline HostArray sample_f64(const Shape& shape, double low, double high, uint64_t seed = 1) {
  const auto n = static_cast<size_t>(shape.numel());
  std::vector<double> v(n);
  for (size_t i = 0; i < n; ++i)
    v[i] = low + (high - low) * (static_cast<double>(i) + 0.5) / static_cast<double>(n);
  for (size_t i = n; i > 1; --i) std::swap(v[i - 1], v[philox(seed, i, 0)[0] % i]);
  return HostArray::of<double>(std::span<const double>(v), shape);
}

inline HostArray sample_i64(const std::vector<int64_t>& values, const Shape& shape) {
  return HostArray::of<int64_t>(std::span<const int64_t>(values), shape);
}

}  // namespace tenon
