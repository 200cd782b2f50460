#include "backends/cpu/channel_ops.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/channel_ops.cpp"
#include <hwy/foreach_target.h>

#include "backends/cpu/targets.h"
#include "backends/cpu/tile_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tenon::cpu::HWY_NAMESPACE {
namespace {

using D = hn::CappedTag<float, 16>;
using V = hn::Vec<D>;
const D d;

// Up to four vectors of channels of one place, the last of which may be cut short. Their number is known to
// the compiler, since a place often has no more than two.
template <size_t kCount, bool kWhole>
struct Group {
  static constexpr size_t count = kCount;
  size_t rest;  // channels of the last vector

  // Vector i of the channels at p.
  HWY_INLINE V load(const float* p, size_t i) const { return load_in(d, p, i); }
  HWY_INLINE V load(const bf16* p, size_t i) const {
    return widen_bf16(d, load_in(Halves<D>(), reinterpret_cast<const uint16_t*>(p), i));
  }
  HWY_INLINE void store(V v, float* p, size_t i) const { store_in(d, v, p, i); }
  HWY_INLINE void store(V v, bf16* p, size_t i) const {
    store_in(Halves<D>(), narrow_to_bf16(d, v), reinterpret_cast<uint16_t*>(p), i);
  }

 private:
  template <class T>
  HWY_INLINE hn::Vec<T> load_in(T t, const Value<T>* p, size_t i) const {
    p += i * hn::Lanes(d);
    return kWhole || i + 1 < kCount ? hn::LoadU(t, p) : load_first(t, p, rest);
  }
  template <class T>
  HWY_INLINE void store_in(T t, hn::Vec<T> v, Value<T>* p, size_t i) const {
    p += i * hn::Lanes(d);
    if (kWhole || i + 1 < kCount)
      hn::StoreU(v, t, p);
    else
      store_first(v, t, p, rest);
  }
};

// Calls f(first channel, group) for all channels.
template <class F>
HWY_INLINE void each_group(size_t channels, F f) {
  const size_t lanes = hn::Lanes(d);
  for (size_t c = 0; c < channels; c += 4 * lanes) {
    const size_t n = std::min(channels - c, 4 * lanes), rest = (n - 1) % lanes + 1;
    const auto call = [&](auto count) HWY_ATTR {
      if (rest == lanes)
        f(c, Group<decltype(count)::value, true>{rest});
      else
        f(c, Group<decltype(count)::value, false>{rest});
    };
    if (n <= lanes)
      call(std::integral_constant<size_t, 1>());
    else if (n <= 2 * lanes)
      call(std::integral_constant<size_t, 2>());
    else if (n <= 3 * lanes)
      call(std::integral_constant<size_t, 3>());
    else
      call(std::integral_constant<size_t, 4>());
  }
}

// Adds up term(group, vector, place, first channel) over n places, for each channel in the order of RowOps:
// element p of a row belongs to lane p % lanes of one of four vectors, and lanes are added up by halves.
template <class Term>
HWY_INLINE void fold_places(size_t n, size_t channels, float* out, Term term) {
  const size_t lanes = hn::Lanes(d), round = 4 * lanes;
  each_group(channels, [&](size_t c, auto group) HWY_ATTR {
    constexpr size_t kSlot = 4 * 16;
    HWY_ALIGN float slots[4 * 16 * kSlot];
    std::memset(slots, 0, round * kSlot * sizeof(float));
    // Places [from, to) to slots [first, last) in turns.
    const auto add_places = [&](size_t from, size_t to, size_t first, size_t last) HWY_ATTR {
      for (size_t p = from, s = first; p < to; ++p) {
        float* const slot = slots + s * kSlot;
        for (size_t i = 0; i < group.count; ++i)
          hn::Store(hn::Add(hn::Load(d, slot + i * lanes), term(group, i, p, c)), d, slot + i * lanes);
        if (++s == last) s = first;
      }
    };
    const size_t rounds = n / round * round, whole = n / lanes * lanes;
    add_places(0, rounds, 0, round);
    add_places(rounds, whole, 0, lanes);
    add_places(whole, n, lanes, 2 * lanes);
    const auto join = [&](size_t s, size_t other) HWY_ATTR {
      for (size_t i = 0; i < group.count; ++i) {
        float* const to = slots + s * kSlot + i * lanes;
        hn::Store(hn::Add(hn::Load(d, to), hn::Load(d, slots + other * kSlot + i * lanes)), d, to);
      }
    };
    for (size_t l = 0; l < lanes; ++l) {
      join(l, lanes + l);
      join(2 * lanes + l, 3 * lanes + l);
      join(l, 2 * lanes + l);
    }
    for (size_t half = lanes / 2; half > 0; half /= 2)
      for (size_t l = 0; l < half; ++l) join(l, l + half);
    for (size_t i = 0; i < group.count; ++i) group.store(hn::Load(d, slots + i * lanes), out + c, i);
  });
}

template <class X>
void sum(const X* x, size_t n, size_t stride, size_t channels, float* out) {
  fold_places(n, channels, out, [&](auto group, size_t i, size_t p, size_t c) HWY_ATTR {
    return group.load(x + p * stride + c, i);
  });
}

template <class X>
void moments(const X* x, size_t n, size_t stride, size_t channels, float* sums, float* squares) {
  sum(x, n, stride, channels, sums);
  HWY_ALIGN float mean[kChannelBlock];
  for (size_t c = 0; c < channels; ++c) mean[c] = sums[c] / static_cast<float>(n);
  fold_places(n, channels, squares, [&](auto group, size_t i, size_t p, size_t c) HWY_ATTR {
    const V diff = hn::Sub(group.load(x + p * stride + c, i), group.load(mean + c, i));
    return hn::Mul(diff, diff);
  });
}

template <class X>
void dots(const X* x, const float* dy, size_t n, size_t stride, size_t channels, const float* mean,
          float* sum_dy, float* dot) {
  sum(dy, n, stride, channels, sum_dy);
  fold_places(n, channels, dot, [&](auto group, size_t i, size_t p, size_t c) HWY_ATTR {
    const V diff = hn::Sub(group.load(x + p * stride + c, i), group.load(mean + c, i));
    return hn::Mul(group.load(dy + p * stride + c, i), diff);
  });
}

template <class X>
void center_scale(const X* x, size_t n, size_t channels, const float* mean, const float* a,
                  const float* b, float* out) {
  each_group(channels, [&](size_t c, auto group) HWY_ATTR {
    for (size_t at = c; at < n * channels; at += channels)
      for (size_t i = 0; i < group.count; ++i) {
        const V diff = hn::Sub(group.load(x + at, i), group.load(mean + c, i));
        group.store(hn::MulAdd(diff, group.load(a + c, i), group.load(b + c, i)), out + at, i);
      }
  });
}

template <class X>
void combine(const X* x, const float* y, size_t n, size_t channels, const float* a, const float* b,
             const float* mean, const float* c0, X* out) {
  each_group(channels, [&](size_t c, auto group) HWY_ATTR {
    for (size_t at = c; at < n * channels; at += channels)
      for (size_t i = 0; i < group.count; ++i) {
        const V diff = hn::Sub(group.load(x + at, i), group.load(mean + c, i));
        const V rest = hn::MulAdd(diff, group.load(b + c, i), group.load(c0 + c, i));
        group.store(hn::MulAdd(group.load(y + at, i), group.load(a + c, i), rest), out + at, i);
      }
  });
}

template <class X>
constexpr ChannelNormOps<X> norm = {moments<X>, dots<X>, center_scale<X>, combine<X>};

void max_of(const float* x, const ptrdiff_t* at, size_t n, size_t channels, float* out) {
  each_group(channels, [&](size_t c, auto group) HWY_ATTR {
    for (size_t i = 0; i < group.count; ++i) {
      V best = group.load(x + at[0] + c, i);
      for (size_t k = 1; k < n; ++k) {
        const V v = group.load(x + at[k] + c, i);
        best = hn::IfThenElse(beats(best, v), v, best);
      }
      group.store(best, out + c, i);
    }
  });
}

void max_of_grad(const float* x, const ptrdiff_t* at, size_t n, size_t channels, const float* dy,
                 bool overlap, float* dx) {
  const hn::RebindToSigned<D> di;
  each_group(channels, [&](size_t c, auto group) HWY_ATTR {
    for (size_t i = 0; i < group.count; ++i) {
      V best = group.load(x + at[0] + c, i);
      auto first = hn::Zero(di);
      for (size_t k = 1; k < n; ++k) {
        const V v = group.load(x + at[k] + c, i);
        const auto better = beats(best, v);
        best = hn::IfThenElse(better, v, best);
        first = hn::IfThenElse(hn::RebindMask(di, better), hn::Set(di, static_cast<int32_t>(k)), first);
      }
      const V g = group.load(dy + c, i);
      for (size_t k = 0; k < n; ++k) {
        float* const to = dx + at[k] + c;
        const auto here = hn::RebindMask(d, hn::Eq(first, hn::Set(di, static_cast<int32_t>(k))));
        if (overlap) {
          const V old = group.load(to, i);
          group.store(hn::IfThenElse(here, hn::Add(old, g), old), to, i);
        } else {
          group.store(hn::IfThenElseZero(here, g), to, i);
        }
      }
    }
  });
}

}  // namespace

const ChannelOps* channel_ops_for_target() {
  static constexpr ChannelOps ops = {sum<float>, norm<float>, norm<bf16>, max_of, max_of_grad};
  return &ops;
}

}  // namespace tenon::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tenon::cpu {

HWY_EXPORT(channel_ops_for_target);
const ChannelOps& channel_ops() { return *HWY_DYNAMIC_DISPATCH(channel_ops_for_target)(); }

}  // namespace tenon::cpu
#endif
