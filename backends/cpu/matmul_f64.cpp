// Products of f64 matrices: operands are packed in panels, from any strides, and multiplied block by block
// (Goto & van de Geijn 2008, "Anatomy of high-performance matrix multiplication"). Each sum is made in the
// order of k, whatever the number of threads.
#include <omp.h>

#include <algorithm>
#include <array>

#include "backends/cpu/gemm_f64.h"
#include "backends/cpu/kernels.h"
#include "backends/cpu/parallel.h"
#include "core/ops/kernel_util.h"

namespace tenon::cpu {
namespace {

constexpr int64_t kDepth = 256;   // of a packed panel: 16 columns of it lie in the first cache
constexpr int64_t kRowBlock = 64;  // rows that a thread packs at a time, for the second cache
constexpr int64_t kThreadWork = int64_t{1} << 18;  // multiplications that are worth another thread

int64_t rounded_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// [rows, cols] with strides in elements.
struct Matrix {
  int64_t rows, cols, row_stride, col_stride;
  Matrix(const Layout& l, bool transposed) {
    const int r = l.shape.rank() - 2, c = r + 1;
    rows = l.shape[r], cols = l.shape[c], row_stride = l.strides[r], col_stride = l.strides[c];
    if (transposed) std::swap(rows, cols), std::swap(row_stride, col_stride);
  }
};

// Panels of `width` rows of x, depth elements each, one depth after the other; missing rows are 0.
void pack(const double* x, int64_t rows, int64_t row_stride, int64_t depth, int64_t stride, int64_t width, double* out) {
  for (int64_t first = 0; first < rows; first += width) {
    const int64_t some = std::min(width, rows - first);
    for (int64_t k = 0; k < depth; ++k, out += width) {
      for (int64_t r = 0; r < some; ++r) out[r] = x[(first + r) * row_stride + k * stride];
      std::fill(out + some, out + width, 0.0);
    }
  }
}

class MatmulF64 final : public Kernel {
 public:
  MatmulF64(const Context& context, const Piece& piece)
      : a_(piece.inputs[0], piece.nodes[0].attrs.flag("transpose_a")),
        b_(piece.inputs[1], piece.nodes[0].attrs.flag("transpose_b")) {
    const Shape& c = piece.nodes[0].outputs[0].shape;
    batch_ = Shape(std::span(c.begin(), static_cast<size_t>(c.rank() - 2)));
    for (size_t i = 0; i < 2; ++i) {
      const Layout& l = piece.inputs[i];
      const auto n = static_cast<size_t>(l.shape.rank() - 2);
      const Layout batch(l.dtype, Shape(std::span(l.shape.begin(), n)), Strides(std::span(l.strides.begin(), n)));
      batch_strides_[i] = broadcast_strides(batch, batch_);
    }
    const int64_t work = a_.rows * a_.cols * b_.cols;
    threads_ = static_cast<int>(std::clamp<int64_t>(work / kThreadWork, 1, context.threads));
    depth_ = std::min(a_.cols, kDepth);
    packed_b_ = rounded_up(b_.cols, gemm_.cols) * depth_;
    packed_a_ = rounded_up(std::min(a_.rows, kRowBlock), gemm_.rows) * depth_;
  }

  Status run(std::span<void* const> in, std::span<void* const> out, void* scratch) override {
    double* c = static_cast<double*>(out[0]);
    for_each_offset<2>(batch_, batch_strides_, [&](int64_t at_a, int64_t at_b) {
      multiply(static_cast<const double*>(in[0]) + at_a, static_cast<const double*>(in[1]) + at_b, c,
               static_cast<double*>(scratch));
      c += a_.rows * b_.cols;
    });
    return Status::ok();
  }
  size_t scratch_bytes() const override {
    return static_cast<size_t>(packed_b_ + threads_ * packed_a_) * sizeof(double);
  }
  std::string_view name() const override { return "cpu:gemm_f64"; }

 private:
  void multiply(const double* a, const double* b, double* c, double* scratch) const {
    for (int64_t k = 0; k < a_.cols; k += depth_) {
      const int64_t depth = std::min(depth_, a_.cols - k);
      parallel_for(threads_, b_.cols, rounded_up(kRowBlock, gemm_.cols), [&](int64_t begin, int64_t end) {
        pack(b + k * b_.row_stride + begin * b_.col_stride, end - begin, b_.col_stride, depth, b_.row_stride, gemm_.cols,
             scratch + begin * depth);
      });
      parallel_for(threads_, a_.rows, kRowBlock, [&](int64_t begin, int64_t end) {
        double* mine = scratch + packed_b_ + omp_get_thread_num() * packed_a_;
        for (int64_t first = begin; first < end; first += kRowBlock) {
          const int64_t rows = std::min(kRowBlock, end - first);
          pack(a + first * a_.row_stride + k * a_.col_stride, rows, a_.row_stride, depth, a_.col_stride, gemm_.rows, mine);
          multiply_rows(mine, scratch, rows, depth, c + first * b_.cols, k > 0);
        }
      });
    }
  }

  void multiply_rows(const double* a, const double* b, int64_t rows, int64_t depth, double* c, bool add) const {
    const int64_t n = b_.cols;
    for (int64_t j = 0; j < n; j += gemm_.cols)
      for (int64_t i = 0; i < rows; i += gemm_.rows) {
        const int64_t r = std::min(gemm_.rows, rows - i), s = std::min(gemm_.cols, n - j);
        double* to = c + i * n + j;
        if (r == gemm_.rows && s == gemm_.cols) {
          gemm_.block(a + i * depth, b + j * depth, depth, to, n, add);
          continue;
        }
        std::array<double, kMostOfBlock> block;
        if (add)
          for (int64_t y = 0; y < r; ++y) std::copy_n(to + y * n, s, block.data() + y * gemm_.cols);
        gemm_.block(a + i * depth, b + j * depth, depth, block.data(), gemm_.cols, add);
        for (int64_t y = 0; y < r; ++y) std::copy_n(block.data() + y * gemm_.cols, s, to + y * n);
      }
  }

  static constexpr size_t kMostOfBlock = 8 * 16;
  const GemmF64& gemm_ = gemm_f64();
  Matrix a_, b_;
  Shape batch_;
  std::array<Strides, 2> batch_strides_;
  int threads_ = 1;
  int64_t depth_ = 0, packed_a_ = 0, packed_b_ = 0;  // elements
};

}  // namespace

std::unique_ptr<Kernel> make_matmul_f64(Context& context, const Piece& piece) {
  if (piece.inputs[0].numel() == 0 || piece.inputs[1].numel() == 0) return nullptr;
  return std::make_unique<MatmulF64>(context, piece);
}

}  // namespace tenon::cpu
