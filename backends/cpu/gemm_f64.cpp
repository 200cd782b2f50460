#include "backends/cpu/gemm_f64.h"

#include <algorithm>

#include "backends/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/gemm_f64.cpp"
#include <hwy/foreach_target.h>

#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace tenon::cpu::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using D = hn::CappedTag<double, 8>;
using V = hn::Vec<D>;

// As many sums as there are registers for: 32 with AVX-512, else 16.
constexpr int kRows = HWY_TARGET <= HWY_AVX3 ? 8 : 4, kVectors = 2;

void block(const double* HWY_RESTRICT a, const double* HWY_RESTRICT b, int64_t depth, double* HWY_RESTRICT c,
           int64_t ldc, bool add) {
  const D d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  V sums[kRows][kVectors];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) sums[r][v] = add ? hn::LoadU(d, c + r * ldc + v * lanes) : hn::Zero(d);
  for (int64_t k = 0; k < depth; ++k, a += kRows, b += kVectors * lanes) {
    const V b0 = hn::LoadU(d, b), b1 = hn::LoadU(d, b + lanes);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const V x = hn::Set(d, a[r]);
      sums[r][0] = hn::MulAdd(x, b0, sums[r][0]);
      sums[r][1] = hn::MulAdd(x, b1, sums[r][1]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) hn::StoreU(sums[r][v], d, c + r * ldc + v * lanes);
}

// Four sums of vectors a row, so that one addition need not wait for the last.
constexpr int kParts = 4;

double dot(const double* HWY_RESTRICT a, const double* HWY_RESTRICT x, int64_t n) {
  const D d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  V sums[kParts];
  for (V& s : sums) s = hn::Zero(d);
  int64_t k = 0;
  for (; k + kParts * lanes <= n; k += kParts * lanes)
#pragma GCC unroll 4
    for (int p = 0; p < kParts; ++p) sums[p] = hn::MulAdd(hn::LoadU(d, a + k + p * lanes), hn::LoadU(d, x + k + p * lanes), sums[p]);
  for (; k + lanes <= n; k += lanes) sums[0] = hn::MulAdd(hn::LoadU(d, a + k), hn::LoadU(d, x + k), sums[0]);
  double sum = hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(sums[0], sums[1]), hn::Add(sums[2], sums[3]))));
  for (; k < n; ++k) sum += a[k] * x[k];
  return sum;
}

void dots(const double* a, int64_t stride, const double* x, int64_t rows, int64_t depth, double* y) {
  for (int64_t r = 0; r < rows; ++r) y[r] = dot(a + r * stride, x, depth);
}

// Rows [r, r + lanes), or the first n of them: four sums that take turns, as in dot.
void few_columns(const double* a, int64_t stride, const double* x, int64_t n, int64_t depth, double* y) {
  const D d;
  const auto some = hn::FirstN(d, static_cast<size_t>(n));
  V sums[kParts];
  for (V& s : sums) s = hn::Zero(d);
  int64_t k = 0;
  for (; k + kParts <= depth; k += kParts)
#pragma GCC unroll 4
    for (int p = 0; p < kParts; ++p) sums[p] = hn::MulAdd(hn::MaskedLoad(some, d, a + (k + p) * stride), hn::Set(d, x[k + p]), sums[p]);
  for (; k < depth; ++k) sums[0] = hn::MulAdd(hn::MaskedLoad(some, d, a + k * stride), hn::Set(d, x[k]), sums[0]);
  const V sum = hn::Add(hn::Add(sums[0], sums[1]), hn::Add(sums[2], sums[3]));
  hn::BlendedStore(sum, some, d, y);
}

// A block of rows stays in registers while all columns go by.
void columns(const double* a, int64_t stride, const double* x, int64_t rows, int64_t depth, double* y) {
  const D d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t r = 0;
  for (; r + kParts * lanes <= rows; r += kParts * lanes) {
    V sums[kParts];
    for (V& s : sums) s = hn::Zero(d);
    for (int64_t k = 0; k < depth; ++k) {
      const V xk = hn::Set(d, x[k]);
#pragma GCC unroll 4
      for (int p = 0; p < kParts; ++p) sums[p] = hn::MulAdd(hn::LoadU(d, a + k * stride + r + p * lanes), xk, sums[p]);
    }
    for (int p = 0; p < kParts; ++p) hn::StoreU(sums[p], d, y + r + p * lanes);
  }
  for (; r < rows; r += lanes) few_columns(a + r, stride, x, std::min(lanes, rows - r), depth, y + r);
}

}  // namespace

const GemmF64* gemm_f64_for_target() {
  const auto lanes = static_cast<int64_t>(hn::Lanes(D()));
  static const GemmF64 gemm{kRows, kVectors * lanes, block, kParts * lanes, dots, columns};
  return &gemm;
}

}  // namespace tenon::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tenon::cpu {

HWY_EXPORT(gemm_f64_for_target);
const GemmF64& gemm_f64() { return *HWY_DYNAMIC_DISPATCH(gemm_f64_for_target)(); }

}  // namespace tenon::cpu
#endif
