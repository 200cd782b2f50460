// arange/1, and what is composed of the ops in shape_view.cpp and shape_join.cpp.
#include "core/ops/shape.h"

#include <array>

#include "core/ops/elementwise.h"
#include "core/ops/families.h"
#include "core/ops/shape_ops.h"

namespace tenon {
namespace {

constexpr AttrSpec kArangeAttrs[] = {{"n", AttrKind::i64, true},
                                     {"dtype", AttrKind::i64, false, static_cast<int64_t>(DType::i64)}};

Status infer_arange(const InferArgs& a) {
  TN_ASSIGN(const DType dtype, dtype_attr("arange", a.attrs.i("dtype")));
  const Shape shape{a.attrs.i("n")};
  TN_RETURN_IF_ERROR(check_shape("arange", shape));
  if (dtype == DType::boolean) return invalid("arange: wants a number type, not bool");
  a.out = {{dtype, shape}};
  return Status::ok();
}
Status plain_arange(const KernelArgs& a) {
  dispatch(a.out[0].dtype, [&](auto t) {
    using T = decltype(t);
    for (int64_t i = 0; i < a.out[0].numel(); ++i) a.out[0].template as<T>()[i] = store<T>(i);
  });
  return Status::ok();
}
std::vector<Sample> arange_samples() {
  const auto of = [](int64_t n, DType t) { return Sample{{}, AttrList().i(n).i(static_cast<int64_t>(t))}; };
  return {of(5, DType::i64), of(1, DType::f32), of(0, DType::i32), of(7, DType::f64), of(300, DType::u8)};
}

constinit const OpDef kArange{.id = "arange/1",
                              .min_in = 0,
                              .max_in = 0,
                              .attrs = kArangeAttrs,
                              .infer = infer_arange,
                              .plain = plain_arange,
                              .samples = arange_samples};

// bool [rows, columns]: column - row >= diagonal.
Tensor on_or_above(Graph& g, int64_t rows, int64_t columns, int64_t diagonal) {
  const Tensor row = unsqueeze(arange(g, rows), 1), column = arange(g, columns);
  return greater_equal(column - row, constant_like(column, static_cast<double>(diagonal)));
}

Tensor triangle(Tensor x, int64_t diagonal, bool upper) {
  if (!x.valid()) return {};
  if (x.rank() < 2) {
    x.graph().fail(invalid(std::string(upper ? "triu" : "tril") + ": got " +
                           to_string(TensorType{x.dtype(), x.shape()}) + "; it wants at least two axes"));
    return {};
  }
  const Tensor zero = constant_like(x, 0);
  const Tensor above = on_or_above(x.graph(), x.dim(-2), x.dim(-1), upper ? diagonal : diagonal + 1);
  return upper ? where(above, x, zero) : where(above, zero, x);
}

// Axis of x, or -1 after recording what is wrong.
int checked_axis(std::string_view op, Tensor x, int axis) {
  const auto a = normalize_axis(op, axis, x.rank());
  if (a) return *a;
  x.graph().fail(a.status());
  return -1;
}

}  // namespace

std::optional<Shape> broadcast_shapes(const Shape& a, const Shape& b) {
  const Shape& longer = a.rank() >= b.rank() ? a : b;
  const Shape& shorter = a.rank() >= b.rank() ? b : a;
  Shape out = longer;
  const int lead = longer.rank() - shorter.rank();
  for (int i = 0; i < shorter.rank(); ++i) {
    const int64_t m = longer[lead + i], n = shorter[i];
    if (m != n && m != 1 && n != 1) return std::nullopt;
    out[lead + i] = m == 1 ? n : m;
  }
  return out;
}

Tensor flatten(Tensor x, int from_axis) {
  if (!x.valid()) return {};
  if (from_axis == x.rank()) return unsqueeze(x, from_axis);  // [B] -> [B, 1]
  const int from = checked_axis("flatten", x, from_axis);
  if (from < 0) return {};
  Shape shape;
  int64_t rest = 1;
  for (int i = 0; i < x.rank(); ++i) {
    if (i < from)
      shape.push_back(x.dim(i));
    else
      rest *= x.dim(i);
  }
  shape.push_back(rest);
  return reshape(x, shape);
}

Tensor narrow(Tensor x, int axis, int64_t start, int64_t length) {
  if (!x.valid()) return {};
  const int a = checked_axis("narrow", x, axis);
  if (a < 0) return {};
  if (start < 0 || length < 0 || start > x.dim(a) || length > x.dim(a) - start) {
    x.graph().fail(invalid("narrow: " + std::to_string(length) + " elements from " + std::to_string(start) +
                           " on do not fit axis " + std::to_string(a) + " of shape " + to_string(x.shape())));
    return {};
  }
  if (length == x.dim(a)) return x;
  Dims from = Dims::filled(x.rank(), 0), to = x.shape();
  from[a] = start;
  to[a] = start + length;
  return slice(x, from, to);
}

std::vector<Tensor> split(Tensor x, std::span<const int64_t> sizes, int axis) {
  std::vector<Tensor> parts(sizes.size());
  if (!x.valid()) return parts;
  const int a = checked_axis("split", x, axis);
  if (a < 0) return parts;
  int64_t at = 0;
  for (size_t k = 0; k < sizes.size(); ++k) {
    parts[k] = narrow(x, a, at, sizes[k]);
    if (!parts[k].valid()) return std::vector<Tensor>(sizes.size());
    at += sizes[k];
  }
  if (at == x.dim(a)) return parts;
  x.graph().fail(invalid("split: the sizes sum to " + std::to_string(at) + ", axis " + std::to_string(a) +
                         " of shape " + to_string(x.shape()) + " has " + std::to_string(x.dim(a))));
  return std::vector<Tensor>(sizes.size());
}

Tensor full(Graph& g, const Shape& shape, double value, DType dtype) {
  return broadcast_to(g.constant(value, dtype), shape);
}
Tensor zeros_like(Tensor x) { return x.valid() ? zeros(x.graph(), x.shape(), x.dtype()) : Tensor(); }
Tensor ones_like(Tensor x) { return x.valid() ? ones(x.graph(), x.shape(), x.dtype()) : Tensor(); }

Tensor arange(Graph& g, int64_t n, DType dtype) {
  return g.apply(kArange, {}, AttrList().i(n).i(static_cast<int64_t>(dtype)));
}
Tensor eye(Graph& g, int64_t n, DType dtype) {
  const Tensor i = arange(g, n);
  return cast(equal(unsqueeze(i, 1), i), dtype);
}
Tensor tril(Tensor x, int64_t diagonal) { return triangle(x, diagonal, false); }
Tensor triu(Tensor x, int64_t diagonal) { return triangle(x, diagonal, true); }

OpList shape_ops() {
  static const auto ops = [] {
    std::array<const OpDef*, std::size(kViewOps) + std::size(kJoinOps) + 1> all{&kArange};
    const auto to = std::copy(std::begin(kViewOps), std::end(kViewOps), all.begin() + 1);
    std::copy(std::begin(kJoinOps), std::end(kJoinOps), to);
    return all;
  }();
  return ops;
}

}  // namespace tenon
