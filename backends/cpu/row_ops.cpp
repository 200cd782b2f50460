#include "backends/cpu/row_ops.h"

#include <cstring>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/row_ops.cpp"
#include <hwy/foreach_target.h>

#include "backends/cpu/targets.h"
#include "backends/cpu/tile_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tenon::cpu::HWY_NAMESPACE {
namespace {

using D = hn::CappedTag<float, 16>;
using V = hn::Vec<D>;
const D d;

// The last elements of a row, fewer than a vector, with `fill` behind them.
HWY_INLINE V load_rest(const float* x, size_t n, float fill) {
  return hn::IfThenElse(hn::FirstN(d, n), load_first(d, x, n), hn::Set(d, fill));
}
HWY_INLINE void store_rest(V v, float* out, size_t n) { store_first(v, d, out, n); }

// Folds `term(x, y)` over the row with four accumulators. `idle` is a value of x and y whose term changes
// nothing.
template <class Term, class Fold>
HWY_INLINE V fold_row(const float* x, const float* y, size_t n, float idle, V start, Term term, Fold fold) {
  const size_t step = hn::Lanes(d);
  V a0 = start, a1 = start, a2 = start, a3 = start;
  size_t i = 0;
  for (; i + 4 * step <= n; i += 4 * step) {
    a0 = fold(a0, term(hn::LoadU(d, x + i), hn::LoadU(d, y + i), i));
    a1 = fold(a1, term(hn::LoadU(d, x + i + step), hn::LoadU(d, y + i + step), i + step));
    a2 = fold(a2, term(hn::LoadU(d, x + i + 2 * step), hn::LoadU(d, y + i + 2 * step), i + 2 * step));
    a3 = fold(a3, term(hn::LoadU(d, x + i + 3 * step), hn::LoadU(d, y + i + 3 * step), i + 3 * step));
  }
  for (; i + step <= n; i += step) a0 = fold(a0, term(hn::LoadU(d, x + i), hn::LoadU(d, y + i), i));
  if (i < n) a1 = fold(a1, term(load_rest(x + i, n - i, idle), load_rest(y + i, n - i, idle), i));
  return fold(fold(a0, a1), fold(a2, a3));
}

struct Add {
  HWY_INLINE V operator()(V a, V b) const { return hn::Add(a, b); }
};
struct Max {
  HWY_INLINE V operator()(V a, V b) const { return math_maximum(d, a, b); }
};
struct Min {
  HWY_INLINE V operator()(V a, V b) const { return math_minimum(d, a, b); }
};
struct First {
  HWY_INLINE V operator()(V a, V, size_t) const { return a; }
};

// NaN if any lane is one.
float row_max(const float* x, size_t n) {
  constexpr float worst = -std::numeric_limits<float>::infinity();
  const V best = fold_row(x, x, n, worst, hn::Set(d, worst), First(), Max());
  if (!hn::AllTrue(d, hn::Eq(best, best))) return std::numeric_limits<float>::quiet_NaN();
  return hn::GetLane(hn::MaxOfLanes(d, best));
}
float row_min(const float* x, size_t n) {
  constexpr float worst = std::numeric_limits<float>::infinity();
  const V best = fold_row(x, x, n, worst, hn::Set(d, worst), First(), Min());
  if (!hn::AllTrue(d, hn::Eq(best, best))) return std::numeric_limits<float>::quiet_NaN();
  return hn::GetLane(hn::MinOfLanes(d, best));
}

// Lanes added up by halves: an order that loops with one channel a lane can follow (channel_ops.cpp).
template <class DN = D>
HWY_INLINE float total(hn::Vec<DN> v) {
#if HWY_TARGET != HWY_SCALAR
  if constexpr (hn::MaxLanes(DN()) > 1) {
    const hn::Half<DN> half;
    return total<hn::Half<DN>>(hn::Add(hn::LowerHalf(half, v), hn::UpperHalf(half, v)));
  }
#endif
  return hn::GetLane(v);
}

float row_sum(const float* x, size_t n) { return total(fold_row(x, x, n, 0, hn::Zero(d), First(), Add())); }

struct Product {
  HWY_INLINE V operator()(V a, V b, size_t) const { return hn::Mul(a, b); }
};
float row_dot(const float* x, const float* y, size_t n) {
  return total(fold_row(x, y, n, 0, hn::Zero(d), Product(), Add()));
}

struct SquareDiff {
  V center;
  HWY_INLINE V operator()(V a, V, size_t) const {
    const V diff = hn::Sub(a, center);
    return hn::Mul(diff, diff);
  }
};
float row_sum_square_diff(const float* x, size_t n, float center) {
  return total(fold_row(x, x, n, center, hn::Zero(d), SquareDiff{hn::Set(d, center)}, Add()));
}

struct ExpOf {
  V shift;
  HWY_INLINE V operator()(V a, V, size_t) const { return math_exp(d, hn::Sub(a, shift)); }
};
float row_exp_sum(const float* x, size_t n, float shift, float* out) {
  const ExpOf term{hn::Set(d, shift)};
  if (!out)
    return total(fold_row(x, x, n, -std::numeric_limits<float>::infinity(), hn::Zero(d), term, Add()));
  const size_t step = hn::Lanes(d);
  V a0 = hn::Zero(d), a1 = hn::Zero(d);
  size_t i = 0;
  for (; i + 2 * step <= n; i += 2 * step) {
    const V e0 = term(hn::LoadU(d, x + i), a0, 0), e1 = term(hn::LoadU(d, x + i + step), a1, 0);
    hn::StoreU(e0, d, out + i);
    hn::StoreU(e1, d, out + i + step);
    a0 = hn::Add(a0, e0);
    a1 = hn::Add(a1, e1);
  }
  for (; i + step <= n; i += step) {
    const V e = term(hn::LoadU(d, x + i), a0, 0);
    hn::StoreU(e, d, out + i);
    a0 = hn::Add(a0, e);
  }
  if (i < n) {
    const V e = term(load_rest(x + i, n - i, -std::numeric_limits<float>::infinity()), a0, 0);
    store_rest(e, out + i, n - i);
    a1 = hn::Add(a1, e);
  }
  return total(hn::Add(a0, a1));
}

// out[i] = f(x[i], y[i], i)
template <class F>
HWY_INLINE void map_row(const float* x, const float* y, size_t n, float* out, F f) {
  const size_t step = hn::Lanes(d);
  size_t i = 0;
  for (; i + step <= n; i += step) hn::StoreU(f(hn::LoadU(d, x + i), hn::LoadU(d, y + i), i), d, out + i);
  if (i < n) store_rest(f(load_rest(x + i, n - i, 0), load_rest(y + i, n - i, 0), i), out + i, n - i);
}

struct Scale {
  V a;
  HWY_INLINE V operator()(V x, V, size_t) const { return hn::Mul(x, a); }
};
void row_scale(const float* x, size_t n, float a, float* out) { map_row(x, x, n, out, Scale{hn::Set(d, a)}); }

struct Shift {
  V a, b;
  HWY_INLINE V operator()(V x, V, size_t) const { return hn::Sub(hn::Sub(x, a), b); }
};
void row_shift(const float* x, size_t n, float a, float b, float* out) {
  map_row(x, x, n, out, Shift{hn::Set(d, a), hn::Set(d, b)});
}

struct SoftmaxGrad {
  V sum;
  HWY_INLINE V operator()(V y, V dy, size_t) const { return hn::Mul(y, hn::Sub(dy, sum)); }
};
void row_softmax_grad(const float* y, const float* dy, size_t n, float sum, float* out) {
  map_row(y, dy, n, out, SoftmaxGrad{hn::Set(d, sum)});
}
struct LogSoftmaxGrad {
  V sum;
  HWY_INLINE V operator()(V y, V dy, size_t) const { return hn::Sub(dy, hn::Mul(math_exp(d, y), sum)); }
};
void row_log_softmax_grad(const float* y, const float* dy, size_t n, float sum, float* out) {
  map_row(y, dy, n, out, LogSoftmaxGrad{hn::Set(d, sum)});
}

struct CenterScale {
  V mean, a, b;
  HWY_INLINE V operator()(V x, V, size_t) const { return hn::MulAdd(hn::Sub(x, mean), a, b); }
};
void row_center_scale(const float* x, size_t n, float mean, float a, float b, float* out) {
  map_row(x, x, n, out, CenterScale{hn::Set(d, mean), hn::Set(d, a), hn::Set(d, b)});
}
struct CenteredProduct {
  V mean;
  HWY_INLINE V operator()(V x, V y, size_t) const { return hn::Mul(y, hn::Sub(x, mean)); }
};
float row_dot_centered(const float* x, const float* y, size_t n, float mean) {
  return total(fold_row(x, y, n, 0, hn::Zero(d), CenteredProduct{hn::Set(d, mean)}, Add()));
}
struct Combine {
  V a, b, mean, c;
  HWY_INLINE V operator()(V x, V y, size_t) const {
    return hn::MulAdd(y, a, hn::MulAdd(hn::Sub(x, mean), b, c));
  }
};
void row_combine(const float* x, const float* y, size_t n, float a, float b, float mean, float c,
                 float* out) {
  map_row(x, y, n, out, Combine{hn::Set(d, a), hn::Set(d, b), hn::Set(d, mean), hn::Set(d, c)});
}

struct Sum2 {
  HWY_INLINE V operator()(V x, V y, size_t) const { return hn::Add(y, x); }
};
void row_add_to(const float* x, size_t n, float* acc) { map_row(x, acc, n, acc, Sum2()); }
struct Max2 {
  HWY_INLINE V operator()(V x, V y, size_t) const { return math_maximum(d, y, x); }
};
void row_max_to(const float* x, size_t n, float* acc) { map_row(x, acc, n, acc, Max2()); }
struct Min2 {
  HWY_INLINE V operator()(V x, V y, size_t) const { return math_minimum(d, y, x); }
};
void row_min_to(const float* x, size_t n, float* acc) { map_row(x, acc, n, acc, Min2()); }
void row_normalize(const float* x, size_t n, float mean, float rstd, const float* gamma, const float* beta,
                   float* out) {
  const V m = hn::Set(d, mean), r = hn::Set(d, rstd);
  const size_t step = hn::Lanes(d);
  size_t i = 0;
  const auto value = [&](V v, V g, V b) HWY_ATTR { return hn::MulAdd(hn::Mul(hn::Sub(v, m), r), g, b); };
  for (; i + step <= n; i += step)
    hn::StoreU(value(hn::LoadU(d, x + i), hn::LoadU(d, gamma + i), hn::LoadU(d, beta + i)), d, out + i);
  if (i < n)
    store_rest(
        value(load_rest(x + i, n - i, 0), load_rest(gamma + i, n - i, 0), load_rest(beta + i, n - i, 0)),
        out + i, n - i);
}

void row_normalize_grad(const float* x, const float* gamma, const float* dy, size_t n, float mean, float rstd,
                        bool centred, float* dgamma, float* dbeta, float* dx) {
  const V m = hn::Set(d, mean), r = hn::Set(d, rstd);
  const size_t step = hn::Lanes(d);
  V sum_u = hn::Zero(d), sum_uh = hn::Zero(d);
  size_t i = 0;
  const auto gather = [&](V xi, V gi, V di, V& dg, V& db) HWY_ATTR {
    const V h = hn::Mul(hn::Sub(xi, m), r), u = hn::Mul(gi, di);
    sum_u = hn::Add(sum_u, u);
    sum_uh = hn::MulAdd(u, h, sum_uh);
    dg = hn::MulAdd(di, h, dg);
    db = hn::Add(db, di);
  };
  for (; i + step <= n; i += step) {
    V dg = hn::LoadU(d, dgamma + i), db = hn::LoadU(d, dbeta + i);
    gather(hn::LoadU(d, x + i), hn::LoadU(d, gamma + i), hn::LoadU(d, dy + i), dg, db);
    hn::StoreU(dg, d, dgamma + i);
    hn::StoreU(db, d, dbeta + i);
  }
  if (i < n) {
    V dg = load_rest(dgamma + i, n - i, 0), db = load_rest(dbeta + i, n - i, 0);
    gather(load_rest(x + i, n - i, 0), load_rest(gamma + i, n - i, 0), load_rest(dy + i, n - i, 0), dg, db);
    store_rest(dg, dgamma + i, n - i);
    store_rest(db, dbeta + i, n - i);
  }
  const float count = static_cast<float>(n);
  const V mean_u = hn::Set(d, centred ? total(sum_u) / count : 0.0f),
          mean_uh = hn::Set(d, total(sum_uh) / count);
  const auto value = [&](V xi, V gi, V di) HWY_ATTR {
    const V h = hn::Mul(hn::Sub(xi, m), r);
    return hn::Mul(r, hn::NegMulAdd(h, mean_uh, hn::Sub(hn::Mul(gi, di), mean_u)));
  };
  for (i = 0; i + step <= n; i += step)
    hn::StoreU(value(hn::LoadU(d, x + i), hn::LoadU(d, gamma + i), hn::LoadU(d, dy + i)), d, dx + i);
  if (i < n)
    store_rest(value(load_rest(x + i, n - i, 0), load_rest(gamma + i, n - i, 0), load_rest(dy + i, n - i, 0)),
               dx + i, n - i);
}

void row_max_windows(const float* row0, const float* row1, size_t n, float* out) {
  const size_t step = hn::Lanes(d);
  for (size_t i = 0; i < n; i += step) {
    const size_t count = n - i < step ? n - i : step;
    HWY_ALIGN float rest[2][32];
    const float *p0 = row0 + 2 * i, *p1 = row1 + 2 * i;
    if (count < step) {
      for (size_t k = 0; k < 2 * step; ++k) {
        rest[0][k] = k < 2 * count ? p0[k] : 0;
        rest[1][k] = k < 2 * count ? p1[k] : 0;
      }
      p0 = rest[0], p1 = rest[1];
    }
    V a, b, c, e;
    hn::LoadInterleaved2(d, p0, a, b);
    hn::LoadInterleaved2(d, p1, c, e);
    V best = hn::IfThenElse(beats(a, b), b, a);
    best = hn::IfThenElse(beats(best, c), c, best);
    best = hn::IfThenElse(beats(best, e), e, best);
    if (count < step)
      store_rest(best, out + i, count);
    else
      hn::StoreU(best, d, out + i);
  }
}

void row_max_windows_grad(const float* row0, const float* row1, const float* dy, size_t n, float* dx0,
                          float* dx1) {
  const size_t step = hn::Lanes(d);
  for (size_t i = 0; i < n; i += step) {
    const size_t count = n - i < step ? n - i : step;
    HWY_ALIGN float rest[4][32];
    const float *p0 = row0 + 2 * i, *p1 = row1 + 2 * i;
    float *q0 = dx0 + 2 * i, *q1 = dx1 + 2 * i;
    if (count < step) {
      for (size_t k = 0; k < 2 * step; ++k) {
        rest[0][k] = k < 2 * count ? p0[k] : 0;
        rest[1][k] = k < 2 * count ? p1[k] : 0;
      }
      p0 = rest[0], p1 = rest[1], q0 = rest[2], q1 = rest[3];
    }
    V a, b, c, e;
    hn::LoadInterleaved2(d, p0, a, b);
    hn::LoadInterleaved2(d, p1, c, e);
    const V g = count < step ? load_rest(dy + i, count, 0) : hn::LoadU(d, dy + i);
    const auto to_b = beats(a, b);
    V best = hn::IfThenElse(to_b, b, a);
    const auto to_c = beats(best, c);
    best = hn::IfThenElse(to_c, c, best);
    const auto to_e = beats(best, e);
    const V before_e = hn::IfThenZeroElse(to_e, g), before_c = hn::IfThenZeroElse(to_c, before_e);
    hn::StoreInterleaved2(hn::IfThenZeroElse(to_b, before_c), hn::IfThenElseZero(to_b, before_c), d, q0);
    hn::StoreInterleaved2(hn::IfThenElseZero(to_c, before_e), hn::IfThenElseZero(to_e, g), d, q1);
    if (count < step)
      for (size_t k = 0; k < 2 * count; ++k) {
        dx0[2 * i + k] = q0[k];
        dx1[2 * i + k] = q1[k];
      }
  }
}

// Calls f(first lane) for each vector of a column.
template <class F>
HWY_INLINE void each_lane_group(F f) {
  for (size_t l = 0; l < kColumnBlock; l += hn::Lanes(d)) f(l);
}
void columns_max(const float* x, size_t n, float* out) {
  each_lane_group([&](size_t l) HWY_ATTR {
    V v = hn::Set(d, -std::numeric_limits<float>::infinity());
    for (size_t j = 0; j < n; ++j) v = math_maximum(d, v, hn::LoadU(d, x + j * kColumnBlock + l));
    hn::StoreU(v, d, out + l);
  });
}
void columns_sum(const float* x, size_t n, float* out) {
  each_lane_group([&](size_t l) HWY_ATTR {
    V v = hn::Zero(d);
    for (size_t j = 0; j < n; ++j) v = hn::Add(v, hn::LoadU(d, x + j * kColumnBlock + l));
    hn::StoreU(v, d, out + l);
  });
}
void columns_dot(const float* x, const float* y, size_t n, float* out) {
  each_lane_group([&](size_t l) HWY_ATTR {
    V v = hn::Zero(d);
    for (size_t j = 0; j < n; ++j) {
      const size_t at = j * kColumnBlock + l;
      v = hn::Add(v, hn::Mul(hn::LoadU(d, x + at), hn::LoadU(d, y + at)));
    }
    hn::StoreU(v, d, out + l);
  });
}
void columns_exp_sum(float* x, size_t n, const float* shift, float* out) {
  each_lane_group([&](size_t l) HWY_ATTR {
    const V s = hn::LoadU(d, shift + l);
    V v = hn::Zero(d);
    for (size_t j = 0; j < n; ++j) {
      const V e = math_exp(d, hn::Sub(hn::LoadU(d, x + j * kColumnBlock + l), s));
      hn::StoreU(e, d, x + j * kColumnBlock + l);
      v = hn::Add(v, e);
    }
    hn::StoreU(v, d, out + l);
  });
}
void columns_log(const float* x, float* out) {
  each_lane_group([&](size_t l) HWY_ATTR { hn::StoreU(math_log(d, hn::LoadU(d, x + l)), d, out + l); });
}

void row_expand(const bf16* x, size_t n, float* out) {
  size_t i = 0;
  for (; i + hn::Lanes(d) <= n; i += hn::Lanes(d)) {
    const auto half = hn::LoadU(Halves<D>(), reinterpret_cast<const uint16_t*>(x + i));
    hn::StoreU(widen_bf16(d, half), d, out + i);
  }
  for (; i < n; ++i) out[i] = static_cast<float>(x[i]);
}

void row_shrink(const float* x, size_t n, bf16* out) {
  size_t i = 0;
  for (; i + hn::Lanes(d) <= n; i += hn::Lanes(d))
    hn::StoreU(narrow_to_bf16(d, hn::LoadU(d, x + i)), Halves<D>(), reinterpret_cast<uint16_t*>(out + i));
  for (; i < n; ++i) out[i] = bf16(x[i]);
}

}  // namespace

const RowOps* row_ops_for_target() {
  static constexpr RowOps ops = {row_max,
                                 row_min,
                                 row_sum,
                                 row_dot,
                                 row_sum_square_diff,
                                 row_exp_sum,
                                 row_scale,
                                 row_shift,
                                 row_softmax_grad,
                                 row_log_softmax_grad,
                                 row_center_scale,
                                 row_dot_centered,
                                 row_combine,
                                 row_add_to,
                                 row_max_to,
                                 row_min_to,
                                 row_normalize,
                                 row_normalize_grad,
                                 row_max_windows,
                                 row_max_windows_grad,
                                 columns_max,
                                 columns_sum,
                                 columns_dot,
                                 columns_exp_sum,
                                 columns_log,
                                 row_expand,
                                 row_shrink};
  return &ops;
}

}  // namespace tenon::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tenon::cpu {

HWY_EXPORT(row_ops_for_target);
const RowOps& row_ops() { return *HWY_DYNAMIC_DISPATCH(row_ops_for_target)(); }

}  // namespace tenon::cpu
#endif
