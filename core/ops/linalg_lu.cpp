// solve/1, inverse/1 and logdet/1, by LU with partial pivoting. Derivatives: Giles 2008, "Collected matrix
// derivative results for forward and reverse mode algorithmic differentiation".
#include <algorithm>
#include <cmath>
#include <limits>

#include "core/ops/elementwise.h"
#include "core/ops/linalg.h"
#include "core/ops/linalg_kernel.h"
#include "core/ops/matmul.h"
#include "core/ops/shape.h"

namespace tenon {
namespace {

using linalg::BatchShape;

// Calls f(i, LU of matrix i) for every matrix of the batch; one that is exactly singular is an error.
template <class T, class F>
Status for_each_lu(std::string_view op, const View& a, F&& f) {
  const BatchShape batch(a.shape);
  const DenseElements<T> in(a);
  for (int64_t i = 0; i < batch.count; ++i) {
    const Eigen::PartialPivLU<RowMatrix<T>> lu(in.matrix(i * batch.size(), batch.rows, batch.cols));
    if ((lu.matrixLU().diagonal().array() == T(0)).any())
      return invalid(std::string(op) + ": " + linalg::which_matrix(i, batch.count) + " is singular");
    f(i, lu);
  }
  return Status::ok();
}

constexpr AttrSpec kSolveAttrs[] = {{"transpose_a", AttrKind::i64}};

Status infer_solve(const InferArgs& a) {
  TN_RETURN_IF_ERROR(linalg::check_system("solve", a.in[0], a.in[1]));
  a.out = {a.in[1]};
  return Status::ok();
}

Status plain_solve(const KernelArgs& a) {
  const BatchShape bx(a.in[1].shape);
  const bool transpose = a.attrs.flag("transpose_a");
  if (a.in[1].numel() == 0) return Status::ok();
  return linalg::dispatch_real(a.in[0].dtype, [&](auto t) {
    using T = decltype(t);
    const DenseElements<T> b(a.in[1]);
    return for_each_lu<T>("solve", a.in[0], [&](int64_t i, const auto& lu) {
      const auto bi = b.matrix(i * bx.size(), bx.rows, bx.cols);
      Rows<T> x(a.out[0].template as<T>() + i * bx.size(), bx.rows, bx.cols);
      if (transpose)
        x = lu.transpose().solve(bi);
      else
        x = lu.solve(bi);
    });
  });
}

// x = A^-1 b: db = A^-T dx, dA = -db x^T. Transposed: db = A^-1 dx, dA = -x db^T.
void vjp_solve(VjpArgs& a) {
  const Tensor m = a.in[0], x = a.out[0];
  const bool transpose = a.attrs.flag("transpose_a");
  const Tensor db = solve(m, a.cotangents[0], !transpose);
  if (a.needed[1]) a.grads[1] = db;
  if (a.needed[0])
    a.grads[0] = neg(transpose ? matmul(x, matrix_transpose(db)) : matmul(db, matrix_transpose(x)));
}

std::vector<Sample> solve_samples() {
  using linalg::well_conditioned;
  return {{{well_conditioned({3, 3}, 1), sample_f64({3, 2}, -1, 1)}, AttrList().i(0)},
          {{well_conditioned({2, 3, 3}, 2), sample_f64({2, 3, 1}, -1, 1)}, AttrList().i(1)},
          {{well_conditioned({1, 1}, 5), sample_f64({1, 1}, -1, 1)}, AttrList().i(0)},
          {{well_conditioned({0, 2, 2}, 5), sample_f64({0, 2, 1}, -1, 1)}, AttrList().i(0)}};
}

Status infer_inverse(const InferArgs& a) {
  TN_RETURN_IF_ERROR(linalg::check_square("inverse", a.in[0]));
  a.out = {a.in[0]};
  return Status::ok();
}

Status plain_inverse(const KernelArgs& a) {
  const BatchShape batch(a.in[0].shape);
  if (a.in[0].numel() == 0) return Status::ok();
  return linalg::dispatch_real(a.in[0].dtype, [&](auto t) {
    using T = decltype(t);
    return for_each_lu<T>("inverse", a.in[0], [&](int64_t i, const auto& lu) {
      Rows<T>(a.out[0].template as<T>() + i * batch.size(), batch.rows, batch.cols) = lu.inverse();
    });
  });
}

// dA = -Y^T dY Y^T
void vjp_inverse(VjpArgs& a) {
  const Tensor y_t = matrix_transpose(a.out[0]);
  a.grads[0] = neg(matmul(y_t, matmul(a.cotangents[0], y_t)));
}

Status infer_logdet(const InferArgs& a) {
  TN_RETURN_IF_ERROR(linalg::check_square("logdet", a.in[0]));
  Shape shape = a.in[0].shape;
  shape.pop_back();
  shape.pop_back();
  a.out = {{a.in[0].dtype, shape}};
  return Status::ok();
}

Status plain_logdet(const KernelArgs& a) {
  const BatchShape batch(a.in[0].shape);
  return linalg::dispatch_real(a.in[0].dtype, [&](auto t) -> Status {
    using T = decltype(t);
    T* out = a.out[0].template as<T>();
    std::fill(out, out + batch.count, T(0));  // of an empty matrix: log 1
    if (batch.rows == 0) return Status::ok();
    const DenseElements<T> in(a.in[0]);
    for (int64_t i = 0; i < batch.count; ++i) {
      const Eigen::PartialPivLU<RowMatrix<T>> lu(in.matrix(i * batch.size(), batch.rows, batch.cols));
      for (int64_t d = 0; d < batch.rows; ++d) out[i] += std::log(std::abs(lu.matrixLU()(d, d)));
    }
    return Status::ok();
  });
}

// dA = dy A^-T
void vjp_logdet(VjpArgs& a) {
  const Tensor dy = unsqueeze(unsqueeze(a.cotangents[0], -1), -1);
  a.grads[0] = dy * matrix_transpose(inverse(a.in[0]));
}

}  // namespace

constinit const OpDef kSolve = {.id = "solve/1",
                                .min_in = 2,
                                .max_in = 2,
                                .attrs = kSolveAttrs,
                                .infer = infer_solve,
                                .vjp = vjp_solve,
                                .plain = plain_solve,
                                .samples = solve_samples};
constinit const OpDef kInverse = {.id = "inverse/1",
                                  .infer = infer_inverse,
                                  .vjp = vjp_inverse,
                                  .plain = plain_inverse,
                                  .samples = linalg::square_samples};
constinit const OpDef kLogdet = {.id = "logdet/1",
                                 .infer = infer_logdet,
                                 .vjp = vjp_logdet,
                                 .plain = plain_logdet,
                                 .samples = linalg::square_samples};

Tensor solve(Tensor a, Tensor b, bool transpose) {
  return a.valid() ? a.graph().apply(kSolve, {a, b}, AttrList().i(transpose)) : Tensor();
}

Tensor inverse(Tensor a) { return a.valid() ? a.graph().apply(kInverse, {a}) : Tensor(); }

Tensor logdet(Tensor a) { return a.valid() ? a.graph().apply(kLogdet, {a}) : Tensor(); }

}  // namespace tenon
