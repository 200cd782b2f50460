#include "backends/cpu/strided.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>

namespace tenon::cpu {

Strides broadcast_strides(const Shape& shape, const Strides& strides, const Shape& to) {
  Strides s = Dims::filled(to.rank(), 0);
  const int lead = to.rank() - shape.rank();
  for (int i = 0; i < shape.rank(); ++i) s[lead + i] = shape[i] == 1 ? 0 : strides[i];
  return s;
}

void collapse(Shape& shape, std::vector<Strides>& strides) {
  for (int i = shape.rank() - 1; i >= 0; --i) {
    if (shape[i] != 1) continue;
    shape.erase(i);
    for (Strides& s : strides) s.erase(i);
  }
  for (int i = shape.rank() - 2; i >= 0; --i) {
    const bool even = std::all_of(strides.begin(), strides.end(),
                                  [&](const Strides& s) { return s[i] == s[i + 1] * shape[i + 1]; });
    if (!even) continue;
    shape[i] *= shape[i + 1];
    shape.erase(i + 1);
    for (Strides& s : strides) {
      s[i] = s[i + 1];
      s.erase(i + 1);
    }
  }
  if (shape.empty()) {
    shape.push_back(1);
    for (Strides& s : strides) s.push_back(1);
  }
}

namespace {

template <class T>
void copy_run(const T* from, int64_t stride, int64_t n, T* to) {
  if (stride == 1)
    std::memcpy(to, from, static_cast<size_t>(n) * sizeof(T));
  else if (stride == 0)
    std::fill_n(to, n, *from);
  else
    for (int64_t i = 0; i < n; ++i) to[i] = from[i * stride];
}

template <class T>
void gather_as(const Shape& shape, const Strides& strides, const T* from, int64_t start, int64_t n, T* to) {
  const int last = shape.rank() - 1;
  std::array<int64_t, kMaxRank> index{};
  int64_t offset = 0;
  for (int d = last; d >= 0; --d) {
    index[static_cast<size_t>(d)] = start % shape[d];
    start /= shape[d];
    offset += index[static_cast<size_t>(d)] * strides[d];
  }
  while (true) {
    const int64_t run = std::min(n, shape[last] - index[static_cast<size_t>(last)]);
    copy_run(from + offset, strides[last], run, to);
    n -= run;
    to += run;
    if (n == 0) return;
    offset -= index[static_cast<size_t>(last)] * strides[last];
    index[static_cast<size_t>(last)] = 0;
    for (int d = last - 1; d >= 0; --d) {
      const auto du = static_cast<size_t>(d);
      offset += strides[d];
      if (++index[du] < shape[d]) break;
      offset -= strides[d] * shape[d];
      index[du] = 0;
    }
  }
}

}  // namespace

void gather(const Shape& shape, const Strides& strides, size_t element_bytes, const void* from, int64_t start,
            int64_t n, void* to) {
  if (n <= 0) return;
  const auto as = [&](auto t) {
    using T = decltype(t);
    gather_as(shape, strides, static_cast<const T*>(from), start, n, static_cast<T*>(to));
  };
  switch (element_bytes) {
    case 1:
      return as(uint8_t{});
    case 2:
      return as(uint16_t{});
    case 4:
      return as(uint32_t{});
    default:
      return as(uint64_t{});
  }
}

}  // namespace tenon::cpu
