#include "backends/cpu/pair_gemm.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "backends/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/pair_gemm.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "backends/cpu/tile_math-inl.h"

// The two halves of a word as f32 are the word shifted up, and the word without its lower half.
HWY_BEFORE_NAMESPACE();
namespace tenon::cpu::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using D = hn::CappedTag<float, 16>;
using W = hn::RebindToUnsigned<D>;

hn::Vec<D> first_half(hn::Vec<W> w) { return hn::BitCast(D(), hn::ShiftLeft<16>(w)); }
hn::Vec<D> second_half(hn::Vec<W> w) { return hn::BitCast(D(), hn::And(w, hn::Set(W(), 0xffff0000u))); }

// R rows and one vector of columns; `lanes` of them are there.
template <int R>
void block(int64_t depth, PairMatrix a, const uint32_t* b, int64_t ldb, float scale, float* c, int64_t ldc,
           bool add, size_t lanes) {
  const W w;
  const D d;
  HWY_ALIGN uint32_t edge[16] = {};
  HWY_ALIGN float result[16];
  const bool whole = lanes == hn::Lanes(d);
  hn::Vec<D> sums[R];
  for (int r = 0; r < R; ++r) sums[r] = hn::Zero(d);
  for (int64_t k = 0; k < depth; ++k) {
    if (!whole) std::copy_n(b + k * ldb, lanes, edge);
    const hn::Vec<W> y = whole ? hn::LoadU(w, b + k * ldb) : hn::Load(w, edge);
    const hn::Vec<D> y0 = first_half(y), y1 = second_half(y);
    for (int r = 0; r < R; ++r) {
      const hn::Vec<W> x = hn::Set(w, a.words[r * a.row + k * a.step]);
      sums[r] = hn::MulAdd(second_half(x), y1, hn::MulAdd(first_half(x), y0, sums[r]));
    }
  }
  for (int r = 0; r < R; ++r) {
    hn::Store(hn::Mul(sums[r], hn::Set(d, scale)), d, result);
    for (size_t j = 0; j < lanes; ++j) {
      float& to = c[r * ldc + static_cast<int64_t>(j)];
      to = add ? to + result[j] : result[j];
    }
  }
}

void multiply(int64_t m, int64_t n, int64_t depth, PairMatrix a, const uint32_t* b, int64_t ldb, float scale,
              float* c, int64_t ldc, bool add) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(D()));
  for (int64_t j = 0; j < n; j += lanes) {
    const auto count = static_cast<size_t>(std::min(lanes, n - j));
    int64_t i = 0;
    const auto rows = [&](auto f, int64_t step) {
      for (; i + step <= m; i += step)
        f(depth, PairMatrix{a.words + i * a.row, a.row, a.step}, b + j, ldb, scale, c + i * ldc + j, ldc, add,
          count);
    };
    rows(block<4>, 4);
    rows(block<1>, 1);
  }
}

// load(row, column) gives a vector of words whose lower halves are the elements there, one(row, column) the
// first.
template <class Load, class One>
void pair_columns(int64_t rows, int64_t cols, uint32_t* out, Load&& load, One&& one) {
  const W w;
  const auto lanes = static_cast<int64_t>(hn::Lanes(w));
  for (int64_t r = 0; r < rows; r += 2, out += cols) {
    const bool both = r + 1 < rows;
    int64_t c = 0;
    for (; c + lanes <= cols; c += lanes) {
      const auto first = load(r, c), second = both ? load(r + 1, c) : hn::Zero(w);
      hn::StoreU(hn::Or(first, hn::ShiftLeft<16>(second)), w, out + c);
    }
    for (; c < cols; ++c) out[c] = one(r, c) | (both ? one(r + 1, c) << 16 : 0u);
  }
}

void along_columns(const bf16* x, int64_t rows, int64_t cols, int64_t row_stride, uint32_t* out) {
  const hn::Rebind<uint16_t, W> half;
  pair_columns(
      rows, cols, out,
      [&](int64_t r, int64_t c) {
        return hn::PromoteTo(W(), hn::LoadU(half, reinterpret_cast<const uint16_t*>(x + r * row_stride + c)));
      },
      [&](int64_t r, int64_t c) { return static_cast<uint32_t>(x[r * row_stride + c].bits); });
}

void round_along_columns(const float* x, int64_t rows, int64_t cols, int64_t row_stride, uint32_t* out) {
  pair_columns(
      rows, cols, out,
      [&](int64_t r, int64_t c) {
        return hn::ShiftRight<16>(
            hn::BitCast(W(), round_to_bf16(D(), hn::LoadU(D(), x + r * row_stride + c))));
      },
      [&](int64_t r, int64_t c) { return static_cast<uint32_t>(bf16(x[r * row_stride + c]).bits); });
}

// Four rows of four words at a time.
void along_rows_transposed(const bf16* x, int64_t rows, int64_t cols, int64_t row_stride, uint32_t* out) {
  const auto one = [&](int64_t r, int64_t c) {
    const bf16* const at = x + r * row_stride + c;
    out[c / 2 * rows + r] = at[0].bits | (c + 1 < cols ? static_cast<uint32_t>(at[1].bits) << 16 : 0u);
  };
  int64_t r = 0;
#if HWY_TARGET != HWY_SCALAR
  const hn::FixedTag<uint32_t, 4> d;
  const hn::RepartitionToWide<decltype(d)> wide;
  for (; r + 4 <= rows; r += 4) {
    const auto load = [&](int64_t i, int64_t c) {
      return hn::LoadU(d, reinterpret_cast<const uint32_t*>(x + (r + i) * row_stride + c));
    };
    int64_t c = 0;
    for (; c + 8 <= cols; c += 8) {
      const auto a = load(0, c), b = load(1, c), e = load(2, c), f = load(3, c);
      const auto low0 = hn::BitCast(wide, hn::InterleaveLower(d, a, b)),
                 low1 = hn::BitCast(wide, hn::InterleaveLower(d, e, f)),
                 high0 = hn::BitCast(wide, hn::InterleaveUpper(d, a, b)),
                 high1 = hn::BitCast(wide, hn::InterleaveUpper(d, e, f));
      uint32_t* const to = out + c / 2 * rows + r;
      hn::StoreU(hn::BitCast(d, hn::InterleaveLower(wide, low0, low1)), d, to);
      hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(wide, low0, low1)), d, to + rows);
      hn::StoreU(hn::BitCast(d, hn::InterleaveLower(wide, high0, high1)), d, to + 2 * rows);
      hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(wide, high0, high1)), d, to + 3 * rows);
    }
    for (; c < cols; c += 2)
      for (int64_t i = 0; i < 4; ++i) one(r + i, c);
  }
#endif
  for (; r < rows; ++r)
    for (int64_t c = 0; c < cols; c += 2) one(r, c);
}

}  // namespace

const PairGemm* pair_gemm_for_target() {
  static const PairGemm gemm{multiply, along_columns, round_along_columns, along_rows_transposed};
  return &gemm;
}

}  // namespace tenon::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#if HWY_ARCH_X86
#include <immintrin.h>

HWY_PUSH_ATTRIBUTES("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")
namespace tenon::cpu {
namespace {

// R rows and V vectors of columns, of the last of which `mask` are there.
template <int R, int V>
void block_avx512_bf16(int64_t depth, PairMatrix a, const uint32_t* b, int64_t ldb, float scale, float* c,
                       int64_t ldc, bool add, __mmask16 mask) {
  __m512 sums[R][V];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) sums[r][v] = _mm512_setzero_ps();
  for (int64_t k = 0; k < depth; ++k, b += ldb, a.words += a.step) {
    __m512i y[V];
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v)
      y[v] = v + 1 < V ? _mm512_loadu_si512(b + 16 * v) : _mm512_maskz_loadu_epi32(mask, b + 16 * v);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const __m512i x = _mm512_set1_epi32(static_cast<int>(a.words[r * a.row]));
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v)
        sums[r][v] =
            _mm512_dpbf16_ps(sums[r][v], reinterpret_cast<__m512bh>(x), reinterpret_cast<__m512bh>(y[v]));
    }
  }
  const __m512 factor = _mm512_set1_ps(scale);
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) {
      float* const to = c + r * ldc + 16 * v;
      const __mmask16 m = v + 1 < V ? static_cast<__mmask16>(0xffff) : mask;
      const __m512 value = _mm512_mul_ps(sums[r][v], factor);
      _mm512_mask_storeu_ps(to, m, add ? _mm512_add_ps(_mm512_maskz_loadu_ps(m, to), value) : value);
    }
}

template <int V>
void columns_avx512_bf16(int64_t m, int64_t depth, PairMatrix a, const uint32_t* b, int64_t ldb, float scale,
                         float* c, int64_t ldc, bool add, __mmask16 mask) {
  int64_t i = 0;
  const auto rows = [&](auto f, int64_t step) {
    for (; i + step <= m; i += step)
      f(depth, PairMatrix{a.words + i * a.row, a.row, a.step}, b, ldb, scale, c + i * ldc, ldc, add, mask);
  };
  rows(block_avx512_bf16<8, V>, 8);
  rows(block_avx512_bf16<4, V>, 4);
  rows(block_avx512_bf16<1, V>, 1);
}

void multiply_avx512_bf16(int64_t m, int64_t n, int64_t depth, PairMatrix a, const uint32_t* b, int64_t ldb,
                          float scale, float* c, int64_t ldc, bool add) {
  for (int64_t j = 0; j < n; j += 32) {
    const int64_t left = n - j, last = left > 16 ? std::min<int64_t>(left - 16, 16) : left;
    const auto mask = static_cast<__mmask16>((1u << last) - 1);
    const auto columns = left > 16 ? columns_avx512_bf16<2> : columns_avx512_bf16<1>;
    columns(m, depth, a, b + j, ldb, scale, c + j, ldc, add, mask);
  }
}

}  // namespace
}  // namespace tenon::cpu
HWY_POP_ATTRIBUTES
#endif

namespace tenon::cpu {

HWY_EXPORT(pair_gemm_for_target);
const PairGemm& portable_pair_gemm() { return *HWY_DYNAMIC_DISPATCH(pair_gemm_for_target)(); }

const PairGemm& pair_gemm() {
#if HWY_ARCH_X86
  static const PairGemm gemm = [] {
    PairGemm g = portable_pair_gemm();
    g.multiply = multiply_avx512_bf16;
    return g;
  }();
  static const bool has = (hwy::SupportedTargets() & HWY_AVX3) && __builtin_cpu_supports("avx512bf16") &&
                          __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                          __builtin_cpu_supports("avx512dq");
  if (has) return gemm;
#endif
  return portable_pair_gemm();
}

// Two neighbours in memory are a word as it is.
static_assert(std::endian::native == std::endian::little);

void pair_along_rows(const bf16* x, int64_t rows, int64_t cols, int64_t row_stride, uint32_t* out) {
  const int64_t words = (cols + 1) / 2;
  for (int64_t r = 0; r < rows; ++r, x += row_stride, out += words) {
    if (cols % 2) out[words - 1] = 0;
    std::memcpy(out, x, static_cast<size_t>(cols) * sizeof(bf16));
  }
}

}  // namespace tenon::cpu
#endif
