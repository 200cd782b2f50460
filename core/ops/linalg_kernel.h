// What the linear algebra ops share: shape checks and batched Eigen kernels.
#pragma once

#include <string>

#include "core/ops/eigen.h"
#include "core/ops/sample_values.h"

namespace tenon {

extern const OpDef kCholesky, kTriangularSolve, kSolve, kInverse, kLogdet, kEigh;

namespace linalg {

inline Status check_square(std::string_view op, const TensorType& a) {
  const int r = a.shape.rank();
  if (r < 2 || a.shape[r - 1] != a.shape[r - 2])
    return invalid(std::string(op) + ": wants square matrices [.., N, N], got " + to_string(a));
  if (a.dtype != DType::f32 && a.dtype != DType::f64)
    return invalid(std::string(op) + ": wants f32 or f64, got " + to_string(a) + "; cast it first");
  return Status::ok();
}

// a: [.., N, N] and b: [.., N, M] of one dtype with equal leading dimensions.
inline Status check_system(std::string_view op, const TensorType& a, const TensorType& b) {
  TN_RETURN_IF_ERROR(check_square(op, a));
  const int r = a.shape.rank();
  bool fits = b.shape.rank() == r && b.dtype == a.dtype;
  for (int i = 0; fits && i < r - 1; ++i) fits = b.shape[i] == a.shape[i];
  if (fits) return Status::ok();
  return invalid(std::string(op) +
                 ": wants a [.., N, N] and b [.., N, M] of one dtype and equal leading dimensions, got " +
                 to_string(a) + " and " + to_string(b));
}

// Calls f(T{}) with the element type, f32 or f64.
template <class F>
Status dispatch_real(DType t, F&& f) {
  return t == DType::f64 ? f(double{}) : f(float{});
}

// Input or output viewed as a batch of row-major matrices of the last two axes.
struct BatchShape {
  int64_t count = 1, rows = 0, cols = 0;
  explicit BatchShape(const Shape& s) : rows(s[s.rank() - 2]), cols(s[s.rank() - 1]) {
    for (int i = 0; i < s.rank() - 2; ++i) count *= s[i];
  }
  int64_t size() const { return rows * cols; }
};

// Samples that every op accepts: spread values plus N on the diagonal.
inline HostArray well_conditioned(const Shape& shape, uint64_t seed) {
  HostArray a = sample_f64(shape, -1, 1, seed);
  const int64_t n = shape[shape.rank() - 1];
  auto v = a.as<double>();
  for (int64_t i = 0; i < a.numel(); ++i)
    if ((i / n) % n == i % n) v[static_cast<size_t>(i)] += static_cast<double>(n);
  return a;
}
inline std::vector<Sample> square_samples() {
  return {{{well_conditioned({3, 3}, 1)}},    {{well_conditioned({1, 1}, 2)}},
          {{well_conditioned({2, 4, 4}, 3)}}, {{well_conditioned({2, 1, 2, 2}, 4)}},
          {{well_conditioned({0, 2, 2}, 5)}}, {{well_conditioned({2, 0, 0}, 6)}}};
}

// "matrix 3" in a batch, "the matrix" alone.
inline std::string which_matrix(int64_t index, int64_t count) {
  return count == 1 ? "the matrix" : "matrix " + std::to_string(index) + " of the batch";
}

}  // namespace linalg
}  // namespace tenon
