// What a kernel sees of a tensor: an address, a type, a shape and element strides.
#pragma once

#include "core/tensor/dtype.h"
#include "core/tensor/shape.h"

namespace tenon {

// Type of a tensor as the graph knows it: always dense, always concrete.
struct TensorType {
  DType dtype = DType::f32;
  Shape shape;
  friend bool operator==(const TensorType&, const TensorType&) = default;
};

// "f32[2, 3]"
inline std::string to_string(const TensorType& t) { return std::string(name_of(t.dtype)) + to_string(t.shape); }

// Layout of a tensor as a kernel gets it. Stride 0 repeats an element (broadcast), negative strides walk back.
struct Layout {
  DType dtype = DType::f32;
  Shape shape;
  Strides strides;
  Layout() = default;
  Layout(DType t, const Shape& sh, const Strides& st) : dtype(t), shape(sh), strides(st) {}
  explicit Layout(const TensorType& t) : dtype(t.dtype), shape(t.shape), strides(t.shape.strides()) {}
  bool contiguous() const { return is_contiguous(shape, strides); }
  int64_t numel() const { return shape.numel(); }
  size_t size_bytes() const { return static_cast<size_t>(numel()) * size_of(dtype); }
};

// A layout at an address that the kernel may dereference.
struct View : Layout {
  void* data = nullptr;
  View() = default;
  View(const Layout& l, void* p) : Layout(l), data(p) {}
  template <class T>
  T* as() const {
    return static_cast<T*>(data);
  }
};

}  // namespace tenon
