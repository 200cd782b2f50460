// The one place through which ops use Eigen: single-threaded, so that results do not depend on the number of
// threads.
#pragma once

#ifndef EIGEN_DONT_PARALLELIZE
#define EIGEN_DONT_PARALLELIZE
#endif
#include <Eigen/Dense>

#include "core/ops/dense.h"

namespace tenon {

template <class A>
using RowMatrix = Eigen::Matrix<A, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
template <class A>
using ConstRows = Eigen::Map<const RowMatrix<A>>;
template <class A>
using Rows = Eigen::Map<RowMatrix<A>>;

// A view's elements as row-major matrices.
template <class T>
class DenseElements : public DenseView<T> {
 public:
  using DenseView<T>::DenseView;
  // rows x cols elements from `first` on.
  ConstRows<Arith<T>> matrix(int64_t first, int64_t rows, int64_t cols) const {
    return {this->data() + first, rows, cols};
  }
};

}  // namespace tenon
