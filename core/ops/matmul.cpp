// matmul/1: batched matrix products with broadcast batch dimensions.
#include "core/ops/matmul.h"

#include <algorithm>
#include <string>

#include "core/ops/dense.h"
#include "core/ops/elementwise.h"
#include "core/ops/families.h"
#include "core/ops/matmul_gradients.h"
#include "core/ops/mixed_matmul.h"
#include "core/ops/sample_values.h"
#include "core/ops/shape.h"

namespace tenon {
namespace {

constexpr AttrSpec kMatmulAttrs[] = {{"transpose_a", AttrKind::i64}, {"transpose_b", AttrKind::i64}};

// Shape without its last two dimensions.
Shape batch_of(const Shape& s) { return Shape(std::span(s.begin(), static_cast<size_t>(s.rank() - 2))); }

std::optional<Shape> broadcast_batches(const Shape& a, const Shape& b) {
  const Shape &longer = a.rank() >= b.rank() ? a : b, &shorter = a.rank() >= b.rank() ? b : a;
  Shape out = longer;
  const int lead = longer.rank() - shorter.rank();
  for (int i = 0; i < shorter.rank(); ++i) {
    if (shorter[i] == longer[lead + i] || shorter[i] == 1) continue;
    if (longer[lead + i] != 1) return std::nullopt;
    out[lead + i] = shorter[i];
  }
  return out;
}

// A matrix operand inside a view: extents and strides as the product sees them.
struct Operand {
  int64_t rows, cols, row_stride, col_stride;
  Operand(const Layout& l, bool transpose) {
    const int r = l.shape.rank() - 2, c = r + 1;
    rows = l.shape[r], cols = l.shape[c], row_stride = l.strides[r], col_stride = l.strides[c];
    if (transpose) std::swap(rows, cols), std::swap(row_stride, col_stride);
  }
};

Status infer_matmul(const InferArgs& a) {
  const TensorType &x = a.in[0], &y = a.in[1];
  const auto both = [&] { return to_string(x) + " and " + to_string(y); };
  if (x.shape.rank() < 2 || y.shape.rank() < 2)
    return invalid("matmul: wants matrices, got " + both() + "; reshape a vector to one row or column");
  TN_RETURN_IF_ERROR(want_same_dtype("matmul", a.in));
  if (x.dtype == DType::u8 || x.dtype == DType::boolean)
    return invalid("matmul: got " + both() + "; it wants f32, f64, bf16, i32 or i64 (cast them first)");
  const Operand l(Layout(x), a.attrs.flag("transpose_a")), r(Layout(y), a.attrs.flag("transpose_b"));
  if (l.cols != r.rows)
    return invalid("matmul: the inner dimensions of " + both() + " differ: " + std::to_string(l.cols) +
                   " columns, " + std::to_string(r.rows) + " rows" +
                   (a.attrs.flag("transpose_a") ? ", first transposed" : "") +
                   (a.attrs.flag("transpose_b") ? ", second transposed" : ""));
  auto shape = broadcast_batches(batch_of(x.shape), batch_of(y.shape));
  if (!shape) return invalid("matmul: the leading dimensions of " + both() + " do not broadcast");
  shape->push_back(l.rows);
  shape->push_back(r.cols);
  a.out = {{x.dtype, *shape}};
  return Status::ok();
}

// c[0..R)[j] += a[0..R)[k] b[k][j]: R rows at once, so that each element of b is loaded once for all of them.
template <int R, class T, class A>
void multiply_rows(const T* a, const Operand& la, const A* __restrict b, int64_t cols, A* __restrict acc) {
  std::fill(acc, acc + R * cols, A(0));
  for (int64_t k = 0; k < la.cols; ++k, b += cols) {
    A x[R];
    for (int r = 0; r < R; ++r) x[r] = load(a[r * la.row_stride + k * la.col_stride]);
    for (int64_t j = 0; j < cols; ++j)
      for (int r = 0; r < R; ++r) acc[r * cols + j] += x[r] * b[j];
  }
}

template <class T>
void multiply(const KernelArgs& args) {
  using A = Arith<T>;
  const Operand la(args.in[0], args.attrs.flag("transpose_a")),
      lb(args.in[1], args.attrs.flag("transpose_b"));
  const Shape batch = batch_of(args.out[0].shape);
  const auto batch_strides = [&](const View& v) {
    const Strides s(std::span(v.strides.begin(), static_cast<size_t>(v.shape.rank() - 2)));
    return broadcast_strides(Layout(v.dtype, batch_of(v.shape), s), batch);
  };
  const int64_t m = la.rows, n = lb.cols;
  T* out = args.out[0].as<T>();
  if (la.rows * la.cols == 0 || lb.cols == 0) {  // an operand has no memory: no sums, or sums of nothing
    std::fill_n(out, args.out[0].shape.numel(), T(0));
    return;
  }
  constexpr int kRows = 4;
  std::vector<A> acc(static_cast<size_t>(kRows * n)), packed;
  int64_t packed_from = -1;
  for_each_offset<2>(
      batch, {batch_strides(args.in[0]), batch_strides(args.in[1])}, [&](int64_t oa, int64_t ob) {
        const T* a = args.in[0].as<T>() + oa;
        const T* bt = args.in[1].as<T>() + ob;
        const A* b = nullptr;
        if constexpr (std::is_same_v<T, A>)
          if (lb.col_stride == 1 && lb.row_stride == n) b = bt;
        if (!b) {
          if (packed.empty() || packed_from != ob) {
            packed.resize(static_cast<size_t>(lb.rows * n));
            for (int64_t k = 0; k < lb.rows; ++k)
              for (int64_t j = 0; j < n; ++j)
                packed[static_cast<size_t>(k * n + j)] = load(bt[k * lb.row_stride + j * lb.col_stride]);
            packed_from = ob;
          }
          b = packed.data();
        }
        int64_t i = 0;
        const auto rows = [&](auto count) {
          constexpr int r = decltype(count)::value;
          multiply_rows<r>(a + i * la.row_stride, la, b, n, acc.data());
          for (int64_t e = 0; e < r * n; ++e) *out++ = store<T>(acc[static_cast<size_t>(e)]);
          i += r;
        };
        while (i + kRows <= m) rows(std::integral_constant<int, kRows>());
        while (i < m) rows(std::integral_constant<int, 1>());
      });
}

Status plain_matmul(const KernelArgs& a) {
  switch (a.in[0].dtype) {
    case DType::f32:
      multiply<float>(a);
      break;
    case DType::f64:
      multiply<double>(a);
      break;
    case DType::bf16:
      multiply<bf16>(a);
      break;
    case DType::i32:
      multiply<int32_t>(a);
      break;
    default:
      multiply<int64_t>(a);
      break;
  }
  return Status::ok();
}

void vjp_matmul(VjpArgs& args) {
  operand_gradients(args, [](Tensor l, Tensor r, bool tl, bool tr, DType) { return matmul(l, r, tl, tr); });
}

std::vector<Sample> matmul_samples() {
  const auto pair = [](const Shape& a, const Shape& b, bool ta, bool tb) {
    return Sample{{sample_f64(a, -1, 1, 1), sample_f64(b, -1, 1, 2)}, AttrList().i(ta).i(tb)};
  };
  return {pair({5, 3}, {3, 7}, false, false),    pair({3, 5}, {3, 2}, true, false),
          pair({4, 3}, {2, 3}, false, true),     pair({3, 6}, {2, 3}, true, true),
          pair({2, 3, 4}, {4, 5}, false, false), pair({2, 1, 3, 4}, {3, 2, 4}, false, true),
          pair({3, 2}, {4, 3, 5}, true, false),  pair({1, 1}, {1, 1}, false, false),
          pair({2, 0, 3}, {3, 4}, false, false), pair({2, 0}, {0, 3}, false, false)};
}

constinit const OpDef kMatmul = {.id = "matmul/1",
                                 .min_in = 2,
                                 .max_in = 2,
                                 .attrs = kMatmulAttrs,
                                 .infer = infer_matmul,
                                 .vjp = vjp_matmul,
                                 .plain = plain_matmul,
                                 .samples = matmul_samples};

}  // namespace

Tensor matmul(Tensor a, Tensor b, bool transpose_a, bool transpose_b) {
  if (!a.valid() || !b.valid()) return {};
  return a.graph().apply(kMatmul, {a, b}, AttrList().i(transpose_a).i(transpose_b));
}

namespace {

// x: [.., I]  w: [O, I]  ->  [.., O]: product(x, w) is x w^T of two matrices, one for all leading dimensions.
template <class Product>
Tensor apply_to_rows(Tensor x, Tensor w, Product&& product) {
  if (!x.valid() || !w.valid()) return {};
  Shape out = x.shape();
  if (out.rank() == 0 || w.rank() != 2 || out.back() != w.dim(1)) {
    x.graph().fail(invalid("linear: x " + to_string(out) + " does not fit the weight " +
                           to_string(w.shape()) + "; its last dimension must be the weight's second"));
    return {};
  }
  if (out.rank() == 2) return product(x, w);
  out[out.rank() - 1] = w.dim(0);
  const int64_t features = w.dim(1);
  int64_t rows = 1;
  for (int i = 0; i + 1 < out.rank(); ++i) rows *= out[i];
  return reshape(product(reshape(x, {rows, features}), w), out);
}

}  // namespace

Tensor linear(Tensor x, Tensor w, Tensor b) {
  const Tensor y = apply_to_rows(x, w, [](Tensor rows, Tensor m) { return matmul(rows, m, false, true); });
  return b.valid() ? add(y, b) : y;
}

Tensor mixed_linear(Tensor x, Tensor w, Tensor b) {
  return apply_to_rows(x, w, [&](Tensor rows, Tensor m) {
    const DType result = rows.dtype() == DType::bf16 ? DType::bf16 : DType::f32;
    return mixed_matmul(rows, m, b, {.transpose_b = true, .result = result});
  });
}

OpList matmul_ops() {
  static constexpr const OpDef* ops[] = {&kMatmul};
  return ops;
}

}  // namespace tenon
