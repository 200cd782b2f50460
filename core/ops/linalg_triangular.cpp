// cholesky/1 (derivative: Murray 2016, "Differentiation of the Cholesky decomposition", eq. 9) and
// triangular_solve/1.
#include "core/ops/elementwise.h"
#include "core/ops/linalg.h"
#include "core/ops/linalg_kernel.h"
#include "core/ops/matmul.h"
#include "core/ops/shape.h"

namespace tenon {
namespace {

using linalg::BatchShape;

Status infer_cholesky(const InferArgs& a) {
  TN_RETURN_IF_ERROR(linalg::check_square("cholesky", a.in[0]));
  a.out = {a.in[0]};
  return Status::ok();
}

Status plain_cholesky(const KernelArgs& a) {
  const BatchShape batch(a.in[0].shape);
  const int64_t n = batch.rows;
  if (a.in[0].numel() == 0) return Status::ok();
  return linalg::dispatch_real(a.in[0].dtype, [&](auto t) -> Status {
    using T = decltype(t);
    const DenseElements<T> in(a.in[0]);
    for (int64_t i = 0; i < batch.count; ++i) {
      const auto m = in.matrix(i * batch.size(), n, n);
      const Eigen::LLT<RowMatrix<T>> llt((m + m.transpose()) / T(2));
      if (llt.info() != Eigen::Success)
        return invalid("cholesky: " + linalg::which_matrix(i, batch.count) +
                       " is not positive definite; add a small multiple of the identity");
      Rows<T>(a.out[0].template as<T>() + i * batch.size(), n, n) = llt.matrixL();
    }
    return Status::ok();
  });
}

// With P = L^-T Phi(L^T dL) L^-1, where Phi takes the lower triangle and halves the diagonal: dA = (P + P^T)
// / 2.
void vjp_cholesky(VjpArgs& a) {
  const Tensor l = a.out[0];
  const Tensor m = matmul(matrix_transpose(l), a.cotangents[0]);
  const Tensor phi = (tril(m) + tril(m, -1)) * 0.5;
  const Tensor left = triangular_solve(l, phi, true, true);
  const Tensor p_t = triangular_solve(l, matrix_transpose(left), true, true);
  a.grads[0] = (p_t + matrix_transpose(p_t)) * 0.5;
}

constexpr AttrSpec kTriangularAttrs[] = {{"lower", AttrKind::i64, false, 1}, {"transpose_a", AttrKind::i64}};

Status infer_triangular(const InferArgs& a) {
  TN_RETURN_IF_ERROR(linalg::check_system("triangular_solve", a.in[0], a.in[1]));
  a.out = {a.in[1]};
  return Status::ok();
}

template <class M, class B>
void solve_in_place(const M& t, bool lower, bool transpose, B& x) {
  if (lower && !transpose)
    t.template triangularView<Eigen::Lower>().solveInPlace(x);
  else if (lower)
    t.transpose().template triangularView<Eigen::Upper>().solveInPlace(x);
  else if (!transpose)
    t.template triangularView<Eigen::Upper>().solveInPlace(x);
  else
    t.transpose().template triangularView<Eigen::Lower>().solveInPlace(x);
}

Status plain_triangular(const KernelArgs& a) {
  const BatchShape bt(a.in[0].shape), bx(a.in[1].shape);
  const bool lower = a.attrs.flag("lower"), transpose = a.attrs.flag("transpose_a");
  if (a.in[1].numel() == 0) return Status::ok();
  return linalg::dispatch_real(a.in[0].dtype, [&](auto type) -> Status {
    using T = decltype(type);
    const DenseElements<T> t(a.in[0]), b(a.in[1]);
    for (int64_t i = 0; i < bt.count; ++i) {
      const auto m = t.matrix(i * bt.size(), bt.rows, bt.cols);
      if ((m.diagonal().array() == T(0)).any())
        return invalid("triangular_solve: " + linalg::which_matrix(i, bt.count) +
                       " has a zero on its diagonal, so it is singular");
      Rows<T> x(a.out[0].template as<T>() + i * bx.size(), bx.rows, bx.cols);
      x = b.matrix(i * bx.size(), bx.rows, bx.cols);
      if (bx.cols == 1) {  // Eigen reads the matrix of one as it is, and packs that of several
        Eigen::Map<Eigen::Matrix<T, Eigen::Dynamic, 1>> column(x.data(), bx.rows);
        solve_in_place(m, lower, transpose, column);
      } else {
        solve_in_place(m, lower, transpose, x);
      }
    }
    return Status::ok();
  });
}

// x = T^-1 b: db = T^-T dx, dT = -tri(db x^T). Transposed: db = T^-1 dx, dT = -tri(x db^T).
void vjp_triangular(VjpArgs& a) {
  const Tensor t = a.in[0], x = a.out[0];
  const bool lower = a.attrs.flag("lower"), transpose = a.attrs.flag("transpose_a");
  const Tensor db = triangular_solve(t, a.cotangents[0], lower, !transpose);
  if (a.needed[1]) a.grads[1] = db;
  if (!a.needed[0]) return;
  const Tensor dt = transpose ? matmul(x, matrix_transpose(db)) : matmul(db, matrix_transpose(x));
  a.grads[0] = neg(lower ? tril(dt) : triu(dt));
}

std::vector<Sample> triangular_samples() {
  using linalg::well_conditioned;
  return {{{well_conditioned({3, 3}, 1), sample_f64({3, 2}, -1, 1)}, AttrList().i(1).i(0)},
          {{well_conditioned({3, 3}, 2), sample_f64({3, 1}, -1, 1)}, AttrList().i(1).i(1)},
          {{well_conditioned({2, 3, 3}, 3), sample_f64({2, 3, 2}, -1, 1)}, AttrList().i(0).i(0)},
          {{well_conditioned({2, 2, 2}, 4), sample_f64({2, 2, 3}, -1, 1)}, AttrList().i(0).i(1)},
          {{well_conditioned({1, 1}, 5), sample_f64({1, 1}, -1, 1)}, AttrList().i(1).i(0)},
          {{well_conditioned({2, 2}, 5), sample_f64({2, 0}, -1, 1)}, AttrList().i(1).i(0)}};
}

}  // namespace

constinit const OpDef kCholesky = {.id = "cholesky/1",
                                   .infer = infer_cholesky,
                                   .vjp = vjp_cholesky,
                                   .plain = plain_cholesky,
                                   .samples = linalg::square_samples};
constinit const OpDef kTriangularSolve = {.id = "triangular_solve/1",
                                          .min_in = 2,
                                          .max_in = 2,
                                          .attrs = kTriangularAttrs,
                                          .infer = infer_triangular,
                                          .vjp = vjp_triangular,
                                          .plain = plain_triangular,
                                          .samples = triangular_samples};

Tensor cholesky(Tensor a) { return a.valid() ? a.graph().apply(kCholesky, {a}) : Tensor(); }

Tensor triangular_solve(Tensor t, Tensor b, bool lower, bool transpose) {
  return t.valid() ? t.graph().apply(kTriangularSolve, {t, b}, AttrList().i(lower).i(transpose)) : Tensor();
}

}  // namespace tenon
