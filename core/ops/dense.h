// Row-major elements in arithmetic type, for kernels whose inner loops want them so.
#pragma once

#include <vector>

#include "core/ops/kernel_util.h"

namespace tenon {

// A view's elements: borrowed where they lie in order already, else copied.
template <class T>
class DenseView {
 public:
  explicit DenseView(const View& v) {
    if constexpr (std::is_same_v<T, Arith<T>>) {
      if (v.contiguous()) {
        data_ = v.as<T>();
        return;
      }
    }
    copy_.reserve(static_cast<size_t>(v.numel()));
    for_each_offset<1>(v.shape, {v.strides}, [&](int64_t o) { copy_.push_back(load(v.as<T>()[o])); });
    data_ = copy_.data();
  }
  DenseView(const DenseView&) = delete;
  DenseView& operator=(const DenseView&) = delete;
  const Arith<T>* data() const { return data_; }
  const Arith<T>& operator[](int64_t i) const { return data_[i]; }

 private:
  std::vector<Arith<T>> copy_;
  const Arith<T>* data_ = nullptr;
};

// Where a kernel computes a contiguous output: in place, or beside it when the storage type is not
// arithmetic.
template <class T>
class DenseResult {
 public:
  explicit DenseResult(const View& v, Arith<T> initial = {})
      : to_(v.as<T>()), n_(static_cast<size_t>(v.numel())) {
    if constexpr (std::is_same_v<T, Arith<T>>) {
      data_ = to_;
      std::fill_n(data_, n_, initial);
    } else {
      copy_.assign(n_, initial);
      data_ = copy_.data();
    }
  }
  ~DenseResult() {
    if constexpr (!std::is_same_v<T, Arith<T>>)
      for (size_t i = 0; i < n_; ++i) to_[i] = store<T>(data_[i]);
  }
  DenseResult(const DenseResult&) = delete;
  DenseResult& operator=(const DenseResult&) = delete;
  Arith<T>* data() const { return data_; }
  Arith<T>& operator[](int64_t i) const { return data_[i]; }

 private:
  std::vector<Arith<T>> copy_;
  T* to_;
  size_t n_;
  Arith<T>* data_ = nullptr;
};

// Calls f(offsets of the first element of each line along `axis`) for all given strides.
template <int N, class F>
void for_each_line(const Shape& shape, int axis, const std::array<Strides, N>& strides, F&& f) {
  if (shape.numel() == 0) return;
  Shape outer = shape;
  outer[axis] = 1;
  for_each_offset<N>(outer, strides, f);
}

// Calls f with the C++ type of a floating dtype.
template <class F>
Status dispatch_floating(DType t, F&& f) {
  if (t == DType::f64) return f(double{});
  if (t == DType::bf16) return f(bf16{});
  return f(float{});
}

// Error unless the dtype is f32, f64 or bf16.
inline Status want_floating(std::string_view op, const TensorType& t) {
  if (is_floating(t.dtype)) return Status::ok();
  return invalid(std::string(op) + ": got " + to_string(t) + "; it wants f32, f64 or bf16 (cast it first)");
}

inline Status want_same_dtype(std::string_view op, std::span<const TensorType> in) {
  for (const TensorType& t : in)
    if (t.dtype != in[0].dtype)
      return invalid(std::string(op) + ": mixes " + to_string(in[0]) + " and " + to_string(t) +
                     "; cast one to the other's dtype");
  return Status::ok();
}

}  // namespace tenon
