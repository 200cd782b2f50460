// cholesky of f64 by halves, so that nearly all of it is products:
//
//   [A11 .  ]   L11 = chol(A11)
//   [A21 A22]   L21 = A21 L11^-T,  L22 = chol(A22 - L21 L21^T)
//
// and likewise X L^T = B with L by halves: X1 = B1 L11^-T, X2 = (B2 - X1 L21^T) L22^-T. Like the plain kernel it takes the mean of a
// matrix and its transpose.
#include <algorithm>
#include <array>
#include <cmath>
#include <string>

#include "backends/cpu/kernels.h"
#include "backends/cpu/parallel.h"
#include "backends/cpu/product_f64.h"

namespace tenon::cpu {
namespace {

constexpr int64_t kBase = 32;     // rows that are factorised one by one
constexpr int64_t kSquare = 256;  // rows of a symmetric product that are made in full, not the lower half alone

// The first half, a multiple of kBase.
int64_t half(int64_t n) { return (n / 2 + kBase - 1) / kBase * kBase; }

// Works on the lower triangle of a row-major matrix in place; what lies above it is of no meaning.
class Factor {
 public:
  Factor(double* a, int64_t n, int threads, double* scratch) : a_(a), n_(n), threads_(threads), scratch_(scratch) {}
  // Whether it is positive definite.
  bool run() { return factorise(0, n_); }

 private:
  double* at(int64_t r, int64_t c) const { return a_ + r * n_ + c; }

  bool factorise(int64_t first, int64_t n) {
    if (n <= kBase) return factorise_base(first, n);
    const int64_t n1 = half(n), next = first + n1;
    if (!factorise(first, n1)) return false;
    solve(first, n1, next, n - n1);
    subtract_square(next, n - n1, first, n1);
    return factorise(next, n - n1);
  }

  bool factorise_base(int64_t first, int64_t n) const {
    for (int64_t j = 0; j < n; ++j) {
      double* row = at(first + j, first);
      for (int64_t k = 0; k <= j; ++k) {
        const double* other = at(first + k, first);
        double v = row[k];
        for (int64_t i = 0; i < k; ++i) v -= row[i] * other[i];
        if (k < j) row[k] = v / other[k];
        else if (v <= 0) return false;
        else row[j] = std::sqrt(v);
      }
    }
    return true;
  }

  // Rows [row, row + m) of columns [first, first + n): X L^T = B, with L the factor at `first`.
  void solve(int64_t first, int64_t n, int64_t row, int64_t m) {
    if (n <= kBase) return solve_base(first, n, row, m);
    const int64_t n1 = half(n), next = first + n1;
    solve(first, n1, row, m);
    product_f64({at(row, first), n_, 1}, {at(next, first), 1, n_}, m, n1, n - n1, at(row, next), n_, Into::subtract, threads_, scratch_);
    solve(next, n - n1, row, m);
  }

  void solve_base(int64_t first, int64_t n, int64_t row, int64_t m) const {
    std::array<double, kBase * kBase> transposed;  // of L, so that a row's sums are made side by side
    std::array<double, kBase> inverse;
    for (int64_t j = 0; j < n; ++j) {
      inverse[static_cast<size_t>(j)] = 1 / *at(first + j, first + j);
      for (int64_t i = j + 1; i < n; ++i) transposed[static_cast<size_t>(j * kBase + i)] = *at(first + i, first + j);
    }
    parallel_for(threads_, m, std::max<int64_t>(kMathGrain / (n * n), 1), [&](int64_t begin, int64_t end) {
      for (int64_t r = row + begin; r < row + end; ++r) {
        double* x = at(r, first);
        for (int64_t j = 0; j < n; ++j) {
          const double* l = transposed.data() + j * kBase;
          const double v = x[j] *= inverse[static_cast<size_t>(j)];
          for (int64_t i = j + 1; i < n; ++i) x[i] -= v * l[i];
        }
      }
    });
  }

  // The n rows and columns from `row` on less X X^T, X their columns [first, first + depth).
  void subtract_square(int64_t row, int64_t n, int64_t first, int64_t depth) {
    if (n <= kSquare) return subtract_product(row, n, row, n, first, depth);
    const int64_t n1 = half(n), next = row + n1;
    subtract_square(row, n1, first, depth);
    subtract_product(next, n - n1, row, n1, first, depth);
    subtract_square(next, n - n1, first, depth);
  }
  void subtract_product(int64_t row, int64_t m, int64_t col, int64_t n, int64_t first, int64_t depth) {
    product_f64({at(row, first), n_, 1}, {at(col, first), 1, n_}, m, depth, n, at(row, col), n_, Into::subtract, threads_, scratch_);
  }

  double* a_;
  int64_t n_;
  int threads_;
  double* scratch_;
};

// Both triangles' mean below the diagonal, zeros above it: by squares, of which two lie in the first cache.
void symmetrised(const double* in, int64_t n, double* out, int threads) {
  parallel_for(threads, n, kBase, [&](int64_t begin, int64_t end) {
    for (int64_t r0 = begin; r0 < end; r0 += kBase) {
      const int64_t r1 = std::min(end, r0 + kBase);
      for (int64_t c0 = 0; c0 < r1; c0 += kBase)
        for (int64_t r = r0; r < r1; ++r)
          for (int64_t c = c0; c < std::min(r + 1, c0 + kBase); ++c) out[r * n + c] = (in[r * n + c] + in[c * n + r]) / 2;
      for (int64_t r = r0; r < r1; ++r) std::fill(out + r * n + r + 1, out + (r + 1) * n, 0.0);
    }
  });
}

class CholeskyF64 final : public Kernel {
 public:
  CholeskyF64(const Context& context, const Layout& in) : n_(in.shape[in.shape.rank() - 1]), count_(in.numel() / (n_ * n_)), threads_(context.threads) {}

  Status run(std::span<void* const> in, std::span<void* const> out, void* scratch) override {
    const auto* a = static_cast<const double*>(in[0]);
    auto* l = static_cast<double*>(out[0]);
    for (int64_t i = 0; i < count_; ++i, a += n_ * n_, l += n_ * n_) {
      symmetrised(a, n_, l, threads_);
      if (!Factor(l, n_, threads_, static_cast<double*>(scratch)).run())
        return invalid("cholesky: " + (count_ == 1 ? std::string("the matrix") : "matrix " + std::to_string(i) + " of the batch") +
                       " is not positive definite; add a small multiple of the identity");
      for (int64_t r = 0; r < n_; ++r) std::fill(l + r * n_ + r + 1, l + r * n_ + std::min(n_, r + kSquare), 0.0);
    }
    return Status::ok();
  }
  size_t scratch_bytes() const override { return static_cast<size_t>(product_f64_scratch(n_, n_, n_, threads_)) * sizeof(double); }
  std::string_view name() const override { return "cpu:cholesky_f64"; }

 private:
  int64_t n_, count_;
  int threads_;
};

std::unique_ptr<Kernel> make_cholesky(Context& context, const Piece& piece) {
  const Layout& in = piece.inputs[0];
  if (in.dtype != DType::f64 || in.numel() == 0 || !in.contiguous()) return nullptr;
  return std::make_unique<CholeskyF64>(context, in);
}

constexpr KernelEntry kEntries[] = {{"cholesky/1", make_cholesky, all_contiguous}};

}  // namespace

std::span<const KernelEntry> cholesky_kernels() { return kEntries; }

}  // namespace tenon::cpu
