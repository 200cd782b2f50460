// matmul of f64, which oneDNN has not.
#include <algorithm>
#include <array>

#include "backends/cpu/kernels.h"
#include "backends/cpu/product_f64.h"
#include "core/ops/kernel_util.h"

namespace tenon::cpu {
namespace {

// [rows, cols] with strides in elements.
struct Matrix {
  int64_t rows, cols, row_stride, col_stride;
  Matrix(const Layout& l, bool transposed) {
    const int r = l.shape.rank() - 2, c = r + 1;
    rows = l.shape[r], cols = l.shape[c], row_stride = l.strides[r], col_stride = l.strides[c];
    if (transposed) std::swap(rows, cols), std::swap(row_stride, col_stride);
  }
  StridedF64 at(const double* data) const { return {data, row_stride, col_stride}; }
  StridedF64 transposed_at(const double* data) const { return {data, col_stride, row_stride}; }
  bool dense() const { return row_stride == 1 || col_stride == 1; }
};

}  // namespace

// A product with a vector sums in another order than one of matrices, so it must be one wherever the operands lie.
uint32_t matmul_f64_wants_contiguous(const Piece& piece) {
  const Matrix a(piece.inputs[0], piece.nodes[0].attrs.flag("transpose_a")),
      b(piece.inputs[1], piece.nodes[0].attrs.flag("transpose_b"));
  if (a.rows != 1 && b.cols != 1) return 0;
  const bool b_is_vector = b.cols == 1;
  const auto fits = [](const Matrix& m, bool vector, int64_t size, int64_t stride) {
    return vector ? size == 1 || stride == 1 : m.dense();
  };
  return (fits(a, !b_is_vector, a.cols, a.col_stride) ? 0u : 1u) |
         (fits(b, b_is_vector, b.rows, b.row_stride) ? 0u : 2u);
}

namespace {

class MatmulF64 : public Kernel {
 public:
  MatmulF64(const Context& context, const Piece& piece)
      : a_(piece.inputs[0], piece.nodes[0].attrs.flag("transpose_a")),
        b_(piece.inputs[1], piece.nodes[0].attrs.flag("transpose_b")),
        threads_(context.threads) {
    const Shape& c = piece.nodes[0].outputs[0].shape;
    batch_ = Shape(std::span(c.begin(), static_cast<size_t>(c.rank() - 2)));
    for (size_t i = 0; i < 2; ++i) {
      const Layout& l = piece.inputs[i];
      const auto n = static_cast<size_t>(l.shape.rank() - 2);
      const Layout batch(l.dtype, Shape(std::span(l.shape.begin(), n)), Strides(std::span(l.strides.begin(), n)));
      batch_strides_[i] = broadcast_strides(batch, batch_);
    }
    if ((a_.rows == 1 || b_.cols == 1) && matmul_f64_wants_contiguous(piece) == 0)
      vector_ = b_.cols == 1 ? Vector::b : Vector::a;
  }

  Status run(std::span<void* const> in, std::span<void* const> out, void* scratch) override {
    double* c = static_cast<double*>(out[0]);
    for_each_offset<2>(batch_, batch_strides_, [&](int64_t at_a, int64_t at_b) {
      multiply(static_cast<const double*>(in[0]) + at_a, static_cast<const double*>(in[1]) + at_b, c, static_cast<double*>(scratch));
      c += a_.rows * b_.cols;
    });
    return Status::ok();
  }
  size_t scratch_bytes() const override {
    if (vector_ != Vector::none) return 0;
    return static_cast<size_t>(product_f64_scratch(a_.rows, a_.cols, b_.cols, threads_)) * sizeof(double);
  }
  std::string_view name() const override { return vector_ == Vector::none ? "cpu:gemm_f64" : "cpu:matvec_f64"; }

 private:
  enum class Vector { none, a, b };  // the operand that is one

  void multiply(const double* a, const double* b, double* c, double* scratch) const {
    switch (vector_) {
      case Vector::a: return product_with_vector_f64(b_.transposed_at(b), a, b_.cols, b_.rows, c, threads_);
      case Vector::b: return product_with_vector_f64(a_.at(a), b, a_.rows, a_.cols, c, threads_);
      case Vector::none: return product_f64(a_.at(a), b_.at(b), a_.rows, a_.cols, b_.cols, c, b_.cols, Into::assign, threads_, scratch);
    }
  }

  Matrix a_, b_;
  Shape batch_;
  std::array<Strides, 2> batch_strides_;
  int threads_;
  Vector vector_ = Vector::none;
};

}  // namespace

std::unique_ptr<Kernel> make_matmul_f64(Context& context, const Piece& piece) {
  if (piece.inputs[0].numel() == 0 || piece.inputs[1].numel() == 0) return nullptr;
  return std::make_unique<MatmulF64>(context, piece);
}

}  // namespace tenon::cpu
