// sort_by_expert/1, grouped_matmul/1 and grouped_matmul_weight/1. Each of the two products is the other's
// derivative.
#include "core/ops/moe.h"

#include <string>

#include "core/ops/eigen.h"
#include "core/ops/families.h"
#include "core/ops/kernel_util.h"
#include "core/ops/sample_values.h"

namespace tenon {
namespace {

constexpr AttrSpec kExpertAttrs[] = {{"n", AttrKind::i64, true}};

Status infer_sort_by_expert(const InferArgs& a) {
  const int64_t n = a.attrs.i("n");
  if (!is_integer(a.in[0].dtype))
    return invalid("sort_by_expert: wants integer expert indices, got " + to_string(a.in[0]));
  if (n < 1)
    return invalid("sort_by_expert: the number of experts is " + std::to_string(n) + "; it must be positive");
  a.out = {{DType::i64, {a.in[0].shape.numel()}}, {DType::i64, {n + 1}}};
  return Status::ok();
}

// Counting sort: stable, linear.
Status plain_sort_by_expert(const KernelArgs& a) {
  const int64_t n = a.attrs.i("n");
  const int64_t slots = a.in[0].numel();
  int64_t* order = a.out[0].as<int64_t>();
  int64_t* offsets = a.out[1].as<int64_t>();
  return dispatch(a.in[0].dtype, [&](auto t) -> Status {
    using T = decltype(t);
    const auto idx = dense<T>(a.in[0]);
    std::fill(offsets, offsets + n + 1, int64_t{0});
    for (int64_t s = 0; s < slots; ++s) {
      const auto e = static_cast<int64_t>(load(T(idx[static_cast<size_t>(s)])));
      if (e < 0 || e >= n)
        return invalid("sort_by_expert: expert index " + std::to_string(e) + " at slot " + std::to_string(s) +
                       " is outside 0.." + std::to_string(n - 1));
      ++offsets[e + 1];
    }
    for (int64_t e = 0; e < n; ++e) offsets[e + 1] += offsets[e];
    std::vector<int64_t> next(offsets, offsets + n);
    for (int64_t s = 0; s < slots; ++s)
      order[next[static_cast<size_t>(load(T(idx[static_cast<size_t>(s)])))]++] = s;
    return Status::ok();
  });
}

std::vector<Sample> expert_samples() {
  return {{{sample_i64({2, 0, 1, 2, 2, 0}, {3, 2})}, AttrList().i(4)},
          {{sample_i64({0}, {1, 1})}, AttrList().i(1)},
          {{sample_i64({}, {0, 2})}, AttrList().i(3)}};
}

// Offsets as data: from 0 to the number of rows, never decreasing.
Status check_offsets(std::string_view op, std::span<const int64_t> offsets, int64_t rows) {
  const auto text = [](int64_t v) { return std::to_string(v); };
  if (offsets.front() != 0 || offsets.back() != rows)
    return invalid(std::string(op) + ": offsets run from " + text(offsets.front()) + " to " +
                   text(offsets.back()) + "; they must run from 0 to the number of rows, " + text(rows));
  for (size_t e = 1; e < offsets.size(); ++e)
    if (offsets[e] < offsets[e - 1])
      return invalid(std::string(op) + ": offset " + text(offsets[e]) + " of expert " + std::to_string(e) +
                     " is less than the one before, " + text(offsets[e - 1]));
  return Status::ok();
}

Status check_operands(std::string_view op, std::string_view wanted, const InferArgs& a, int rank0,
                      int rank1) {
  const TensorType &x = a.in[0], &y = a.in[1], &offsets = a.in[2];
  if (x.shape.rank() == rank0 && y.shape.rank() == rank1 && x.dtype == y.dtype && is_floating(x.dtype) &&
      offsets.dtype == DType::i64 && offsets.shape.rank() == 1 && offsets.shape[0] >= 1)
    return Status::ok();
  return invalid(std::string(op) + ": wants " + std::string(wanted) +
                 " of one floating dtype and i64 offsets [E+1], got " + to_string(x) + ", " + to_string(y) +
                 " and " + to_string(offsets));
}

constexpr AttrSpec kGroupedAttrs[] = {{"transpose_b", AttrKind::i64}};

Status infer_grouped(const InferArgs& a) {
  TN_RETURN_IF_ERROR(check_operands("grouped_matmul", "x [R, I] and w [E, I, O]", a, 2, 3));
  const bool transpose = a.attrs.flag("transpose_b");
  const Shape &x = a.in[0].shape, &w = a.in[1].shape;
  if (x[1] != w[transpose ? 2 : 1] || a.in[2].shape[0] != w[0] + 1)
    return invalid(
        "grouped_matmul: x " + to_string(x) + ", w " + to_string(w) + (transpose ? " (transposed)" : "") +
        " and offsets " + to_string(a.in[2].shape) +
        " do not fit; x's columns must equal w's inner size, and there is one offset more than experts");
  a.out = {{a.in[0].dtype, {x[0], w[transpose ? 1 : 2]}}};
  return Status::ok();
}

template <class T, class M>
void store_matrix(const M& m, T* to) {
  const int64_t rows = m.rows(), cols = m.cols();
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c) to[r * cols + c] = store<T>(m(r, c));
}

Status plain_grouped(const KernelArgs& a) {
  const bool transpose = a.attrs.flag("transpose_b");
  const Shape &xs = a.in[0].shape, &ws = a.in[1].shape;
  const auto offsets = dense<int64_t>(a.in[2]);
  TN_RETURN_IF_ERROR(check_offsets("grouped_matmul", offsets, xs[0]));
  const int64_t n_out = a.out[0].shape[1];
  return dispatch_floating(a.in[0].dtype, [&](auto t) {
    using T = decltype(t);
    const DenseElements<T> x(a.in[0]), w(a.in[1]);
    RowMatrix<Arith<T>> y;
    for (int64_t e = 0; e < ws[0]; ++e) {
      const int64_t first = offsets[static_cast<size_t>(e)],
                    rows = offsets[static_cast<size_t>(e) + 1] - first;
      if (rows == 0) continue;
      const auto xe = x.matrix(first * xs[1], rows, xs[1]);
      const auto we = w.matrix(e * ws[1] * ws[2], ws[1], ws[2]);
      if (transpose)
        y.noalias() = xe * we.transpose();
      else
        y.noalias() = xe * we;
      store_matrix(y, a.out[0].template as<T>() + first * n_out);
    }
    return Status::ok();
  });
}

// y = x w: dx = dy w^T, dw = x^T dy, per segment.
void vjp_grouped(VjpArgs& a) {
  const Tensor x = a.in[0], w = a.in[1], offsets = a.in[2], dy = a.cotangents[0];
  const bool transpose = a.attrs.flag("transpose_b");
  if (a.needed[0]) a.grads[0] = grouped_matmul(dy, w, offsets, !transpose);
  if (a.needed[1])
    a.grads[1] = transpose ? grouped_matmul_weight(dy, x, offsets) : grouped_matmul_weight(x, dy, offsets);
}

std::vector<Sample> grouped_samples() {
  const auto offsets = sample_i64({0, 2, 2, 5}, {4});
  return {{{sample_f64({5, 3}, -1, 1), sample_f64({3, 3, 2}, -1, 1, 2), offsets}, AttrList().i(0)},
          {{sample_f64({5, 3}, -1, 1), sample_f64({3, 2, 3}, -1, 1, 2), offsets}, AttrList().i(1)},
          {{sample_f64({1, 1}, -1, 1), sample_f64({1, 1, 1}, -1, 1, 2), sample_i64({0, 1}, {2})},
           AttrList().i(0)},
          {{sample_f64({0, 2}, -1, 1), sample_f64({2, 2, 3}, -1, 1), sample_i64({0, 0, 0}, {3})},
           AttrList().i(0)}};
}

Status infer_grouped_weight(const InferArgs& a) {
  TN_RETURN_IF_ERROR(check_operands("grouped_matmul_weight", "x [R, I] and y [R, O]", a, 2, 2));
  const Shape &x = a.in[0].shape, &y = a.in[1].shape;
  if (x[0] != y[0])
    return invalid("grouped_matmul_weight: x " + to_string(x) + " and y " + to_string(y) +
                   " must have equally many rows");
  a.out = {{a.in[0].dtype, {a.in[2].shape[0] - 1, x[1], y[1]}}};
  return Status::ok();
}

Status plain_grouped_weight(const KernelArgs& a) {
  const Shape &xs = a.in[0].shape, &ys = a.in[1].shape;
  const auto offsets = dense<int64_t>(a.in[2]);
  TN_RETURN_IF_ERROR(check_offsets("grouped_matmul_weight", offsets, xs[0]));
  return dispatch_floating(a.in[0].dtype, [&](auto t) {
    using T = decltype(t);
    const DenseElements<T> x(a.in[0]), y(a.in[1]);
    RowMatrix<Arith<T>> z;
    for (int64_t e = 0; e < a.out[0].shape[0]; ++e) {
      const int64_t first = offsets[static_cast<size_t>(e)],
                    rows = offsets[static_cast<size_t>(e) + 1] - first;
      if (rows == 0)
        z.setZero(xs[1], ys[1]);
      else
        z.noalias() = x.matrix(first * xs[1], rows, xs[1]).transpose() * y.matrix(first * ys[1], rows, ys[1]);
      store_matrix(z, a.out[0].template as<T>() + e * xs[1] * ys[1]);
    }
    return Status::ok();
  });
}

// z = x^T y: dx = y dz^T, dy = x dz, per segment.
void vjp_grouped_weight(VjpArgs& a) {
  const Tensor x = a.in[0], y = a.in[1], offsets = a.in[2], dz = a.cotangents[0];
  if (a.needed[0]) a.grads[0] = grouped_matmul(y, dz, offsets, true);
  if (a.needed[1]) a.grads[1] = grouped_matmul(x, dz, offsets);
}

std::vector<Sample> grouped_weight_samples() {
  return {{{sample_f64({5, 3}, -1, 1), sample_f64({5, 2}, -1, 1, 2), sample_i64({0, 2, 2, 5}, {4})}},
          {{sample_f64({1, 1}, -1, 1), sample_f64({1, 1}, -1, 1, 2), sample_i64({0, 1}, {2})}},
          {{sample_f64({0, 2}, -1, 1), sample_f64({0, 3}, -1, 1), sample_i64({0, 0, 0}, {3})}}};
}

constinit const OpDef kSortByExpert = {.id = "sort_by_expert/1",
                                       .n_out = 2,
                                       .attrs = kExpertAttrs,
                                       .infer = infer_sort_by_expert,
                                       .plain = plain_sort_by_expert,
                                       .samples = expert_samples};
constinit const OpDef kGroupedMatmul = {.id = "grouped_matmul/1",
                                        .min_in = 3,
                                        .max_in = 3,
                                        .attrs = kGroupedAttrs,
                                        .infer = infer_grouped,
                                        .vjp = vjp_grouped,
                                        .plain = plain_grouped,
                                        .samples = grouped_samples};
constinit const OpDef kGroupedMatmulWeight = {.id = "grouped_matmul_weight/1",
                                              .min_in = 3,
                                              .max_in = 3,
                                              .infer = infer_grouped_weight,
                                              .vjp = vjp_grouped_weight,
                                              .plain = plain_grouped_weight,
                                              .samples = grouped_weight_samples};

}  // namespace

ExpertOrder sort_by_expert(Tensor idx, int64_t n_experts) {
  if (!idx.valid()) return {};
  const Tensor order = idx.graph().apply(kSortByExpert, {idx}, AttrList().i(n_experts));
  return {order, order.output(1)};
}

Tensor grouped_matmul(Tensor x, Tensor w, Tensor offsets, bool transpose_w) {
  return x.valid() ? x.graph().apply(kGroupedMatmul, {x, w, offsets}, AttrList().i(transpose_w)) : Tensor();
}

Tensor grouped_matmul_weight(Tensor x, Tensor y, Tensor offsets) {
  return x.valid() ? x.graph().apply(kGroupedMatmulWeight, {x, y, offsets}) : Tensor();
}

OpList moe_ops() {
  static constexpr const OpDef* ops[] = {&kSortByExpert, &kGroupedMatmul, &kGroupedMatmulWeight};
  return ops;
}

}  // namespace tenon
