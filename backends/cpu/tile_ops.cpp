#include "backends/cpu/tile_ops.h"

#include <type_traits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/tile_ops.cpp"
#include <hwy/foreach_target.h>

#include "backends/cpu/targets.h"
#include "backends/cpu/tile_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tenon::cpu::HWY_NAMESPACE {
namespace {

// --- f32 and f64: whole vectors ---

template <class T>
using Tag = hn::CappedTag<T, kGroup>;

#define TN_FLOAT(name, expression)                              \
  struct name##_vector {                                        \
    template <class D, class V>                                 \
    static HWY_INLINE V apply(D d, V x, const TileArgs& args) { \
      (void)d, (void)args;                                      \
      return expression;                                        \
    }                                                           \
  };
TN_FLOAT(exp, math_exp(d, x))
TN_FLOAT(log, math_log(d, x))
TN_FLOAT(log1p, math_log1p(d, x))
TN_FLOAT(expm1, math_expm1(d, x))
TN_FLOAT(sqrt, hn::Sqrt(x))
TN_FLOAT(rsqrt, hn::Div(constant(d, 1), hn::Sqrt(x)))
TN_FLOAT(reciprocal, hn::Div(constant(d, 1), x))
TN_FLOAT(tanh, math_tanh(d, x))
TN_FLOAT(sigmoid, math_sigmoid(d, x))
TN_FLOAT(softplus, math_softplus(d, x))
TN_FLOAT(erf, math_erf(d, x))
TN_FLOAT(gelu, math_gelu(d, x))
TN_FLOAT(gelu_tanh, math_gelu_tanh(d, x))
TN_FLOAT(silu, hn::Mul(x, math_sigmoid(d, x)))
TN_FLOAT(leaky_relu, hn::IfThenElse(hn::Gt(x, hn::Zero(d)), x, hn::Mul(x, constant(d, args.p0))))
TN_FLOAT(sin, math_sin(d, x))
TN_FLOAT(cos, math_cos(d, x))
TN_FLOAT(asin, math_asin(d, x))
TN_FLOAT(acos, math_acos(d, x))
TN_FLOAT(atan, math_atan(d, x))
TN_FLOAT(floor, hn::Floor(x))
TN_FLOAT(ceil, hn::Ceil(x))
TN_FLOAT(round, hn::Round(x))
TN_FLOAT(neg, hn::Neg(x))
TN_FLOAT(square, hn::Mul(x, x))
TN_FLOAT(abs, hn::Abs(x))
TN_FLOAT(relu, hn::IfThenElse(hn::Le(x, hn::Zero(d)), hn::Zero(d), x))
TN_FLOAT(sign, math_sign(d, x))
TN_FLOAT(clamp, math_clamp(d, x, args.p0, args.p1))
TN_FLOAT(round_bf16, round_to_bf16(d, x))
#undef TN_FLOAT

#define TN_FLOAT2(name, expression)            \
  struct name##_vector2 {                      \
    template <class D, class V>                \
    static HWY_INLINE V apply(D d, V a, V b) { \
      (void)d;                                 \
      return expression;                       \
    }                                          \
  };
TN_FLOAT2(add, hn::Add(a, b))
TN_FLOAT2(sub, hn::Sub(a, b))
TN_FLOAT2(mul, hn::Mul(a, b))
TN_FLOAT2(div, hn::Div(a, b))
TN_FLOAT2(minimum, math_minimum(d, a, b))
TN_FLOAT2(maximum, math_maximum(d, a, b))
#undef TN_FLOAT2

// Vectors of one operand: whole ones, and the last elements of a run, fewer than a vector. One that does not
// vary is a block of kGroup equal elements, so that it can be read whole everywhere.
template <class D>
struct Reader {
  const hn::TFromD<D>* from;
  size_t step;
  Reader(D d, const TileArgs& args, size_t i)
      : from(static_cast<const hn::TFromD<D>*>(args.in[i])), step(args.varies[i] ? hn::Lanes(d) : 0) {}
  HWY_INLINE hn::Vec<D> at(size_t k) const { return hn::LoadU(D(), from + k * step); }
  HWY_INLINE void advance(size_t k) { from += k * step; }
  HWY_INLINE hn::Vec<D> rest(size_t n) const { return step ? load_first(D(), from, n) : at(0); }
};

// Memory to be fetched while a loop runs, a share each turn.
class Ahead {
 public:
  Ahead(const TileArgs& args, size_t per_turn) : at_(args.ahead), end_(args.ahead_end) {
    if (HWY_LIKELY(at_ == end_)) return;
    constexpr size_t kLine = 64;
    const size_t bytes = static_cast<size_t>(end_ - at_), turns = args.n / per_turn + 1;
    share_ = (bytes / turns + kLine) / kLine * kLine;
  }
  HWY_INLINE void fetch() {
    if (HWY_LIKELY(at_ >= end_)) return;
    for (size_t i = 0; i < share_; i += 64) __builtin_prefetch(at_ + i, 0, 3);
    at_ += share_;
  }

 private:
  const std::byte *at_, *end_;
  size_t share_ = 0;
};

// out = f(operands), several vectors a turn where f is short.
template <size_t kTurn, class D, class F, class... Readers>
HWY_INLINE void run_loop(D d, const TileArgs& args, F f, Readers... in) {
  const size_t step = hn::Lanes(d);
  auto* out = static_cast<hn::TFromD<D>*>(args.out);
  size_t n = args.n;
  Ahead ahead(args, kTurn * step);
  if constexpr (kTurn == 4) {
    for (; n >= 4 * step; n -= 4 * step, out += 4 * step) {
      ahead.fetch();
      const auto v0 = f(in.at(0)...), v1 = f(in.at(1)...), v2 = f(in.at(2)...), v3 = f(in.at(3)...);
      hn::StoreU(v0, d, out);
      hn::StoreU(v1, d, out + step);
      hn::StoreU(v2, d, out + 2 * step);
      hn::StoreU(v3, d, out + 3 * step);
      (in.advance(4), ...);
    }
  }
  for (; n >= step; n -= step, out += step) {
    if constexpr (kTurn == 1) ahead.fetch();
    hn::StoreU(f(in.at(0)...), d, out);
    (in.advance(1), ...);
  }
  if (n) store_first(f(in.rest(n)...), d, out, n);
}

template <class T, class Op, size_t kTurn>
void vector_unary(const TileArgs& args) {
  const Tag<T> d;
  run_loop<kTurn>(
      d, args, [&](auto x) HWY_ATTR { return Op::apply(d, x, args); }, Reader<Tag<T>>(d, args, 0));
}

template <class T, class Op>
void vector_binary(const TileArgs& args) {
  const Tag<T> d;
  run_loop<4>(
      d, args, [&](auto a, auto b) HWY_ATTR { return Op::apply(d, a, b); }, Reader<Tag<T>>(d, args, 0),
      Reader<Tag<T>>(d, args, 1));
}

// Two operations at once: second(first(a, b), c), or with the operands of the second exchanged.
template <class First, class Second, bool kExchanged>
void vector_pair(const TileArgs& args) {
  const Tag<float> d;
  const auto value = [&](auto a, auto b, auto c) HWY_ATTR {
    const auto inner = First::apply(d, a, b);
    if constexpr (kExchanged)
      return Second::apply(d, c, inner);
    else
      return Second::apply(d, inner, c);
  };
  run_loop<4>(d, args, value, Reader<Tag<float>>(d, args, 0), Reader<Tag<float>>(d, args, 1),
              Reader<Tag<float>>(d, args, 2));
}

struct equal_mask {
  template <class V>
  static HWY_INLINE auto apply(V a, V b) {
    return hn::Eq(a, b);
  }
};
struct not_equal_mask {
  template <class V>
  static HWY_INLINE auto apply(V a, V b) {
    return hn::Not(hn::Eq(a, b));  // Highway's own leaves out NaN
  }
};
struct less_mask {
  template <class V>
  static HWY_INLINE auto apply(V a, V b) {
    return hn::Lt(a, b);
  }
};
struct less_equal_mask {
  template <class V>
  static HWY_INLINE auto apply(V a, V b) {
    return hn::Le(a, b);
  }
};
struct greater_mask {
  template <class V>
  static HWY_INLINE auto apply(V a, V b) {
    return hn::Gt(a, b);
  }
};
struct greater_equal_mask {
  template <class V>
  static HWY_INLINE auto apply(V a, V b) {
    return hn::Ge(a, b);
  }
};

template <class Op>
void vector_compare(const TileArgs& args) {
  const Tag<float> d;
  const hn::Rebind<int32_t, decltype(d)> di;
  const hn::Rebind<uint8_t, decltype(d)> d8;
  const auto one = hn::Set(di, 1);
  const auto value = [&](auto a, auto b) HWY_ATTR {
    return hn::DemoteTo(d8, hn::And(hn::BitCast(di, hn::VecFromMask(d, Op::apply(a, b))), one));
  };
  run_loop<4>(d8, args, value, Reader<Tag<float>>(d, args, 0), Reader<Tag<float>>(d, args, 1));
}

// A comparison whose result is used at once. Lanes of both types are equally wide.
template <class T, class Op>
void vector_select(const TileArgs& args) {
  const Tag<float> d;
  const hn::Rebind<T, Tag<float>> di;
  const auto value = [&](auto a, auto b, auto yes, auto no)
                         HWY_ATTR { return hn::IfThenElse(hn::RebindMask(d, Op::apply(a, b)), yes, no); };
  run_loop<4>(d, args, value, Reader<hn::Rebind<T, Tag<float>>>(di, args, 0),
              Reader<hn::Rebind<T, Tag<float>>>(di, args, 1), Reader<Tag<float>>(d, args, 2),
              Reader<Tag<float>>(d, args, 3));
}
template <class T, class Op>
void vector_test(const TileArgs& args) {
  const Tag<float> d;
  const hn::Rebind<T, Tag<float>> di;
  const auto one = constant(d, 1);
  const auto value = [&](auto a, auto b)
                         HWY_ATTR { return hn::IfThenElseZero(hn::RebindMask(d, Op::apply(a, b)), one); };
  run_loop<4>(d, args, value, Reader<hn::Rebind<T, Tag<float>>>(di, args, 0),
              Reader<hn::Rebind<T, Tag<float>>>(di, args, 1));
}

void vector_exp_of_difference(const TileArgs& args) {
  const Tag<float> d;
  run_loop<1>(
      d, args, [&](auto a, auto b) HWY_ATTR { return math_exp(d, hn::Sub(a, b)); },
      Reader<Tag<float>>(d, args, 0), Reader<Tag<float>>(d, args, 1));
}

void vector_where(const TileArgs& args) {
  const Tag<float> d;
  const hn::Rebind<int32_t, decltype(d)> di;
  const hn::Rebind<uint8_t, decltype(d)> d8;
  const auto value = [&](auto cond, auto a, auto b) HWY_ATTR {
    const auto mask = hn::Ne(hn::PromoteTo(di, cond), hn::Zero(di));
    return hn::IfThenElse(hn::RebindMask(d, mask), a, b);
  };
  run_loop<4>(d, args, value, Reader<hn::Rebind<uint8_t, Tag<float>>>(d8, args, 0),
              Reader<Tag<float>>(d, args, 1), Reader<Tag<float>>(d, args, 2));
}

void expand_bf16(const TileArgs& args) {
  const Tag<float> d;
  using Half = Halves<Tag<float>>;
  run_loop<4>(d, args, [&](auto half) HWY_ATTR { return widen_bf16(d, half); }, Reader<Half>(Half(), args, 0));
}

void shrink_bf16(const TileArgs& args) {
  const Tag<float> d;
  const auto value = [&](auto x) HWY_ATTR { return narrow_to_bf16(d, x); };
  run_loop<4>(Halves<Tag<float>>(), args, value, Reader<Tag<float>>(d, args, 0));
}

// --- The other types: plain loops, which the compiler vectorises for the target ---

template <class F>
HWY_INLINE void with_flag(bool flag, F&& f) {
  if (flag)
    f(std::true_type{});
  else
    f(std::false_type{});
}

template <class X, class R, class F>
HWY_INLINE void loop1(const TileArgs& args, F f) {
  const X* x = static_cast<const X*>(args.in[0]);
  R* out = static_cast<R*>(args.out);
  with_flag(args.varies[0], [&](auto vx) {
    for (size_t i = 0; i < args.n; ++i) out[i] = f(x[vx ? i : 0]);
  });
}

template <class X, class R, class F>
HWY_INLINE void loop2(const TileArgs& args, F f) {
  const X* a = static_cast<const X*>(args.in[0]);
  const X* b = static_cast<const X*>(args.in[1]);
  R* out = static_cast<R*>(args.out);
  with_flag(args.varies[0], [&](auto va) {
    with_flag(args.varies[1], [&](auto vb) {
      for (size_t i = 0; i < args.n; ++i) out[i] = f(a[va ? i : 0], b[vb ? i : 0]);
    });
  });
}

// Integer arithmetic wraps around.
template <class T>
HWY_INLINE T wrap(std::make_unsigned_t<T> v) {
  return static_cast<T>(v);
}
#define TN_INT(name, T, expression)                                        \
  template <class T>                                                       \
  void name##_int(const TileArgs& args) {                                  \
    using U = std::make_unsigned_t<T>;                                     \
    loop1<T, T>(args, [&](T x) { return (void)sizeof(U), (expression); }); \
  }
#define TN_INT2(name, T, expression)                                           \
  template <class T>                                                           \
  void name##_int2(const TileArgs& args) {                                     \
    using U = std::make_unsigned_t<T>;                                         \
    loop2<T, T>(args, [](T a, T b) { return (void)sizeof(U), (expression); }); \
  }
TN_INT(neg, T, wrap<T>(static_cast<U>(U{0} - static_cast<U>(x))))
TN_INT(square, T, wrap<T>(static_cast<U>(uint64_t(static_cast<U>(x)) * static_cast<U>(x))))
TN_INT(relu, T, x > 0 ? x : T{0})
TN_INT(abs, T, x < 0 ? wrap<T>(static_cast<U>(U{0} - static_cast<U>(x))) : x)
TN_INT(sign, T, static_cast<T>((x > 0) - (x < 0)))
TN_INT2(add, T, wrap<T>(static_cast<U>(static_cast<U>(a) + static_cast<U>(b))))
TN_INT2(sub, T, wrap<T>(static_cast<U>(static_cast<U>(a) - static_cast<U>(b))))
TN_INT2(mul, T, wrap<T>(static_cast<U>(uint64_t(static_cast<U>(a)) * static_cast<U>(b))))
TN_INT2(minimum, T, b < a ? b : a)
TN_INT2(maximum, T, a < b ? b : a)
#undef TN_INT
#undef TN_INT2

#define TN_COMPARE_LOOP(name, symbol)                                                   \
  template <class T>                                                                    \
  void name##_loop(const TileArgs& args) {                                              \
    loop2<T, uint8_t>(args, [](T a, T b) { return static_cast<uint8_t>(a symbol b); }); \
  }
TN_COMPARE_LOOP(equal, ==)
TN_COMPARE_LOOP(not_equal, !=)
TN_COMPARE_LOOP(less, <)
TN_COMPARE_LOOP(less_equal, <=)
TN_COMPARE_LOOP(greater, >)
TN_COMPARE_LOOP(greater_equal, >=)
#undef TN_COMPARE_LOOP

template <class T>
void pow_loop(const TileArgs& args) {
  loop2<T, T>(args, [](T a, T b) { return std::pow(a, b); });
}
template <class T>
void is_finite_loop(const TileArgs& args) {
  // x - x is NaN exactly for infinities and NaN.
  loop1<T, uint8_t>(args, [](T x) { return static_cast<uint8_t>(x - x == T{0}); });
}
// Floating to integer saturates; NaN becomes 0.
template <class R, class X>
HWY_INLINE R convert(X x) {
  if constexpr (std::is_floating_point_v<X> && std::is_integral_v<R>) {
    constexpr R lowest = std::numeric_limits<R>::min(), highest = std::numeric_limits<R>::max();
    // Half the bound one past the largest value, so that it is exact; -lowest for signed types.
    constexpr X past = static_cast<X>(static_cast<R>(highest / 2 + 1)) * 2;
    if (!(x == x)) return 0;
    if (x >= past) return highest;
    if (x < static_cast<X>(lowest)) return lowest;
  }
  return static_cast<R>(x);
}
template <class X, class R>
void copy_loop(const TileArgs& args) {
  loop1<X, R>(args, [](X x) { return convert<R>(x); });
}
template <class X>
void to_bool_loop(const TileArgs& args) {
  loop1<X, uint8_t>(args, [](X x) { return static_cast<uint8_t>(x != X{0}); });
}
template <class T>
void where_loop(const TileArgs& args) {
  const uint8_t* c = static_cast<const uint8_t*>(args.in[0]);
  const T* a = static_cast<const T*>(args.in[1]);
  const T* b = static_cast<const T*>(args.in[2]);
  T* out = static_cast<T*>(args.out);
  const size_t vc = args.varies[0], va = args.varies[1], vb = args.varies[2];
  for (size_t i = 0; i < args.n; ++i) out[i] = c[i * vc] ? a[i * va] : b[i * vb];
}
void logical_and_loop(const TileArgs& args) {
  loop2<uint8_t, uint8_t>(args,
                          [](uint8_t a, uint8_t b) { return static_cast<uint8_t>((a != 0) & (b != 0)); });
}
void logical_or_loop(const TileArgs& args) {
  loop2<uint8_t, uint8_t>(args, [](uint8_t a, uint8_t b) { return static_cast<uint8_t>((a | b) != 0); });
}
void logical_not_loop(const TileArgs& args) {
  loop1<uint8_t, uint8_t>(args, [](uint8_t a) { return static_cast<uint8_t>(a == 0); });
}

// --- Look-up ---

template <class F>
TileFn with_type(Lane lane, F&& f) {
  switch (lane) {
    case Lane::f32:
      return f(float{});
    case Lane::f64:
      return f(double{});
    case Lane::i32:
      return f(int32_t{});
    case Lane::i64:
      return f(int64_t{});
    case Lane::u8:
      return f(uint8_t{});
  }
  return nullptr;
}

template <class T>
TileFn find_float(TileOp op) {
  switch (op) {
#define X(name)      \
  case TileOp::name: \
    return vector_unary<T, name##_vector, 1>;
    TN_TILE_FLOAT_UNARY(X)
#undef X
#define X(name)      \
  case TileOp::name: \
    return vector_unary<T, name##_vector, 4>;
    TN_TILE_UNARY(X)
#undef X
#define X(name)      \
  case TileOp::name: \
    return vector_binary<T, name##_vector2>;
    TN_TILE_BINARY(X)
    X(div)
#undef X
    case TileOp::pow:
      return pow_loop<T>;
    case TileOp::is_finite:
      return is_finite_loop<T>;
    default:
      return nullptr;
  }
}

template <class T>
TileFn find_int(TileOp op) {
  switch (op) {
    case TileOp::neg:
      return neg_int<T>;
    case TileOp::square:
      return square_int<T>;
    case TileOp::relu:
      return relu_int<T>;
    case TileOp::abs:
      return abs_int<T>;
    case TileOp::sign:
      return sign_int<T>;
    case TileOp::add:
      return add_int2<T>;
    case TileOp::sub:
      return sub_int2<T>;
    case TileOp::mul:
      return mul_int2<T>;
    case TileOp::minimum:
      return minimum_int2<T>;
    case TileOp::maximum:
      return maximum_int2<T>;
    default:
      return nullptr;
  }
}

template <class T>
TileFn find_compare(TileOp op) {
  switch (op) {
#define X(name)      \
  case TileOp::name: \
    return std::is_same_v<T, float> ? vector_compare<name##_mask> : name##_loop<T>;
    TN_TILE_COMPARE(X)
#undef X
    default:
      return nullptr;
  }
}

TileFn find(TileOp op, Lane in, Lane out) {
  switch (op) {
    case TileOp::copy:
      return with_type(in, [&](auto x) {
        return with_type(out, [](auto r) -> TileFn { return copy_loop<decltype(x), decltype(r)>; });
      });
    case TileOp::to_bool:
      return with_type(in, [](auto x) -> TileFn { return to_bool_loop<decltype(x)>; });
    case TileOp::where:
      if (out == Lane::f32) return vector_where;
      return with_type(out, [](auto r) -> TileFn { return where_loop<decltype(r)>; });
    case TileOp::round_bf16:
      return vector_unary<float, round_bf16_vector, 4>;
    case TileOp::expand_bf16:
      return expand_bf16;
    case TileOp::shrink_bf16:
      return shrink_bf16;
    case TileOp::logical_and:
      return in == Lane::u8 ? logical_and_loop : nullptr;
    case TileOp::logical_or:
      return in == Lane::u8 ? logical_or_loop : nullptr;
    case TileOp::logical_not:
      return in == Lane::u8 ? logical_not_loop : nullptr;
    default:
      break;
  }
  if (const TileFn f = with_type(in, [&](auto x) { return find_compare<decltype(x)>(op); })) return f;
  switch (in) {
    case Lane::f32:
      return find_float<float>(op);
    case Lane::f64:
      return find_float<double>(op);
    case Lane::i32:
      return find_int<int32_t>(op);
    case Lane::i64:
      return find_int<int64_t>(op);
    case Lane::u8:
      return find_int<uint8_t>(op);
  }
  return nullptr;
}

}  // namespace

TileFn find_for_target(TileOp op, Lane in, Lane out) { return find(op, in, out); }

template <class First, bool kExchanged>
TileFn find_second(TileOp second) {
  switch (second) {
#define X(name)      \
  case TileOp::name: \
    return vector_pair<First, name##_vector2, kExchanged>;
    TN_TILE_PAIR(X)
#undef X
    default:
      return nullptr;
  }
}
template <class T, class Op>
TileFn select_or_test(bool test) {
  return test ? vector_test<T, Op> : vector_select<T, Op>;
}
TileFn find_select_for_target(TileOp compare, Lane in, bool test) {
  if (in == Lane::f32) {
    switch (compare) {
#define X(name)      \
  case TileOp::name: \
    return select_or_test<float, name##_mask>(test);
      TN_TILE_COMPARE(X)
#undef X
      default:
        return nullptr;
    }
  }
  // Integers are compared for equality, mostly: class numbers.
  if (in == Lane::i32 && compare == TileOp::equal) return select_or_test<int32_t, equal_mask>(test);
  if (in == Lane::i32 && compare == TileOp::not_equal) return select_or_test<int32_t, not_equal_mask>(test);
  return nullptr;
}
TileFn find_exp_for_target() { return vector_exp_of_difference; }

TileFn find_pair_for_target(TileOp first, TileOp second, bool exchanged) {
  switch (first) {
#define X(name)      \
  case TileOp::name: \
    return exchanged ? find_second<name##_vector2, true>(second) : find_second<name##_vector2, false>(second);
    TN_TILE_PAIR(X)
#undef X
    default:
      return nullptr;
  }
}

}  // namespace tenon::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tenon::cpu {

HWY_EXPORT(find_for_target);
TileFn find_tile_fn(TileOp op, Lane in, Lane out) {
  return HWY_DYNAMIC_DISPATCH(find_for_target)(op, in, out);
}

HWY_EXPORT(find_pair_for_target);
TileFn find_tile_pair(TileOp first, TileOp second, bool exchanged) {
  return HWY_DYNAMIC_DISPATCH(find_pair_for_target)(first, second, exchanged);
}

HWY_EXPORT(find_select_for_target);
TileFn find_tile_select(TileOp compare, Lane in) {
  return HWY_DYNAMIC_DISPATCH(find_select_for_target)(compare, in, false);
}
TileFn find_tile_test(TileOp compare, Lane in) {
  return HWY_DYNAMIC_DISPATCH(find_select_for_target)(compare, in, true);
}

HWY_EXPORT(find_exp_for_target);
TileFn find_tile_exp_of_difference() { return HWY_DYNAMIC_DISPATCH(find_exp_for_target)(); }

}  // namespace tenon::cpu
#endif
