// Products of f64 matrices with any strides: what the kernels of matmul and cholesky share.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tenon::cpu {

// Element [r, c] is data[r * row_stride + c * col_stride].
struct StridedF64 {
  const double* data;
  int64_t row_stride, col_stride;
};

enum class Into { assign, add, subtract };

// c[r * ldc + j] =, += or -= sum over k of a[r, k] b[k, j], with a [rows, depth], b [depth, cols], none of them empty. Operands are
// packed in panels and multiplied block by block (Goto & van de Geijn 2008, "Anatomy of high-performance matrix multiplication").
// Each sum is made in the order of k, whatever the number of threads. `scratch`: product_f64_scratch elements.
void product_f64(StridedF64 a, StridedF64 b, int64_t rows, int64_t depth, int64_t cols, double* c, int64_t ldc, Into into,
                 int threads, double* scratch);
int64_t product_f64_scratch(int64_t rows, int64_t depth, int64_t cols, int threads);

// y[r] = sum over k of a[r, k] x[k], where one of a's strides is 1. The order of a sum depends on the sizes alone.
void product_with_vector_f64(StridedF64 a, const double* x, int64_t rows, int64_t depth, double* y, int threads);

}  // namespace tenon::cpu
