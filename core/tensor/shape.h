// Shapes: up to eight dimensions, stored inline.
#pragma once

#include <algorithm>
#include <array>
#include <cassert>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>

namespace tenon {

inline constexpr int kMaxRank = 8;

// A short inline list of int64: dimensions, strides or axes.
class Dims {
 public:
  Dims() = default;
  Dims(std::initializer_list<int64_t> d) : Dims(std::span<const int64_t>(d.begin(), d.size())) {}
  explicit Dims(std::span<const int64_t> d) : size_(static_cast<int>(d.size())) {
    assert(d.size() <= kMaxRank);
    std::copy(d.begin(), d.end(), d_.begin());
  }
  static Dims filled(int n, int64_t v) {
    Dims r;
    for (int i = 0; i < n; ++i) r.push_back(v);
    return r;
  }

  int size() const { return size_; }
  bool empty() const { return size_ == 0; }
  int64_t& operator[](int i) { return d_[static_cast<size_t>(i)]; }
  int64_t operator[](int i) const { return d_[static_cast<size_t>(i)]; }
  int64_t back() const { return (*this)[size_ - 1]; }
  void push_back(int64_t v) {
    assert(size_ < kMaxRank);
    d_[static_cast<size_t>(size_++)] = v;
  }
  void pop_back() { --size_; }
  void insert(int at, int64_t v) {
    push_back(0);
    for (int i = size_ - 1; i > at; --i) (*this)[i] = (*this)[i - 1];
    (*this)[at] = v;
  }
  void erase(int at) {
    for (int i = at; i + 1 < size_; ++i) (*this)[i] = (*this)[i + 1];
    --size_;
  }
  const int64_t* begin() const { return d_.data(); }
  const int64_t* end() const { return d_.data() + size_; }
  int64_t* begin() { return d_.data(); }
  int64_t* end() { return d_.data() + size_; }
  bool contains(int64_t v) const { return std::find(begin(), end(), v) != end(); }
  friend bool operator==(const Dims& a, const Dims& b) { return std::equal(a.begin(), a.end(), b.begin(), b.end()); }

 private:
  std::array<int64_t, kMaxRank> d_{};
  int size_ = 0;
};

using Strides = Dims;  // in elements, as DLPack has them
using Axes = Dims;

class Shape : public Dims {
 public:
  using Dims::Dims;
  Shape() = default;
  explicit Shape(const Dims& d) : Dims(d) {}
  int rank() const { return size(); }
  int64_t numel() const {
    int64_t n = 1;
    for (int64_t d : *this) n *= d;
    return n;
  }
  // Row-major strides, in elements.
  Strides strides() const {
    Strides s = Dims::filled(rank(), 1);
    for (int i = rank() - 2; i >= 0; --i) s[i] = s[i + 1] * std::max<int64_t>((*this)[i + 1], 1);
    return s;
  }
};

// "[2, 3]"
inline std::string to_string(const Dims& d) {
  std::string s = "[";
  for (int i = 0; i < d.size(); ++i) s += (i ? ", " : "") + std::to_string(d[i]);
  return s + "]";
}

// Whether elements of a tensor of this shape with these strides lie in row-major order without gaps.
inline bool is_contiguous(const Shape& shape, const Strides& strides) {
  if (shape.numel() == 0) return true;
  int64_t expected = 1;
  for (int i = shape.rank() - 1; i >= 0; --i) {
    if (shape[i] == 1) continue;
    if (strides[i] != expected) return false;
    expected *= shape[i];
  }
  return true;
}

}  // namespace tenon
