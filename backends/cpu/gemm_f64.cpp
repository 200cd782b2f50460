#include "backends/cpu/gemm_f64.h"

#include <algorithm>

#include "backends/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/gemm_f64.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "backends/cpu/partial-inl.h"

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

// A product with a vector is eight sums a row, which take turns as k goes on, so that one addition need not
// wait for the last; in the end they are added to each other, those four apart, two apart, neighbours. Every
// row has this order, however the matrix lies.
constexpr int kTurns = 8;

// The sums of a row as lanes.
using Turns = hn::CappedTag<double, kTurns>;
constexpr int kTurnLanes = static_cast<int>(hn::MaxLanes(Turns())), kTurnVectors = kTurns / kTurnLanes;

// Rows of memory.
template <int kCount>
void some_dots(const double* a, int64_t stride, const double* x, int64_t depth, double* y) {
  const Turns d;
  hn::Vec<Turns> sums[kCount][kTurnVectors];
  for (auto& row : sums)
    for (auto& s : row) s = hn::Zero(d);
  int64_t k = 0;
  for (; k + kTurns <= depth; k += kTurns)
#pragma GCC unroll 8
    for (int t = 0; t < kTurnVectors; ++t) {
      const auto xk = hn::LoadU(d, x + k + t * kTurnLanes);
#pragma GCC unroll 8
      for (int r = 0; r < kCount; ++r)
        sums[r][t] = hn::MulAdd(hn::LoadU(d, a + r * stride + k + t * kTurnLanes), xk, sums[r][t]);
    }
#pragma GCC unroll 8
  for (int t = 0; t < kTurnVectors; ++t, k += kTurnLanes) {
    if (k >= depth) break;
    const auto n = static_cast<size_t>(std::min<int64_t>(depth - k, kTurnLanes));
    const auto some = hn::FirstN(d, n);
    const auto xk = load_first(d, x + k, n);
    for (int r = 0; r < kCount; ++r) {
      const auto sum = hn::MulAdd(load_first(d, a + r * stride + k, n), xk, sums[r][t]);
      sums[r][t] = hn::IfThenElse(some, sum, sums[r][t]);  // the others would lose a sign of zero
    }
  }
  for (int r = 0; r < kCount; ++r) {
    double s[kTurns];
    for (int t = 0; t < kTurnVectors; ++t) hn::StoreU(sums[r][t], d, s + t * kTurnLanes);
    y[r] = ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
  }
}

void dots(const double* a, int64_t stride, const double* x, int64_t rows, int64_t depth, double* y) {
  constexpr int kAtOnce = 8 / kTurnVectors;
  int64_t r = 0;
  for (; r + kAtOnce <= rows; r += kAtOnce) some_dots<kAtOnce>(a + r * stride, stride, x, depth, y + r);
  for (; r < rows; ++r) some_dots<1>(a + r * stride, stride, x, depth, y + r);
}

// Columns of memory: lanes are rows. Blocks of rows whose sums stay in registers while all columns go by.
constexpr int kBlocks = HWY_TARGET <= HWY_AVX3 ? 3 : 1;

template <int kCount, class Load>
void some_columns(const double* x, int64_t depth, Load&& load, V (&result)[kCount]) {
  const D d;
  V sums[kCount][kTurns];
  for (auto& block : sums)
    for (V& s : block) s = hn::Zero(d);
  const auto add = [&](int64_t k, int t) HWY_ATTR {
    const V xk = hn::Set(d, x[k]);
#pragma GCC unroll 4
    for (int p = 0; p < kCount; ++p) sums[p][t] = hn::MulAdd(load(k, p), xk, sums[p][t]);
  };
  int64_t k = 0;
  for (; k + kTurns <= depth; k += kTurns)
#pragma GCC unroll 8
    for (int t = 0; t < kTurns; ++t) add(k + t, t);
#pragma GCC unroll 8
  for (int t = 0; t < kTurns - 1; ++t)
    if (k + t < depth) add(k + t, t);
  for (int p = 0; p < kCount; ++p) {
    for (int apart = kTurns / 2; apart > 0; apart /= 2)
      for (int t = 0; t < apart; ++t) sums[p][t] = hn::Add(sums[p][t], sums[p][t + apart]);
    result[p] = sums[p][0];
  }
}

void columns(const double* a, int64_t stride, const double* x, int64_t rows, int64_t depth, double* y) {
  const D d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t r = 0;
  for (; r + kBlocks * lanes <= rows; r += kBlocks * lanes) {
    V sums[kBlocks];
    some_columns(
        x, depth, [&](int64_t k, int p) HWY_ATTR { return hn::LoadU(d, a + k * stride + r + p * lanes); },
        sums);
    for (int p = 0; p < kBlocks; ++p) hn::StoreU(sums[p], d, y + r + p * lanes);
  }
  for (; r < rows; r += lanes) {
    const auto n = static_cast<size_t>(std::min(lanes, rows - r));
    V sums[1];
    some_columns(
        x, depth, [&](int64_t k, int) HWY_ATTR { return load_first(d, a + k * stride + r, n); }, sums);
    store_first(sums[0], d, y + r, n);
  }
}

}  // namespace

const GemmF64* gemm_f64_for_target() {
  const auto lanes = static_cast<int64_t>(hn::Lanes(D()));
  static const GemmF64 gemm{kRows, kVectors * lanes, block, kBlocks * lanes, dots, columns};
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
