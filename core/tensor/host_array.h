// A tensor in host memory: what readers produce, checkpoints store and tests compare.
#pragma once

#include <cassert>
#include <cstddef>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

#include "core/tensor/dtype.h"
#include "core/tensor/shape.h"

namespace tenon {

// Row-major and contiguous. bool elements take one byte, 0 or 1.
class HostArray {
 public:
  HostArray() = default;
  HostArray(DType dtype, Shape shape)
      : dtype_(dtype), shape_(shape), bytes_(static_cast<size_t>(shape.numel()) * size_of(dtype)) {}

  template <class T>
  static HostArray of(std::span<const T> values, Shape shape) {
    assert(static_cast<int64_t>(values.size()) == shape.numel());
    HostArray a(dtype_of<T>, shape);
    if (!values.empty()) std::memcpy(a.bytes_.data(), values.data(), values.size_bytes());
    return a;
  }
  template <class T>
  static HostArray of(const std::vector<T>& values) {
    return of<T>(std::span<const T>(values), Shape{static_cast<int64_t>(values.size())});
  }

  DType dtype() const { return dtype_; }
  const Shape& shape() const { return shape_; }
  int64_t numel() const { return shape_.numel(); }
  size_t size_bytes() const { return bytes_.size(); }
  std::byte* data() { return bytes_.data(); }
  const std::byte* data() const { return bytes_.data(); }

  template <class T>
  std::span<T> as() {
    assert(dtype_of<T> == dtype_);
    return {reinterpret_cast<T*>(bytes_.data()), static_cast<size_t>(numel())};
  }
  template <class T>
  std::span<const T> as() const {
    assert(dtype_of<T> == dtype_);
    return {reinterpret_cast<const T*>(bytes_.data()), static_cast<size_t>(numel())};
  }
  // Element i as a double, whatever the type.
  double at(int64_t i) const {
    return dispatch(dtype_, [&](auto t) { return static_cast<double>(as<decltype(t)>()[static_cast<size_t>(i)]); });
  }
  void set(int64_t i, double v) {
    dispatch(dtype_, [&](auto t) {
      using T = decltype(t);
      if constexpr (std::is_same_v<T, bf16>) as<T>()[static_cast<size_t>(i)] = bf16(static_cast<float>(v));
      else as<T>()[static_cast<size_t>(i)] = static_cast<T>(v);
    });
  }
  // The same elements under another shape of equal element count.
  HostArray reshaped(Shape shape) && {
    assert(shape.numel() == shape_.numel());
    shape_ = shape;
    return std::move(*this);
  }

 private:
  DType dtype_ = DType::f32;
  Shape shape_{0};
  std::vector<std::byte> bytes_;
};

}  // namespace tenon
