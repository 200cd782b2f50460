// Helpers for plain kernels: strided iteration and arithmetic types.
#pragma once

#include <string>
#include <type_traits>
#include <vector>

#include "core/graph/op.h"

namespace tenon {

// Type in which values of storage type T are computed.
template <class T>
using Arith = std::conditional_t<std::is_same_v<T, bf16>, float, T>;
// Type in which values of storage type T are summed.
template <class T>
using Accum = std::conditional_t<
    std::is_same_v<T, double>, double,
    std::conditional_t<std::is_same_v<T, float> || std::is_same_v<T, bf16>, float, int64_t>>;

template <class T>
Arith<T> load(T v) {
  if constexpr (std::is_same_v<T, bf16>)
    return static_cast<float>(v);
  else
    return v;
}
template <class T, class A>
T store(A v) {
  if constexpr (std::is_same_v<T, bf16>)
    return bf16(static_cast<float>(v));
  else
    return static_cast<T>(v);
}

// Calls f(offset of view 0, offset of view 1, ..) in elements for every index of `shape`, row-major order.
template <int N, class F>
void for_each_offset(const Shape& shape, const std::array<Strides, N>& strides, F&& f) {
  const int64_t n = shape.numel();
  if (n == 0) return;
  std::array<int64_t, kMaxRank> index{};
  std::array<int64_t, N> off{};
  const int rank = shape.rank();
  for (int64_t i = 0; i < n; ++i) {
    std::apply([&](auto... o) { f(o...); }, off);
    for (int d = rank - 1; d >= 0; --d) {
      const auto du = static_cast<size_t>(d);
      for (size_t k = 0; k < N; ++k) off[k] += strides[k][d];
      if (++index[du] < shape[d]) break;
      for (size_t k = 0; k < N; ++k) off[k] -= strides[k][d] * shape[d];
      index[du] = 0;
    }
  }
}

// Strides with which a tensor of `in` layout is read when broadcast to `out` (numpy's rule).
inline Strides broadcast_strides(const Layout& in, const Shape& out) {
  Strides s = Dims::filled(out.rank(), 0);
  const int lead = out.rank() - in.shape.rank();
  for (int i = 0; i < in.shape.rank(); ++i) s[lead + i] = in.shape[i] == 1 ? 0 : in.strides[i];
  return s;
}

// A row-major copy of a strided view (for kernels whose algorithm wants dense rows, e.g. linear algebra).
template <class T>
std::vector<T> dense(const View& v) {
  std::vector<T> out(static_cast<size_t>(v.numel()));
  size_t i = 0;
  for_each_offset<1>(v.shape, {v.strides}, [&](int64_t o) { out[i++] = v.as<T>()[o]; });
  return out;
}

// A list attribute as Dims, or an error when it is longer than any tensor has axes.
inline Result<Dims> short_list(std::string_view op, std::string_view attr, std::span<const int64_t> v) {
  if (v.size() > kMaxRank)
    return invalid(std::string(op) + ": " + std::string(attr) + " has " + std::to_string(v.size()) +
                   " entries; tensors have at most " + std::to_string(kMaxRank) + " axes");
  return Dims(v);
}

// Error unless this can be the shape of a tensor: no negative sizes, an element count that fits into memory.
inline Status check_shape(std::string_view op, const Shape& shape) {
  constexpr int64_t kMaxElements = int64_t{1} << 47;
  int64_t n = 1;
  for (int64_t d : shape) {
    if (d < 0) return invalid(std::string(op) + ": shape " + to_string(shape) + " has a negative size");
    if (d > 0 && n > kMaxElements / d)
      return invalid(std::string(op) + ": shape " + to_string(shape) +
                     " has more elements than memory can hold");
    n *= std::max<int64_t>(d, 1);
  }
  return Status::ok();
}

// An attribute that holds a DType.
inline Result<DType> dtype_attr(std::string_view op, int64_t v) {
  if (v < 0 || v >= kDTypeCount)
    return invalid(std::string(op) + ": dtype " + std::to_string(v) + " is none; they are 0 to " +
                   std::to_string(kDTypeCount - 1) + " (f32, f64, bf16, i32, i64, u8, bool)");
  return static_cast<DType>(v);
}

// Axis in [0, rank), or an error naming the op. Negative counts from the end.
inline Result<int> normalize_axis(std::string_view op, int64_t axis, int rank) {
  const int64_t a = axis < 0 ? axis + rank : axis;
  if (a < 0 || a >= rank)
    return invalid(std::string(op) + ": axis " + std::to_string(axis) + " is outside a tensor of rank " +
                   std::to_string(rank));
  return static_cast<int>(a);
}

// Axes in [0, rank), ascending; an empty list means all of them. Error when one is out of range or given
// twice.
inline Result<Axes> normalize_axes(std::string_view op, std::span<const int64_t> axes, int rank) {
  uint32_t chosen = 0;
  for (int64_t axis : axes) {
    TN_ASSIGN(const int a, normalize_axis(op, axis, rank));
    if (chosen >> a & 1u)
      return invalid(std::string(op) + ": axis " + std::to_string(axis) + " is given twice");
    chosen |= 1u << a;
  }
  Axes out;
  for (int i = 0; i < rank; ++i)
    if (axes.empty() || (chosen >> i & 1u)) out.push_back(i);
  return out;
}

}  // namespace tenon
