// Functions of one real variable. x: any shape -> the same shape and dtype.
#include <limits>

#include "core/ops/elementwise_table.h"
#include "core/tensor/saturate.h"

namespace tenon {
namespace {

constexpr double kTwoOverSqrtPi = 1.12837916709551257390;
constexpr double kSqrtHalf = 0.70710678118654752440;
constexpr double kInvSqrt2Pi = 0.39894228040143267794;
constexpr double kSqrt2OverPi = 0.79788456080286535588;

// g where cond, else zero.
Tensor keep_where(Tensor cond, Tensor g) { return where(cond, g, constant_like(g, 0)); }

// Numbers in derivatives never change, so they are part of the structure.
Tensor times(Tensor x, double v) { return mul(x, constant_like(x, v)); }
Tensor plus(Tensor x, double v) { return add(x, constant_like(x, v)); }
Tensor one_minus(Tensor x) { return sub(constant_like(x, 1), x); }

struct Neg {
  static constexpr std::string_view id = "neg/1";
  static constexpr bool ints = true;
  static constexpr double low = -2, high = 1.5;
  template <class A>
  static A f(A x) {
    if constexpr (std::is_integral_v<A>)
      return wrap_sub(A{0}, x);
    else
      return -x;
  }
  static Tensor d(Tensor, Tensor, Tensor g) { return neg(g); }
};
struct Exp {
  static constexpr std::string_view id = "exp/1";
  static constexpr double low = -2, high = 1.5;
  static auto f(auto x) { return std::exp(x); }
  static Tensor d(Tensor, Tensor y, Tensor g) { return g * y; }
};
struct Log {
  static constexpr std::string_view id = "log/1";
  static constexpr double low = 0.3, high = 3;
  static auto f(auto x) { return std::log(x); }
  static Tensor d(Tensor x, Tensor, Tensor g) { return g / x; }
};
struct Log1p {
  static constexpr std::string_view id = "log1p/1";
  static constexpr double low = -0.6, high = 2;
  static auto f(auto x) { return std::log1p(x); }
  static Tensor d(Tensor x, Tensor, Tensor g) { return g / plus(x, 1); }
};
struct Expm1 {
  static constexpr std::string_view id = "expm1/1";
  static constexpr double low = -2, high = 1.5;
  static auto f(auto x) { return std::expm1(x); }
  static Tensor d(Tensor x, Tensor, Tensor g) { return g * exp(x); }  // y + 1 would cancel for negative x
};
struct Sqrt {
  static constexpr std::string_view id = "sqrt/1";
  static constexpr double low = 0.3, high = 3;
  static auto f(auto x) { return std::sqrt(x); }
  static Tensor d(Tensor, Tensor y, Tensor g) { return g / add(y, y); }
};
struct Rsqrt {
  static constexpr std::string_view id = "rsqrt/1";
  static constexpr double low = 0.3, high = 3;
  static auto f(auto x) { return 1 / std::sqrt(x); }
  static Tensor d(Tensor, Tensor y, Tensor g) { return times(g * y * square(y), -0.5); }
};
struct Square {
  static constexpr std::string_view id = "square/1";
  static constexpr bool ints = true;
  static constexpr double low = -2, high = 1.5;
  static auto f(auto x) { return wrap_mul(x, x); }
  static Tensor d(Tensor x, Tensor, Tensor g) { return g * add(x, x); }
};
struct Reciprocal {
  static constexpr std::string_view id = "reciprocal/1";
  static constexpr double low = 0.4, high = 2;
  static auto f(auto x) { return 1 / x; }
  static Tensor d(Tensor, Tensor y, Tensor g) { return neg(g * square(y)); }
};
struct Tanh {
  static constexpr std::string_view id = "tanh/1";
  static constexpr double low = -2, high = 1.5;
  static auto f(auto x) { return std::tanh(x); }
  static Tensor d(Tensor, Tensor y, Tensor g) { return g * one_minus(square(y)); }
};
struct Sigmoid {
  static constexpr std::string_view id = "sigmoid/1";
  static constexpr double low = -2, high = 1.5;
  static auto f(auto x) { return 1 / (1 + std::exp(-x)); }
  static Tensor d(Tensor, Tensor y, Tensor g) { return g * y * one_minus(y); }
};
struct Softplus {  // max(x, 0) + log(1 + e^-|x|)
  static constexpr std::string_view id = "softplus/1";
  static constexpr double low = -2, high = 1.5;
  template <class A>
  static A f(A x) {
    return std::isnan(x) ? x : (x > 0 ? x : A{0}) + std::log1p(std::exp(-std::abs(x)));
  }
  static Tensor d(Tensor x, Tensor, Tensor g) { return g * sigmoid(x); }
};
struct Erf {
  static constexpr std::string_view id = "erf/1";
  static constexpr double low = -2, high = 1.5;
  static auto f(auto x) { return std::erf(x); }
  static Tensor d(Tensor x, Tensor, Tensor g) { return times(g, kTwoOverSqrtPi) * exp(neg(square(x))); }
};
struct Gelu {  // x Phi(x); derivative Phi(x) + x phi(x)
  static constexpr std::string_view id = "gelu/1";
  static constexpr double low = -2, high = 1.5;
  template <class A>
  static A f(A x) {
    return x * (static_cast<A>(0.5) * (1 + std::erf(x * static_cast<A>(kSqrtHalf))));
  }
  static Tensor d(Tensor x, Tensor, Tensor g) {
    const Tensor cdf = times(plus(erf(times(x, kSqrtHalf)), 1), 0.5);
    const Tensor pdf = times(exp(times(square(x), -0.5)), kInvSqrt2Pi);
    return g * (cdf + x * pdf);
  }
};
struct GeluTanh {  // 0.5 x (1 + tanh u), u = sqrt(2/pi) (x + 0.044715 x^3)
  static constexpr std::string_view id = "gelu_tanh/1";
  static constexpr double low = -2, high = 1.5;
  template <class A>
  static A f(A x) {
    const A u = static_cast<A>(kSqrt2OverPi) * (x + static_cast<A>(0.044715) * x * x * x);
    return static_cast<A>(0.5) * x * (1 + std::tanh(u));
  }
  static Tensor d(Tensor x, Tensor, Tensor g) {
    const Tensor x2 = square(x);
    const Tensor t = tanh(times(x * plus(times(x2, 0.044715), 1), kSqrt2OverPi));
    const Tensor du = times(plus(times(x2, 3 * 0.044715), 1), kSqrt2OverPi);
    return times(g, 0.5) * (plus(t, 1) + x * one_minus(square(t)) * du);
  }
};
struct Silu {
  static constexpr std::string_view id = "silu/1";
  static constexpr double low = -2, high = 1.5;
  static auto f(auto x) { return x * (1 / (1 + std::exp(-x))); }
  static Tensor d(Tensor x, Tensor, Tensor g) {
    const Tensor s = sigmoid(x);
    return g * s * plus(x * one_minus(s), 1);
  }
};
struct Relu {  // NaN stays NaN, -0 becomes 0
  static constexpr std::string_view id = "relu/1";
  static constexpr bool ints = true;
  static constexpr double low = -2, high = 1.5;
  template <class A>
  static A f(A x) {
    return x <= 0 ? A{0} : x;
  }
  // By the result, which is kept for other readers anyway: y > 0 where x > 0.
  static Tensor d(Tensor, Tensor y, Tensor g) { return keep_where(greater(y, constant_like(y, 0)), g); }
};
struct Sin {
  static constexpr std::string_view id = "sin/1";
  static constexpr double low = -2, high = 1.5;
  static auto f(auto x) { return std::sin(x); }
  static Tensor d(Tensor x, Tensor, Tensor g) { return g * cos(x); }
};
struct Cos {
  static constexpr std::string_view id = "cos/1";
  static constexpr double low = -2, high = 1.5;
  static auto f(auto x) { return std::cos(x); }
  static Tensor d(Tensor x, Tensor, Tensor g) { return neg(g * sin(x)); }
};
struct Asin {
  static constexpr std::string_view id = "asin/1";
  static constexpr double low = -0.8, high = 0.7;
  static auto f(auto x) { return std::asin(x); }
  static Tensor d(Tensor x, Tensor, Tensor g) { return g * rsqrt(one_minus(square(x))); }
};
struct Acos {
  static constexpr std::string_view id = "acos/1";
  static constexpr double low = -0.8, high = 0.7;
  static auto f(auto x) { return std::acos(x); }
  static Tensor d(Tensor x, Tensor, Tensor g) { return neg(g * rsqrt(one_minus(square(x)))); }
};
struct Atan {
  static constexpr std::string_view id = "atan/1";
  static constexpr double low = -2, high = 1.5;
  static auto f(auto x) { return std::atan(x); }
  static Tensor d(Tensor x, Tensor, Tensor g) { return g / plus(square(x), 1); }
};
struct Abs {
  static constexpr std::string_view id = "abs/1";
  static constexpr bool ints = true;
  static constexpr double low = -2, high = 1.5;
  template <class A>
  static A f(A x) {
    if constexpr (std::is_floating_point_v<A>)
      return std::abs(x);
    else
      return x < 0 ? wrap_sub(A{0}, x) : x;
  }
  static Tensor d(Tensor x, Tensor, Tensor g) { return g * sign(x); }
};
struct Sign {
  static constexpr std::string_view id = "sign/1";
  static constexpr bool ints = true;
  static constexpr double low = -2, high = 1.5;
  template <class A>
  static A f(A x) {
    return x > 0 ? A{1} : x < 0 ? static_cast<A>(-1) : x == 0 ? A{0} : x;
  }
};
struct Floor {
  static constexpr std::string_view id = "floor/1";
  static constexpr double low = -2, high = 1.5;
  static auto f(auto x) { return std::floor(x); }
};
struct Ceil {
  static constexpr std::string_view id = "ceil/1";
  static constexpr double low = -2, high = 1.5;
  static auto f(auto x) { return std::ceil(x); }
};
struct Round {  // half to even, in the default rounding mode
  static constexpr std::string_view id = "round/1";
  static constexpr double low = -2, high = 1.5;
  static auto f(auto x) { return std::nearbyint(x); }
};

// --- With attributes ---

constexpr AttrSpec kLeakyReluAttrs[] = {{"slope", AttrKind::f64, false, 0, 0.01}};

Status infer_leaky_relu(const InferArgs& a) {
  TN_RETURN_IF_ERROR(want_floating("leaky_relu", a.in[0]));
  a.out = {a.in[0]};
  return Status::ok();
}
Status plain_leaky_relu(const KernelArgs& a) {
  return dispatch_floating(a.in[0].dtype, [&](auto t) {
    using T = decltype(t);
    using A = Arith<T>;
    const A slope = static_cast<A>(a.attrs.f("slope"));
    map_elements<T, T>(a.in[0], a.out[0], [slope](A x) { return x > 0 ? x : x * slope; });
    return Status::ok();
  });
}
void vjp_leaky_relu(VjpArgs& a) {
  const Tensor x = a.in[0], g = a.cotangents[0];
  a.grads[0] = where(greater(x, constant_like(x, 0)), g, times(g, a.attrs.f("slope")));
}
std::vector<Sample> leaky_relu_samples() {
  std::vector<Sample> samples = unary_samples<Relu>();
  for (Sample& s : samples) s.attrs.f(0.1);
  return samples;
}

constexpr AttrSpec kClampAttrs[] = {
    {"min", AttrKind::f64, false, 0, -std::numeric_limits<double>::infinity()},
    {"max", AttrKind::f64, false, 0, std::numeric_limits<double>::infinity()}};

Status infer_clamp(const InferArgs& a) {
  TN_RETURN_IF_ERROR(want_numbers<true>("clamp", a.in[0]));
  const double low = a.attrs.f("min"), high = a.attrs.f("max");
  if (!(low <= high))
    return invalid("clamp: min " + std::to_string(low) + " and max " + std::to_string(high) +
                   " leave no value; min must not be above max");
  a.out = {a.in[0]};
  return Status::ok();
}
// A bound as a number of type A; for integers the nearest one inside the bounds that the type can hold.
template <class A>
A bound(double v, bool lower) {
  if constexpr (std::is_integral_v<A>)
    return saturate<A>(lower ? std::ceil(v) : std::floor(v));
  else
    return static_cast<A>(v);
}
Status plain_clamp(const KernelArgs& a) {
  return dispatch_numbers<true>(a.in[0].dtype, [&](auto t) {
    using T = decltype(t);
    using A = Arith<T>;
    const A low = bound<A>(a.attrs.f("min"), true), high = bound<A>(a.attrs.f("max"), false);
    map_elements<T, T>(a.in[0], a.out[0], [=](A x) {
      const A y = x < low ? low : x;
      return y > high ? high : y;
    });
    return Status::ok();
  });
}
void vjp_clamp(VjpArgs& a) {
  const Tensor x = a.in[0];
  const Tensor low = constant_like(x, a.attrs.f("min")), high = constant_like(x, a.attrs.f("max"));
  a.grads[0] = keep_where(logical_and(greater_equal(x, low), less_equal(x, high)), a.cotangents[0]);
}
std::vector<Sample> clamp_samples() {
  std::vector<Sample> samples = unary_samples<Relu>();
  for (Sample& s : samples) s.attrs.f(-0.9).f(0.7);
  return samples;
}

// Rounds half to even; the derivative is that of the identity.
Status infer_round_ste(const InferArgs& a) {
  TN_RETURN_IF_ERROR(want_floating("round_ste", a.in[0]));
  a.out = {a.in[0]};
  return Status::ok();
}
void vjp_identity(VjpArgs& a) { a.grads[0] = a.cotangents[0]; }
std::vector<Sample> round_ste_samples() {
  std::vector<Sample> samples = unary_samples<Round>();
  for (Sample& s : samples) s.constant = {0};  // by design not the derivative of the value
  return samples;
}

constinit const OpDef kNeg = unary<Neg>(), kExp = unary<Exp>(), kLog = unary<Log>(), kLog1p = unary<Log1p>(),
                      kExpm1 = unary<Expm1>(), kSqrt = unary<Sqrt>(), kRsqrt = unary<Rsqrt>(),
                      kSquare = unary<Square>(), kReciprocal = unary<Reciprocal>(), kTanh = unary<Tanh>(),
                      kSigmoid = unary<Sigmoid>(), kSoftplus = unary<Softplus>(), kErf = unary<Erf>(),
                      kGelu = unary<Gelu>(), kGeluTanh = unary<GeluTanh>(), kSilu = unary<Silu>(),
                      kRelu = unary<Relu>(), kSin = unary<Sin>(), kCos = unary<Cos>(), kAsin = unary<Asin>(),
                      kAcos = unary<Acos>(), kAtan = unary<Atan>(), kAbs = unary<Abs>(),
                      kSign = unary<Sign>(), kFloor = unary<Floor>(), kCeil = unary<Ceil>(),
                      kRound = unary<Round>();
constinit const OpDef kLeakyRelu{.id = "leaky_relu/1",
                                 .attrs = kLeakyReluAttrs,
                                 .infer = infer_leaky_relu,
                                 .vjp = vjp_leaky_relu,
                                 .plain = plain_leaky_relu,
                                 .samples = leaky_relu_samples,
                                 .elementwise = true};
constinit const OpDef kClamp{.id = "clamp/1",
                             .attrs = kClampAttrs,
                             .infer = infer_clamp,
                             .vjp = vjp_clamp,
                             .plain = plain_clamp,
                             .samples = clamp_samples,
                             .elementwise = true};
constinit const OpDef kRoundSte{.id = "round_ste/1",
                                .infer = infer_round_ste,
                                .vjp = vjp_identity,
                                .plain = plain_unary<Round>,
                                .samples = round_ste_samples,
                                .elementwise = true};

}  // namespace

constinit const OpDef* const kUnaryOps[] = {
    &kNeg,     &kExp,      &kLog,  &kLog1p, &kExpm1,    &kSqrt,  &kRsqrt, &kSquare,    &kReciprocal, &kTanh,
    &kSigmoid, &kSoftplus, &kErf,  &kGelu,  &kGeluTanh, &kSilu,  &kRelu,  &kLeakyRelu, &kSin,        &kCos,
    &kAsin,    &kAcos,     &kAtan, &kAbs,   &kSign,     &kFloor, &kCeil,  &kRound,     &kRoundSte,   &kClamp};

Tensor neg(Tensor x) { return apply_plainly(kNeg, {x}); }
Tensor exp(Tensor x) { return apply_plainly(kExp, {x}); }
Tensor log(Tensor x) { return apply_plainly(kLog, {x}); }
Tensor log1p(Tensor x) { return apply_plainly(kLog1p, {x}); }
Tensor expm1(Tensor x) { return apply_plainly(kExpm1, {x}); }
Tensor sqrt(Tensor x) { return apply_plainly(kSqrt, {x}); }
Tensor rsqrt(Tensor x) { return apply_plainly(kRsqrt, {x}); }
Tensor square(Tensor x) { return apply_plainly(kSquare, {x}); }
Tensor reciprocal(Tensor x) { return apply_plainly(kReciprocal, {x}); }
Tensor tanh(Tensor x) { return apply_plainly(kTanh, {x}); }
Tensor sigmoid(Tensor x) { return apply_plainly(kSigmoid, {x}); }
Tensor softplus(Tensor x) { return apply_plainly(kSoftplus, {x}); }
Tensor erf(Tensor x) { return apply_plainly(kErf, {x}); }
Tensor gelu(Tensor x) { return apply_plainly(kGelu, {x}); }
Tensor gelu_tanh(Tensor x) { return apply_plainly(kGeluTanh, {x}); }
Tensor silu(Tensor x) { return apply_plainly(kSilu, {x}); }
Tensor relu(Tensor x) { return apply_plainly(kRelu, {x}); }
Tensor sin(Tensor x) { return apply_plainly(kSin, {x}); }
Tensor cos(Tensor x) { return apply_plainly(kCos, {x}); }
Tensor asin(Tensor x) { return apply_plainly(kAsin, {x}); }
Tensor acos(Tensor x) { return apply_plainly(kAcos, {x}); }
Tensor atan(Tensor x) { return apply_plainly(kAtan, {x}); }
Tensor abs(Tensor x) { return apply_plainly(kAbs, {x}); }
Tensor sign(Tensor x) { return apply_plainly(kSign, {x}); }
Tensor floor(Tensor x) { return apply_plainly(kFloor, {x}); }
Tensor ceil(Tensor x) { return apply_plainly(kCeil, {x}); }
Tensor round(Tensor x) { return apply_plainly(kRound, {x}); }
Tensor round_ste(Tensor x) { return apply_plainly(kRoundSte, {x}); }

Tensor leaky_relu(Tensor x, double slope) {
  return x.valid() ? x.graph().apply(kLeakyRelu, {x}, AttrList().f(slope)) : Tensor();
}
Tensor clamp(Tensor x, double lo, double hi) {
  return x.valid() ? x.graph().apply(kClamp, {x}, AttrList().f(lo).f(hi)) : Tensor();
}

}  // namespace tenon
