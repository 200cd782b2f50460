#include "backends/cpu/product_f64.h"

#include <omp.h>

#include <algorithm>
#include <array>

#include "backends/cpu/gemm_f64.h"
#include "backends/cpu/parallel.h"

namespace tenon::cpu {
namespace {

constexpr int64_t kDepth = 256;    // of a packed panel: 16 columns of it lie in the first cache
constexpr int64_t kRowBlock = 64;  // rows that a thread packs at a time, for the second cache
constexpr int64_t kThreadWork = int64_t{1} << 18;  // multiplications that are worth another thread
constexpr size_t kMostOfBlock = 8 * 16;

int64_t rounded_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// Panels of `width` rows of x times `factor`, depth elements each, one depth after the other; missing rows are 0.
void pack(const double* x, int64_t rows, int64_t row_stride, int64_t depth, int64_t stride, int64_t width, double factor,
          double* out) {
  for (int64_t first = 0; first < rows; first += width) {
    const int64_t some = std::min(width, rows - first);
    for (int64_t k = 0; k < depth; ++k, out += width) {
      for (int64_t r = 0; r < some; ++r) out[r] = factor * x[(first + r) * row_stride + k * stride];
      std::fill(out + some, out + width, 0.0);
    }
  }
}

int threads_for(int64_t work, int threads) { return static_cast<int>(std::clamp<int64_t>(work / kThreadWork, 1, threads)); }

struct Sizes {
  int64_t depth, packed_a, packed_b;  // elements, a's for each thread
  Sizes(const GemmF64& gemm, int64_t rows, int64_t of_depth, int64_t cols)
      : depth(std::min(of_depth, kDepth)),
        packed_a(rounded_up(std::min(rows, kRowBlock), gemm.rows) * depth),
        packed_b(rounded_up(cols, gemm.cols) * depth) {}
};

void multiply_rows(const GemmF64& gemm, const double* a, const double* b, int64_t rows, int64_t depth, int64_t cols, double* c,
                   int64_t ldc, bool add) {
  for (int64_t j = 0; j < cols; j += gemm.cols)
    for (int64_t i = 0; i < rows; i += gemm.rows) {
      const int64_t r = std::min(gemm.rows, rows - i), s = std::min(gemm.cols, cols - j);
      double* to = c + i * ldc + j;
      if (r == gemm.rows && s == gemm.cols) {
        gemm.block(a + i * depth, b + j * depth, depth, to, ldc, add);
        continue;
      }
      std::array<double, kMostOfBlock> block;
      if (add)
        for (int64_t y = 0; y < r; ++y) std::copy_n(to + y * ldc, s, block.data() + y * gemm.cols);
      gemm.block(a + i * depth, b + j * depth, depth, block.data(), gemm.cols, add);
      for (int64_t y = 0; y < r; ++y) std::copy_n(block.data() + y * gemm.cols, s, to + y * ldc);
    }
}

}  // namespace

int64_t product_f64_scratch(int64_t rows, int64_t depth, int64_t cols, int threads) {
  const Sizes sizes(gemm_f64(), rows, depth, cols);
  return sizes.packed_b + threads_for(rows * depth * cols, threads) * sizes.packed_a;
}

void product_f64(StridedF64 a, StridedF64 b, int64_t rows, int64_t depth, int64_t cols, double* c, int64_t ldc, Into into,
                 int threads, double* scratch) {
  const GemmF64& gemm = gemm_f64();
  const Sizes sizes(gemm, rows, depth, cols);
  const double sign = into == Into::subtract ? -1 : 1;
  const int team = threads_for(rows * depth * cols, threads);
  for (int64_t k = 0; k < depth; k += sizes.depth) {
    const int64_t some = std::min(sizes.depth, depth - k);
    const bool add = into != Into::assign || k > 0;
    parallel_for(team, cols, rounded_up(kRowBlock, gemm.cols), [&](int64_t begin, int64_t end) {
      pack(b.data + k * b.row_stride + begin * b.col_stride, end - begin, b.col_stride, some, b.row_stride, gemm.cols, 1,
           scratch + begin * some);
    });
    parallel_for(team, rows, kRowBlock, [&](int64_t begin, int64_t end) {
      double* mine = scratch + sizes.packed_b + omp_get_thread_num() * sizes.packed_a;
      for (int64_t first = begin; first < end; first += kRowBlock) {
        const int64_t n = std::min(kRowBlock, end - first);
        pack(a.data + first * a.row_stride + k * a.col_stride, n, a.row_stride, some, a.col_stride, gemm.rows, sign, mine);
        multiply_rows(gemm, mine, scratch, n, some, cols, c + first * ldc, ldc, add);
      }
    });
  }
}

void product_with_vector_f64(StridedF64 a, const double* x, int64_t rows, int64_t depth, double* y, int threads) {
  const GemmF64& gemm = gemm_f64();
  const int64_t grain = rounded_up(std::max<int64_t>(kMovedGrain / depth, 1), gemm.vector_rows);
  parallel_for(threads, rows, grain, [&](int64_t begin, int64_t end) {
    const double* first = a.data + begin * a.row_stride;
    if (a.col_stride == 1) gemm.dots(first, a.row_stride, x, end - begin, depth, y + begin);
    else gemm.columns(first, a.col_stride, x, end - begin, depth, y + begin);
  });
}

}  // namespace tenon::cpu
