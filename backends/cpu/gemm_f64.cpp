#include "backends/cpu/gemm_f64.h"

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

}  // namespace

const GemmF64* gemm_f64_for_target() {
  static const GemmF64 gemm{kRows, kVectors * static_cast<int64_t>(hn::Lanes(D())), block};
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
