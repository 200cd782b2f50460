// Vector math with the special values that Highway's functions leave out. Per target: no include guard of the
// usual kind.
#if defined(TENON_TILE_MATH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TENON_TILE_MATH_INL_H_
#undef TENON_TILE_MATH_INL_H_
#else
#define TENON_TILE_MATH_INL_H_
#endif

#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

#include <cmath>
#include <limits>

#include "backends/cpu/partial-inl.h"
#include "backends/cpu/tile_exp.h"

HWY_BEFORE_NAMESPACE();
namespace tenon::cpu::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

template <class D, class V = hn::Vec<D>>
HWY_INLINE V constant(D d, double v) {
  return hn::Set(d, static_cast<Value<D>>(v));
}

// f applied to each lane; for functions that are rare or need libm's range.
template <class D, class V, class F>
HWY_INLINE V lanewise(D d, V x, F f) {
  HWY_ALIGN Value<D> lanes[HWY_MAX_BYTES / sizeof(Value<D>)];
  hn::Store(x, d, lanes);
  for (size_t i = 0; i < hn::Lanes(d); ++i) lanes[i] = f(lanes[i]);
  return hn::Load(d, lanes);
}

// Whether b comes before a as the maximum of several, given that a stands first: the first maximum, NaN above all.
template <class V>
HWY_INLINE auto beats(V a, V b) {
  return hn::And(hn::Not(hn::Le(b, a)), hn::Eq(a, a));
}

// `y` where x is a number, x (NaN) elsewhere.
template <class D, class V>
HWY_INLINE V keep_nan(D, V x, V y) {
  return hn::IfThenElse(hn::Eq(x, x), y, x);
}

// e^x in f32 where the exponent can be applied by one instruction that knows about underflow and overflow,
// and a table of 32 numbers looked up by one: 2^n e^r with 32 n an integer, |r| <= ln(2) / 64, and e^r to the
// third power, within 1.01 ulp.
#if HWY_TARGET == HWY_AVX3
template <class D, class V>
HWY_INLINE V exp_f32(D d, V x) {
  const auto c = [&](double v) HWY_ATTR { return constant<D, V>(d, v); };
  // Where the result is 0 or inf in any case. These two give their second operand if one is NaN.
  x = V{_mm512_max_ps(c(kExp.lowest).raw, _mm512_min_ps(c(kExp.highest).raw, x.raw))};
  const V n{_mm512_roundscale_ps(hn::Mul(x, c(kExp.log2_e)).raw, kExp.round_to_32nd)};
  V r = hn::NegMulAdd(n, c(kExp.ln2_high), x);
  r = hn::NegMulAdd(n, c(kExp.ln2_low), r);
  // 32 n lies in the lowest bits of this sum, of which the table takes five: 2^(n - floor(n)).
  const __m512i place = _mm512_castps_si512(hn::Add(n, c(kExp.shift)).raw);
  const V t{_mm512_permutex2var_ps(_mm512_loadu_ps(kExp.table), place, _mm512_loadu_ps(kExp.table + 16))};
  V p = hn::MulAdd(c(kExp.third), r, c(0.5));
  p = hn::MulAdd(p, r, c(1));
  p = hn::MulAdd(t, hn::Mul(p, r), t);
  return V{_mm512_scalef_ps(p.raw, n.raw)};
}
#endif

template <class D, class V>
HWY_INLINE V math_exp(D d, V x) {
#if HWY_TARGET == HWY_AVX3
  if constexpr (sizeof(Value<D>) == 4 && hn::MaxLanes(D()) == 16) return exp_f32(d, x);
#endif
  // Beyond these bounds the result is inf or 0 in any case, but the exponent arithmetic would wrap.
  const bool f32 = sizeof(Value<D>) == 4;
  const V hi = constant<D, V>(d, f32 ? 100.0 : 720.0), lo = constant<D, V>(d, f32 ? -110.0 : -760.0);
  const V y = hn::Exp(d, hn::Max(hn::Min(x, hi), lo));
  return keep_nan(d, x, y);
}

template <class D, class V>
HWY_INLINE V math_expm1(D d, V x) {
  const bool f32 = sizeof(Value<D>) == 4;
  const V hi = constant<D, V>(d, f32 ? 100.0 : 720.0), lo = constant<D, V>(d, f32 ? -50.0 : -100.0);
  const V y = hn::Expm1(d, hn::Max(hn::Min(x, hi), lo));
  const V inf = hn::Set(d, std::numeric_limits<Value<D>>::infinity());
  return keep_nan(d, x,
                  hn::IfThenElse(hn::Gt(x, constant<D, V>(d, f32 ? 88.722839 : 709.782712893384)), inf, y));
}

// log(x) for x > 0 from `y`; -inf at 0, NaN below, inf at inf.
template <class D, class V>
HWY_INLINE V log_limits(D d, V x, V y) {
  using T = Value<D>;
  const V inf = hn::Set(d, std::numeric_limits<T>::infinity()), zero = hn::Zero(d);
  y = hn::IfThenElse(hn::Gt(x, zero), y, hn::Set(d, std::numeric_limits<T>::quiet_NaN()));
  y = hn::IfThenElse(hn::Eq(x, zero), hn::Neg(inf), y);
  return keep_nan(d, x, hn::IfThenElse(hn::Eq(x, inf), inf, y));
}

template <class D, class V>
HWY_INLINE V math_log(D d, V x) {
  return log_limits(d, x, hn::Log(d, x));
}

template <class D, class V>
HWY_INLINE V math_log1p(D d, V x) {
  const V one = constant<D, V>(d, 1), x1 = hn::Add(x, one);
  // Tiny x are their own logarithm, and keep their sign of zero.
  const V y = log_limits(d, x1, hn::Log1p(d, x));
  return hn::IfThenElse(hn::Eq(x1, one), x, y);
}

template <class D, class V>
HWY_INLINE V math_tanh(D d, V x) {
  // With |x| capped where tanh has become 1, the underlying expm1 can't overflow.
  const V a = hn::Min(hn::Abs(x), constant<D, V>(d, 20));
  return keep_nan(d, x, hn::CopySignToAbs(hn::Abs(hn::Tanh(d, a)), x));
}

template <class D, class V>
HWY_INLINE V math_sigmoid(D d, V x) {
  const V one = constant<D, V>(d, 1);
  return hn::Div(one, hn::Add(one, math_exp(d, hn::Neg(x))));
}

template <class D, class V>
HWY_INLINE V math_softplus(D d, V x) {
  const V y = hn::Add(hn::Max(x, hn::Zero(d)), math_log1p(d, math_exp(d, hn::Neg(hn::Abs(x)))));
  return keep_nan(d, x, y);
}

// Polynomials for erf in f32 below and above 475/512, within 1 ulp (N. Juffa's minimax fit). f64: libm.
template <class D, class V>
HWY_INLINE V math_erf(D d, V x) {
  if constexpr (sizeof(Value<D>) == 8) {
    return lanewise(d, x, [](double v) HWY_ATTR { return std::erf(v); });
  } else {
    const auto c = [&](double v) HWY_ATTR { return constant<D, V>(d, v); };
    const V t = hn::Abs(x), s = hn::Mul(x, x);
    V r = hn::MulAdd(c(-1.72853470e-5), t, c(3.83197126e-4));
    const V u = hn::MulAdd(c(-3.88396438e-3), t, c(2.42546219e-2));
    r = hn::MulAdd(r, s, u);
    r = hn::MulAdd(r, t, c(-1.06777877e-1));
    r = hn::MulAdd(r, t, c(-6.34846687e-1));
    r = hn::MulAdd(r, t, c(-1.28717512e-1));
    r = hn::MulAdd(r, t, hn::Neg(t));
    const V far = hn::CopySignToAbs(hn::Abs(hn::Sub(c(1), math_exp(d, r))), x);
    V q = c(-5.96761703e-4);
    q = hn::MulAdd(q, s, c(4.99119423e-3));
    q = hn::MulAdd(q, s, c(-2.67681349e-2));
    q = hn::MulAdd(q, s, c(1.12819925e-1));
    q = hn::MulAdd(q, s, c(-3.76125336e-1));
    q = hn::MulAdd(q, s, c(1.28379166e-1));
    const V near = hn::MulAdd(q, x, x);
    return keep_nan(d, x, hn::IfThenElse(hn::Gt(t, c(0.927734375)), far, near));
  }
}

template <class D, class V>
HWY_INLINE V math_gelu(D d, V x) {
  const V half = constant<D, V>(d, 0.5), one = constant<D, V>(d, 1);
  const V phi =
      hn::Mul(half, hn::Add(one, math_erf(d, hn::Mul(x, constant<D, V>(d, 0.70710678118654752440)))));
  return hn::Mul(x, phi);
}

// 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))
template <class D, class V>
HWY_INLINE V math_gelu_tanh(D d, V x) {
  const V half = constant(d, 0.5), one = constant(d, 1);
  const V cube = hn::Mul(hn::Mul(x, x), x);
  const V u = hn::Mul(constant(d, 0.79788456080286535588), hn::MulAdd(constant(d, 0.044715), cube, x));
  return hn::Mul(hn::Mul(half, x), hn::Add(one, math_tanh(d, u)));
}

template <class D, class V>
HWY_INLINE V math_sign(D d, V x) {
  const V zero = hn::Zero(d), one = constant(d, 1);
  const V y = hn::Sub(hn::IfThenElseZero(hn::Gt(x, zero), one), hn::IfThenElseZero(hn::Lt(x, zero), one));
  return keep_nan(d, x, y);
}

// NaN in either operand gives NaN.
template <class D, class V>
HWY_INLINE V math_minimum(D d, V a, V b) {
  return keep_nan(d, a, hn::IfThenElse(hn::Lt(a, b), a, b));
}
template <class D, class V>
HWY_INLINE V math_maximum(D d, V a, V b) {
  return keep_nan(d, a, hn::IfThenElse(hn::Gt(a, b), a, b));
}
template <class D, class V>
HWY_INLINE V math_clamp(D d, V x, double lo, double hi) {
  const V l = constant(d, lo), h = constant(d, hi);
  x = hn::IfThenElse(hn::Lt(x, l), l, x);
  return hn::IfThenElse(hn::Gt(x, h), h, x);
}

// sin and cos: Highway's reduction holds up to about 39000; larger angles go through libm.
template <class D, class V, class Fast, class Slow>
HWY_INLINE V with_large_angles(D d, V x, Fast fast, Slow slow) {
  const auto large = hn::Not(hn::Lt(hn::Abs(x), constant<D, V>(d, 30000)));  // also NaN
  const V y = fast(hn::IfThenZeroElse(large, x));
  if (HWY_LIKELY(hn::AllFalse(d, large))) return y;
  return hn::IfThenElse(large, lanewise(d, x, slow), y);
}
template <class D, class V>
HWY_INLINE V math_sin(D d, V x) {
  return with_large_angles(
      d, x, [&](V v) HWY_ATTR { return hn::IfThenElse(hn::Eq(v, hn::Zero(d)), v, hn::Sin(d, v)); },
      [](Value<D> v) HWY_ATTR { return std::sin(v); });
}
template <class D, class V>
HWY_INLINE V math_cos(D d, V x) {
  return with_large_angles(
      d, x, [&](V v) HWY_ATTR { return hn::Cos(d, v); }, [](Value<D> v) HWY_ATTR { return std::cos(v); });
}

template <class D, class V>
HWY_INLINE V inside_unit(D d, V x, V y) {
  const V nan = hn::Set(d, std::numeric_limits<Value<D>>::quiet_NaN());
  return hn::IfThenElse(hn::Le(hn::Abs(x), constant<D, V>(d, 1)), y, nan);
}
template <class D, class V>
HWY_INLINE V math_asin(D d, V x) {
  return inside_unit(d, x, hn::Asin(d, x));
}
template <class D, class V>
HWY_INLINE V math_acos(D d, V x) {
  return inside_unit(d, x, hn::Acos(d, x));
}
template <class D, class V>
HWY_INLINE V math_atan(D d, V x) {
  return keep_nan(d, x, hn::Atan(d, x));
}

// Nearest bf16, ties to even; NaN stays NaN.
template <class D, class V>
HWY_INLINE V round_to_bf16(D d, V x) {
  const hn::RebindToUnsigned<D> du;
  const auto u = hn::BitCast(du, x);
  const auto odd = hn::And(hn::ShiftRight<16>(u), hn::Set(du, 1));
  const auto rounded = hn::Add(u, hn::Add(odd, hn::Set(du, 0x7fff)));
  const V y = hn::BitCast(d, hn::And(rounded, hn::Set(du, 0xffff0000u)));
  const V nan = hn::BitCast(d, hn::And(hn::Or(u, hn::Set(du, 0x400000u)), hn::Set(du, 0xffff0000u)));
  return hn::IfThenElse(hn::Eq(x, x), y, nan);
}

// The bits of bf16 numbers as f32, and back to the nearest.
template <class D>
using Halves = hn::Rebind<uint16_t, D>;
template <class D>
HWY_INLINE hn::Vec<D> widen_bf16(D d, hn::Vec<Halves<D>> bits) {
  return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(hn::RebindToUnsigned<D>(), bits)));
}
template <class D, class V>
HWY_INLINE hn::Vec<Halves<D>> narrow_to_bf16(D d, V x) {
  const auto high = hn::ShiftRight<16>(hn::BitCast(hn::RebindToUnsigned<D>(), round_to_bf16(d, x)));
  return hn::DemoteTo(Halves<D>(), hn::BitCast(hn::RebindToSigned<D>(), high));
}

}  // namespace tenon::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
