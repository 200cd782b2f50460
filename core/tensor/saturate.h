// From real numbers to integers, without an undefined case.
#pragma once

#include <cmath>
#include <limits>

namespace tenon {

// A real number as an integer: truncated towards zero, held to the type's range, NaN as 0.
template <class I, class A>
I saturate(A v) {
  if (std::isnan(v)) return 0;
  // As a power of two, one past the largest value is exact in every floating type.
  const A past = std::ldexp(A{1}, std::numeric_limits<I>::digits);
  if (v >= past) return std::numeric_limits<I>::max();
  if (v < static_cast<A>(std::numeric_limits<I>::min())) return std::numeric_limits<I>::min();
  return static_cast<I>(v);
}

}  // namespace tenon
