// Products of small matrices of bf16, summed in f32. A word is two bf16 that follow each other along the
// summed axis, the first in the lower half: what AVX512-BF16 multiplies and adds in one instruction.
#pragma once

#include <cstdint>

#include "core/tensor/dtype.h"

namespace tenon::cpu {

// A matrix of words: word (i, k) at words[i * row + k * step].
struct PairMatrix {
  const uint32_t* words;
  int64_t row, step;
};

struct PairGemm {
  // c[i * ldc + j] = scale * (sum over k < depth of a(i, k) . b(k, j)), and what was there with `add`; i < m,
  // j < n. b's rows lie ldb words apart, their words side by side.
  void (*multiply)(int64_t m, int64_t n, int64_t depth, PairMatrix a, const uint32_t* b, int64_t ldb,
                   float scale, float* c, int64_t ldc, bool add);
  // Words along the columns: out[r][c] = x[2r][c], x[2r + 1][c], zero where there is no more row. Rows lie
  // `row_stride` apart.
  void (*along_columns)(const bf16* x, int64_t rows, int64_t cols, int64_t row_stride, uint32_t* out);
  // The same of f32, rounded.
  void (*round_along_columns)(const float* x, int64_t rows, int64_t cols, int64_t row_stride, uint32_t* out);
  // Words along the rows, transposed: out[c][r] = x[r][2c], x[r][2c + 1], zero where a row ends.
  void (*along_rows_transposed)(const bf16* x, int64_t rows, int64_t cols, int64_t row_stride, uint32_t* out);
};

// For this machine: AVX512-BF16 where it has that, else the portable one.
const PairGemm& pair_gemm();
const PairGemm& portable_pair_gemm();

// Words along the rows: out[r][c] = x[r][2c], x[r][2c + 1], zero where a row ends.
void pair_along_rows(const bf16* x, int64_t rows, int64_t cols, int64_t row_stride, uint32_t* out);

}  // namespace tenon::cpu
