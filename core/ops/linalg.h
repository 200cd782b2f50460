// Dense linear algebra on the last two axes, batched over the others (equal batch dimensions, no
// broadcasting). f32 and f64. A matrix that a factorisation cannot handle is an error that names its index in
// the batch.
#pragma once

#include "core/graph/graph.h"

namespace tenon {

// a: [.., N, N] positive definite -> lower L with L L^T = (a + a^T) / 2
Tensor cholesky(Tensor a);
// t: [.., N, N] triangular, b: [.., N, M] -> x with t x = b (transpose: t^T x = b).
// Only t's triangle is read.
Tensor triangular_solve(Tensor t, Tensor b, bool lower = true, bool transpose = false);
// a: [.., N, N], b: [.., N, M] -> a^-1 b, by LU with partial pivoting (transpose: a^-T b).
// An exactly singular matrix is an error.
Tensor solve(Tensor a, Tensor b, bool transpose = false);
// a: [.., N, N] -> [.., N, N]
Tensor inverse(Tensor a);
// a: [.., N, N] -> [..]: log |det a|; a singular matrix gives -inf.
Tensor logdet(Tensor a);

struct Eigh {
  Tensor values;   // [.., N], ascending
  Tensor vectors;  // [.., N, N], orthonormal columns; each column's largest entry in magnitude is positive
};
// a: [.., N, N] -> eigen-decomposition of (a + a^T) / 2. Derivatives of eigenvectors that share an eigenvalue
// are not defined; the terms between them are taken as zero. That is right for functions of the eigenvalues
// and for projections on whole eigenspaces, but not for v f(w) v^T with an f that is not constant.
Eigh eigh(Tensor a);

// Swaps the last two axes.
Tensor matrix_transpose(Tensor a);

}  // namespace tenon
