// Vector loops over one row of f32: the parts that softmax, normalisation and reductions are made of. The
// order of a sum depends on the row's length alone.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/tensor/dtype.h"

namespace tenon::cpu {

inline constexpr size_t kColumnBlock = 16;

struct RowOps {
  float (*max)(const float* x, size_t n);  // -inf for n = 0; NaN if any is NaN
  float (*min)(const float* x, size_t n);
  float (*sum)(const float* x, size_t n);
  float (*dot)(const float* x, const float* y, size_t n);
  float (*sum_square_diff)(const float* x, size_t n, float center);  // sum of (x - center)^2
  // Sum of exp(x - shift); the terms are stored where `out` is not null.
  float (*exp_sum)(const float* x, size_t n, float shift, float* out);
  void (*scale)(const float* x, size_t n, float a, float* out);                            // a x
  void (*shift)(const float* x, size_t n, float a, float b, float* out);                   // (x - a) - b
  void (*softmax_grad)(const float* y, const float* dy, size_t n, float sum, float* out);  // y (dy - sum)
  void (*log_softmax_grad)(const float* y, const float* dy, size_t n, float sum,
                           float* out);  // dy - exp(y) sum
  void (*center_scale)(const float* x, size_t n, float mean, float a, float b,
                       float* out);                                             // (x - mean) a + b
  float (*dot_centered)(const float* x, const float* y, size_t n, float mean);  // sum of y (x - mean)
  // a y + b (x - mean) + c
  void (*combine)(const float* x, const float* y, size_t n, float a, float b, float mean, float c,
                  float* out);
  void (*add_to)(const float* x, size_t n, float* acc);  // acc += x
  void (*max_to)(const float* x, size_t n, float* acc);  // NaN wins
  void (*min_to)(const float* x, size_t n, float* acc);
  // out = ((x - mean) rstd) gamma + beta
  void (*normalize)(const float* x, size_t n, float mean, float rstd, const float* gamma, const float* beta,
                    float* out);
  // Derivative of a normalised row: with h = (x - mean) rstd and u = gamma dy, dgamma += dy h, dbeta += dy
  // and dx = rstd (u - mean(u) - h mean(u h)); without the mean(u) term unless `centred`.
  void (*normalize_grad)(const float* x, const float* gamma, const float* dy, size_t n, float mean,
                         float rstd, bool centred, float* dgamma, float* dbeta, float* dx);
  // Maxima of the 2 x 2 windows of two rows of 2 n elements; NaN wins.
  void (*max_windows)(const float* row0, const float* row1, size_t n, float* out);
  // dy put where the first maximum of each window is, 0 elsewhere in the two rows.
  void (*max_windows_grad)(const float* row0, const float* row1, const float* dy, size_t n, float* dx0,
                           float* dx1);
  // Columns of kColumnBlock elements, one after the other: element j of row r at x[j * kColumnBlock + r].
  // `out` gets one value a row, folded over the n columns in order.
  void (*columns_max)(const float* x, size_t n, float* out);  // NaN if any is NaN
  void (*columns_sum)(const float* x, size_t n, float* out);
  void (*columns_dot)(const float* x, const float* y, size_t n, float* out);
  // x becomes exp(x - shift), with one shift a row.
  void (*columns_exp_sum)(float* x, size_t n, const float* shift, float* out);
  void (*columns_log)(const float* x, float* out);  // of one column
  void (*expand)(const bf16* x, size_t n, float* out);
  void (*shrink)(const float* x, size_t n, bf16* out);
};

// The loops for this machine.
const RowOps& row_ops();

}  // namespace tenon::cpu
