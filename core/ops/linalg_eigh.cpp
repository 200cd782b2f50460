// eigh/1: eigen-decomposition of symmetric matrices. Derivative: Giles 2008, section 3.1.
#include "core/ops/elementwise.h"
#include "core/ops/families.h"
#include "core/ops/linalg.h"
#include "core/ops/linalg_kernel.h"
#include "core/ops/matmul.h"
#include "core/ops/shape.h"

namespace tenon {
namespace {

using linalg::BatchShape;

Status infer_eigh(const InferArgs& a) {
  TN_RETURN_IF_ERROR(linalg::check_square("eigh", a.in[0]));
  Shape values = a.in[0].shape;
  values.pop_back();
  a.out = {{a.in[0].dtype, values}, a.in[0]};
  return Status::ok();
}

Status plain_eigh(const KernelArgs& a) {
  const BatchShape batch(a.in[0].shape);
  const int64_t n = batch.rows;
  if (a.in[0].numel() == 0) return Status::ok();
  return linalg::dispatch_real(a.in[0].dtype, [&](auto t) -> Status {
    using T = decltype(t);
    const DenseElements<T> in(a.in[0]);
    for (int64_t i = 0; i < batch.count; ++i) {
      const auto m = in.matrix(i * n * n, n, n);
      const Eigen::SelfAdjointEigenSolver<RowMatrix<T>> solver((m + m.transpose()) / T(2));
      if (solver.info() != Eigen::Success)
        return invalid("eigh: no convergence for " + linalg::which_matrix(i, batch.count) +
                       "; it may have infinite or NaN entries");
      Rows<T>(a.out[0].template as<T>() + i * n, 1, n) = solver.eigenvalues().transpose();
      Rows<T> v(a.out[1].template as<T>() + i * n * n, n, n);
      v = solver.eigenvectors();
      for (int64_t c = 0; c < n; ++c) {  // the sign of an eigenvector is free: fix it
        int64_t largest = 0;
        v.col(c).cwiseAbs().maxCoeff(&largest);
        if (v(largest, c) < T(0)) v.col(c) = -v.col(c);
      }
    }
    return Status::ok();
  });
}

// dA = V (diag(dw) + F o (V^T dV)) V^T, symmetrised, with F_ij = 1 / (w_j - w_i) and 0 where they are equal.
void vjp_eigh(VjpArgs& a) {
  const Tensor w = a.out[0], v = a.out[1], dw = a.cotangents[0], dv = a.cotangents[1];
  Tensor inner;  // V times the bracket
  if (dw.valid()) inner = v * unsqueeze(dw, -2);
  if (dv.valid()) {
    const Tensor gap = unsqueeze(w, -2) - unsqueeze(w, -1);
    const Tensor same = equal(gap, zeros_like(gap));
    const Tensor f = where(same, zeros_like(gap), reciprocal(where(same, ones_like(gap), gap)));
    const Tensor rotated = matmul(v, f * matmul(matrix_transpose(v), dv));
    inner = inner.valid() ? inner + rotated : rotated;
  }
  const Tensor d = matmul(inner, matrix_transpose(v));
  a.grads[0] = (d + matrix_transpose(d)) * 0.5;
}

// Distinct eigenvalues: spread diagonals 1, 2, .. N with small couplings.
HostArray distinct(const Shape& shape, uint64_t seed) {
  HostArray a = sample_f64(shape, -0.3, 0.3, seed);
  const int64_t n = shape[shape.rank() - 1];
  auto v = a.as<double>();
  for (int64_t i = 0; i < a.numel(); ++i)
    if ((i / n) % n == i % n) v[static_cast<size_t>(i)] += static_cast<double>(i % n);
  return a;
}

std::vector<Sample> eigh_samples() {
  return {{{distinct({3, 3}, 1)}},
          {{distinct({1, 1}, 2)}},
          {{distinct({2, 4, 4}, 3)}},
          {{distinct({0, 2, 2}, 4)}}};
}

}  // namespace

constinit const OpDef kEigh = {.id = "eigh/1",
                               .n_out = 2,
                               .infer = infer_eigh,
                               .vjp = vjp_eigh,
                               .plain = plain_eigh,
                               .samples = eigh_samples};

Eigh eigh(Tensor a) {
  if (!a.valid()) return {};
  const Tensor values = a.graph().apply(kEigh, {a});
  return {values, values.output(1)};
}

Tensor matrix_transpose(Tensor a) { return swap_axes(a, -1, -2); }

OpList linalg_ops() {
  static constexpr const OpDef* ops[] = {&kCholesky, &kTriangularSolve, &kSolve, &kInverse, &kLogdet, &kEigh};
  return ops;
}

}  // namespace tenon
