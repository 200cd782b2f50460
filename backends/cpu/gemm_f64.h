// The inner loops of products of f64 matrices, which oneDNN has not: one block of the result in registers.
#pragma once

#include <cstdint>

namespace tenon::cpu {

struct GemmF64 {
  int64_t rows, cols;  // of a block
  // c[r][j] (+)= sum over k of a[k][r] b[k][j], k ascending: a [depth, rows], b [depth, cols] packed. `add`: to
  // what c holds; ldc: from a row of c to the next.
  void (*block)(const double* a, const double* b, int64_t depth, double* c, int64_t ldc, bool add);
  // y[r] = sum over k of a[r][k] x[k], r < rows, a's rows `stride` apart, or (columns) its columns; the same bits either way.
  // Blocks of vector_rows rows are fastest.
  int64_t vector_rows;
  void (*dots)(const double* a, int64_t stride, const double* x, int64_t rows, int64_t depth, double* y);
  void (*columns)(const double* a, int64_t stride, const double* x, int64_t rows, int64_t depth, double* y);
};
const GemmF64& gemm_f64();

}  // namespace tenon::cpu
