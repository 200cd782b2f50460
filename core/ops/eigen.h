// The one place through which ops use Eigen: single-threaded, so that results do not depend on the number of
// threads.
#pragma once

#ifndef EIGEN_DONT_PARALLELIZE
#define EIGEN_DONT_PARALLELIZE
#endif
#include <Eigen/Dense>

#include "core/ops/kernel_util.h"

namespace tenon {

template <class A>
using RowMatrix = Eigen::Matrix<A, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
template <class A>
using ConstRows = Eigen::Map<const RowMatrix<A>>;
template <class A>
using Rows = Eigen::Map<RowMatrix<A>>;

// A view's elements in row-major order and arithmetic type: borrowed where they lie so already, else copied.
template <class T>
class DenseElements {
 public:
  explicit DenseElements(const View& v) {
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
  // rows x cols elements from `first` on.
  ConstRows<Arith<T>> matrix(int64_t first, int64_t rows, int64_t cols) const {
    return {data_ + first, rows, cols};
  }

 private:
  std::vector<Arith<T>> copy_;
  const Arith<T>* data_ = nullptr;
};

}  // namespace tenon
