// Random ops on Philox blocks: uniform, normal, exponential, gumbel, integers, bernoulli, fold_in.
//
// Element i of an f32 draw is made of word i % 4 of block i / 4; of an f64 draw, of word pair i % 2 of block
// i / 2.
#include "core/ops/random.h"

#include <cmath>
#include <limits>
#include <string>

#include "core/base/philox.h"
#include "core/ops/dense.h"
#include "core/ops/elementwise.h"
#include "core/ops/families.h"
#include "core/ops/kernel_util.h"
#include "core/ops/random_ops.h"
#include "core/ops/sample_values.h"
#include "core/ops/shape.h"

namespace tenon {
namespace {

using random::key_of;
using random::open_unit;
using random::Stream;

// Bits of element i as the type needs them: 32 for f32 and bf16, 64 for f64.
template <class T>
auto element_bits(Stream& stream, uint64_t i) {
  if constexpr (std::is_same_v<T, double>)
    return stream.bits64(i);
  else
    return stream.bits32(i);
}

// [0, 1): the top 24, 53 or (bf16) 8 bits, which the type holds exactly.
template <class T>
T uniform(Stream& stream, uint64_t i) {
  const auto bits = element_bits<T>(stream, i);
  if constexpr (std::is_same_v<T, double>)
    return static_cast<double>(bits >> 11) * 0x1p-53;
  else if constexpr (std::is_same_v<T, float>)
    return static_cast<float>(bits >> 8) * 0x1p-24f;
  else
    return bf16(static_cast<float>(bits >> 24) * 0x1p-8f);
}

// Box-Muller on the pair of uniforms that elements i and i ^ 1 share: cosine for the even, sine for the odd
// one.
template <class T>
T normal(Stream& stream, uint64_t i) {
  using A = Arith<T>;
  const auto radius_bits = element_bits<T>(stream, i & ~uint64_t{1}),
             angle_bits = element_bits<T>(stream, i | 1);
  const A radius = std::sqrt(A(-2) * static_cast<A>(std::log(open_unit(radius_bits))));
  const A angle = static_cast<A>(open_unit(angle_bits) * 6.283185307179586);
  return store<T>(radius * (i % 2 ? std::sin(angle) : std::cos(angle)));
}

template <class T>
T exponential(Stream& stream, uint64_t i) {
  return store<T>(-std::log(open_unit(element_bits<T>(stream, i))));
}

template <class T>
T gumbel(Stream& stream, uint64_t i) {
  return store<T>(-std::log(-std::log(open_unit(element_bits<T>(stream, i)))));
}

constexpr AttrSpec kDrawAttrs[] = {{"shape", AttrKind::ints}, {"dtype", AttrKind::i64}};

Status infer_draw(const InferArgs& a) {
  TN_RETURN_IF_ERROR(random::check_key("random", a.in[0]));
  TN_ASSIGN(const Shape shape, random::shape_attr("random", a.attrs));
  const int64_t dtype = a.attrs.i("dtype");
  if (dtype < 0 || dtype >= kDTypeCount || !is_floating(static_cast<DType>(dtype)))
    return invalid("random: the dtype of random numbers must be f32, f64 or bf16");
  a.out = {{static_cast<DType>(dtype), shape}};
  return Status::ok();
}

enum class Law { uniform, normal, exponential, gumbel };

template <Law law>
Status plain_draw(const KernelArgs& a) {
  Stream stream(key_of(a.in[0]));
  return dispatch_floating(a.out[0].dtype, [&](auto t) {
    using T = decltype(t);
    T* out = a.out[0].template as<T>();
    const auto n = static_cast<uint64_t>(a.out[0].numel());
    for (uint64_t i = 0; i < n; ++i) {
      if constexpr (law == Law::uniform)
        out[i] = uniform<T>(stream, i);
      else if constexpr (law == Law::normal)
        out[i] = normal<T>(stream, i);
      else if constexpr (law == Law::exponential)
        out[i] = exponential<T>(stream, i);
      else
        out[i] = gumbel<T>(stream, i);
    }
    return Status::ok();
  });
}

std::vector<Sample> draw_samples() {
  const auto sample = [](const Shape& shape, DType dtype) {
    return Sample{{random::sample_key()}, AttrList().ints(shape).i(static_cast<int64_t>(dtype))};
  };
  return {sample({7}, DType::f32), sample({3, 5}, DType::f64), sample({}, DType::f32),
          sample({2, 3}, DType::bf16), sample({0, 4}, DType::f32)};
}

constexpr AttrSpec kIntegerAttrs[] = {
    {"shape", AttrKind::ints}, {"low", AttrKind::i64}, {"high", AttrKind::i64, true}};

Status infer_integers(const InferArgs& a) {
  TN_RETURN_IF_ERROR(random::check_key("random_integers", a.in[0]));
  TN_ASSIGN(const Shape shape, random::shape_attr("random_integers", a.attrs));
  if (a.attrs.i("low") >= a.attrs.i("high"))
    return invalid("random_integers: the range [" + std::to_string(a.attrs.i("low")) + ", " +
                   std::to_string(a.attrs.i("high")) + ") is empty; low must be less than high");
  a.out = {{DType::i64, shape}};
  return Status::ok();
}

// low + floor(bits * (high - low) / 2^64); the bias is below (high - low) / 2^64.
Status plain_integers(const KernelArgs& a) {
  Stream stream(key_of(a.in[0]));
  const auto low = static_cast<uint64_t>(a.attrs.i("low"));
  const uint64_t range = static_cast<uint64_t>(a.attrs.i("high")) - low;
  int64_t* out = a.out[0].as<int64_t>();
  for (uint64_t i = 0; i < static_cast<uint64_t>(a.out[0].numel()); ++i) {
    const auto wide = static_cast<unsigned __int128>(stream.bits64(i)) * range;
    out[i] = static_cast<int64_t>(low + static_cast<uint64_t>(wide >> 64));
  }
  return Status::ok();
}

std::vector<Sample> integer_samples() {
  const Shape shape{3, 3}, empty{0};
  return {{{random::sample_key()}, AttrList().ints(shape).i(-2).i(5)},
          {{random::sample_key()}, AttrList().ints(empty).i(0).i(1)}};
}

constexpr AttrSpec kBernoulliAttrs[] = {{"shape", AttrKind::ints}};

Status infer_bernoulli(const InferArgs& a) {
  TN_RETURN_IF_ERROR(random::check_key("random_bernoulli", a.in[0]));
  TN_ASSIGN(const Shape wanted, random::shape_attr("random_bernoulli", a.attrs));
  const Shape& p = a.in[1].shape;
  const Shape shape = wanted.empty() ? p : wanted;
  if (!is_floating(a.in[1].dtype) || broadcast_shapes(p, shape) != shape)
    return invalid("random_bernoulli: probabilities " + to_string(a.in[1]) +
                   " must be floating and broadcast to " + to_string(shape));
  a.out = {{DType::boolean, shape}};
  return Status::ok();
}

Status plain_bernoulli(const KernelArgs& a) {
  Stream stream(key_of(a.in[0]));
  return dispatch_floating(a.in[1].dtype, [&](auto t) {
    using T = decltype(t);
    using U = Arith<T>;
    bool* out = a.out[0].template as<bool>();
    uint64_t i = 0;
    for_each_offset<1>(a.out[0].shape, {broadcast_strides(a.in[1], a.out[0].shape)}, [&](int64_t at) {
      out[i] = uniform<U>(stream, i) < load(a.in[1].template as<T>()[at]);
      ++i;
    });
    return Status::ok();
  });
}

std::vector<Sample> bernoulli_samples() {
  const Shape none{}, wide{3, 4};
  return {{{random::sample_key(), sample_f64({2, 5}, 0, 1)}, AttrList().ints(none)},
          {{random::sample_key(), sample_f64({4}, 0, 1)}, AttrList().ints(wide)},
          {{random::sample_key(), sample_f64({}, 0, 1)}, AttrList().ints(wide)},
          {{random::sample_key(), sample_f64({0, 2}, 0, 1)}, AttrList().ints(none)}};
}

constexpr AttrSpec kFoldAttrs[] = {{"number", AttrKind::i64, true}};

Status infer_fold_in(const InferArgs& a) {
  TN_RETURN_IF_ERROR(random::check_key("fold_in", a.in[0]));
  a.out = {{DType::i64, {}}};
  return Status::ok();
}

Status plain_fold_in(const KernelArgs& a) {
  const uint64_t key = philox_split(key_of(a.in[0]), static_cast<uint64_t>(a.attrs.i("number")));
  *a.out[0].as<int64_t>() = static_cast<int64_t>(key);
  return Status::ok();
}

std::vector<Sample> fold_samples() {
  return {{{random::sample_key()}, AttrList().i(0)}, {{random::sample_key()}, AttrList().i(7)}};
}

constinit const OpDef kUniform = {.id = "random_uniform/1",
                                  .attrs = kDrawAttrs,
                                  .infer = infer_draw,
                                  .plain = plain_draw<Law::uniform>,
                                  .samples = draw_samples};
constinit const OpDef kNormal = {.id = "random_normal/1",
                                 .attrs = kDrawAttrs,
                                 .infer = infer_draw,
                                 .plain = plain_draw<Law::normal>,
                                 .samples = draw_samples};
constinit const OpDef kExponential = {.id = "random_exponential/1",
                                      .attrs = kDrawAttrs,
                                      .infer = infer_draw,
                                      .plain = plain_draw<Law::exponential>,
                                      .samples = draw_samples};
constinit const OpDef kGumbel = {.id = "random_gumbel/1",
                                 .attrs = kDrawAttrs,
                                 .infer = infer_draw,
                                 .plain = plain_draw<Law::gumbel>,
                                 .samples = draw_samples};
constinit const OpDef kIntegers = {.id = "random_integers/1",
                                   .attrs = kIntegerAttrs,
                                   .infer = infer_integers,
                                   .plain = plain_integers,
                                   .samples = integer_samples};
constinit const OpDef kBernoulli = {.id = "random_bernoulli/1",
                                    .min_in = 2,
                                    .max_in = 2,
                                    .attrs = kBernoulliAttrs,
                                    .infer = infer_bernoulli,
                                    .plain = plain_bernoulli,
                                    .samples = bernoulli_samples};
constinit const OpDef kFoldIn = {.id = "fold_in/1",
                                 .attrs = kFoldAttrs,
                                 .infer = infer_fold_in,
                                 .plain = plain_fold_in,
                                 .samples = fold_samples};

Tensor draw(const OpDef& op, Tensor key, const Shape& shape, DType dtype) {
  if (!key.valid()) return {};
  return key.graph().apply(op, {key}, AttrList().ints(shape).i(static_cast<int64_t>(dtype)));
}

}  // namespace

Tensor fold_in(Tensor key, int64_t number) {
  return key.valid() ? key.graph().apply(kFoldIn, {key}, AttrList().i(number)) : Tensor();
}

Tensor random_uniform(Tensor key, const Shape& shape, DType dtype) {
  return draw(kUniform, key, shape, dtype);
}
Tensor random_normal(Tensor key, const Shape& shape, DType dtype) { return draw(kNormal, key, shape, dtype); }
Tensor random_exponential(Tensor key, const Shape& shape, DType dtype) {
  return draw(kExponential, key, shape, dtype);
}
Tensor random_gumbel(Tensor key, const Shape& shape, DType dtype) { return draw(kGumbel, key, shape, dtype); }

Tensor random_integers(Tensor key, const Shape& shape, int64_t low, int64_t high) {
  return key.valid() ? key.graph().apply(kIntegers, {key}, AttrList().ints(shape).i(low).i(high)) : Tensor();
}

Tensor random_bernoulli(Tensor key, Tensor p) {
  return key.valid() ? key.graph().apply(kBernoulli, {key, p}, AttrList().ints(Dims())) : Tensor();
}

Tensor random_bernoulli(Tensor key, const Shape& shape, double p) {
  if (!key.valid()) return {};
  return key.graph().apply(kBernoulli, {key, key.graph().scalar(p)}, AttrList().ints(shape));
}

OpList random_ops() {
  static constexpr const OpDef* ops[] = {&kUniform,   &kNormal, &kExponential, &kGumbel,      &kIntegers,
                                         &kBernoulli, &kFoldIn, &kGamma,       &kPermutation, &kCategorical};
  return ops;
}

}  // namespace tenon
