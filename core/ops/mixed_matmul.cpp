// mixed_matmul/1: products of mixed precision. f32 operands are rounded to bf16 (by casts that the planner
// writes out and shares, core/plan/expand.cpp); products and bias are summed in f32, the sum is rounded to
// the result's dtype. An f32 operand's derivative is not rounded: a weight's is f32 although it is multiplied
// as bf16. f64 is neither rounded nor converted, so that the derivatives can be checked.
#include "core/ops/mixed_matmul.h"

#include <string>

#include "core/ops/dense.h"
#include "core/ops/elementwise.h"
#include "core/ops/families.h"
#include "core/ops/matmul.h"
#include "core/ops/matmul_gradients.h"
#include "core/ops/sample_values.h"

namespace tenon {
namespace {

constexpr AttrSpec kAttrs[] = {
    {"transpose_a", AttrKind::i64}, {"transpose_b", AttrKind::i64}, {"result", AttrKind::i64}};
constexpr size_t kBias = 2;

const OpDef& plain_product() {
  static const OpDef* const op = find_op("matmul/1");
  return *op;
}

AttrList product_attrs(const Attrs& a) {
  return AttrList().i(a.flag("transpose_a")).i(a.flag("transpose_b"));
}

Status infer(const InferArgs& a) {
  const TensorType &x = a.in[0], &y = a.in[1];
  const bool exact = x.dtype == DType::f64;
  for (const TensorType* t : {&x, &y})
    if (!is_floating(t->dtype) || (t->dtype == DType::f64) != exact)
      return invalid("mixed_matmul: got " + to_string(x) + " and " + to_string(y) +
                     "; it wants f32 and bf16, in any mixture, or f64 twice (cast them first)");
  TN_ASSIGN(const DType result, dtype_attr("mixed_matmul", a.attrs.i("result")));
  if (result != DType::f32 && result != DType::bf16)
    return invalid("mixed_matmul: the result can be f32 or bf16, not " + std::string(name_of(result)));
  const DType sums = exact ? DType::f64 : DType::f32;
  const TensorType same[] = {{sums, x.shape}, {sums, y.shape}};
  const AttrList attrs = product_attrs(a.attrs);
  TN_RETURN_IF_ERROR(plain_product().infer({same, Attrs(plain_product().attrs, attrs.words()), a.out}));
  if (a.in.size() > kBias && a.in[kBias] != TensorType{sums, {a.out[0].shape.back()}})
    return invalid("mixed_matmul: the bias must be " + to_string(TensorType{sums, {a.out[0].shape.back()}}) +
                   ", got " + to_string(a.in[kBias]));
  a.out[0].dtype = exact ? DType::f64 : result;
  return Status::ok();
}

// An operand's elements as they are multiplied, in the type that they are summed in.
template <class A>
std::vector<A> rounded(const View& v) {
  if constexpr (std::is_same_v<A, double>) return dense<double>(v);
  std::vector<A> out;
  out.reserve(static_cast<size_t>(v.numel()));
  for_each_offset<1>(v.shape, {v.strides}, [&](int64_t o) {
    out.push_back(static_cast<A>(v.dtype == DType::bf16 ? static_cast<float>(v.as<bf16>()[o])
                                                        : static_cast<float>(bf16(v.as<float>()[o]))));
  });
  return out;
}

template <class A>
Status multiply(const KernelArgs& args) {
  constexpr DType type = dtype_of<A>;
  std::vector<A> a = rounded<A>(args.in[0]), b = rounded<A>(args.in[1]);
  const Shape& shape = args.out[0].shape;
  std::vector<A> c(static_cast<size_t>(shape.numel()));
  const View in[] = {{Layout(TensorType{type, args.in[0].shape}), a.data()},
                     {Layout(TensorType{type, args.in[1].shape}), b.data()}};
  const View out[] = {{Layout(TensorType{type, shape}), c.data()}};
  const AttrList attrs = product_attrs(args.attrs);
  TN_RETURN_IF_ERROR(
      plain_product().plain({.in = in, .out = out, .attrs = Attrs(plain_product().attrs, attrs.words())}));
  if (args.in.size() > kBias) {
    const std::vector<A> bias = dense<A>(args.in[kBias]);
    for (size_t i = 0; i < c.size(); ++i) c[i] += bias[i % bias.size()];
  }
  return dispatch_floating(args.out[0].dtype, [&](auto t) {
    using T = decltype(t);
    for (size_t i = 0; i < c.size(); ++i) args.out[0].as<T>()[i] = store<T>(c[i]);
    return Status::ok();
  });
}

Status plain(const KernelArgs& a) {
  return a.in[0].dtype == DType::f64 ? multiply<double>(a) : multiply<float>(a);
}

void vjp(VjpArgs& args) {
  const DType sums = args.in[0].dtype() == DType::f64 ? DType::f64 : DType::f32;
  operand_gradients(args, [](Tensor l, Tensor r, bool tl, bool tr, DType t) {
    return mixed_matmul(l, r, {},
                        {.transpose_a = tl, .transpose_b = tr, .result = t == DType::bf16 ? t : DType::f32});
  });
  if (args.in.size() > kBias && args.needed[kBias])
    args.grads[kBias] = sum_to(cast(args.cotangents[0], sums), args.in[kBias].shape());
}

// Values that bf16 holds, so that nothing is rounded before the sum.
HostArray sample_bf16(const Shape& shape, uint32_t seed) {
  HostArray a = sample_f64(shape, -1, 1, seed);
  for (int64_t i = 0; i < a.numel(); ++i)
    a.set(i, static_cast<double>(static_cast<float>(bf16(static_cast<float>(a.at(i))))));
  return a;
}

std::vector<Sample> samples() {
  const auto sample = [](const Shape& a, const Shape& b, int64_t bias, bool ta, bool tb, DType result) {
    Sample s{{sample_bf16(a, 1), sample_bf16(b, 2)}, AttrList().i(ta).i(tb).i(static_cast<int64_t>(result))};
    if (bias > 0) s.in.push_back(sample_bf16({bias}, 3));
    return s;
  };
  return {sample({5, 3}, {3, 7}, 7, false, false, DType::f32),
          sample({3, 5}, {3, 2}, 0, true, false, DType::bf16),
          sample({4, 3}, {2, 3}, 2, false, true, DType::bf16),
          sample({2, 3, 4}, {4, 5}, 5, false, false, DType::f32),
          sample({2, 1, 3, 4}, {3, 2, 4}, 0, false, true, DType::f32),
          sample({1, 1}, {1, 1}, 1, false, false, DType::f32),
          sample({2, 0}, {0, 3}, 3, false, false, DType::f32)};
}

constinit const OpDef kMixedMatmul = {.id = "mixed_matmul/1",
                                      .min_in = 2,
                                      .max_in = 3,
                                      .attrs = kAttrs,
                                      .infer = infer,
                                      .vjp = vjp,
                                      .plain = plain,
                                      .samples = samples};

}  // namespace

Tensor mixed_matmul(Tensor a, Tensor b, Tensor bias, const MixedMatmulOptions& o) {
  if (!a.valid() || !b.valid()) return {};
  std::vector<Tensor> in = {a, b};
  if (bias.valid()) in.push_back(bias);
  return a.graph().apply(kMixedMatmul, in,
                         AttrList().i(o.transpose_a).i(o.transpose_b).i(static_cast<int64_t>(o.result)));
}

OpList mixed_matmul_ops() {
  static constexpr const OpDef* ops[] = {&kMixedMatmul};
  return ops;
}

}  // namespace tenon
