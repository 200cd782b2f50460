// Parts of a vector from and to memory. Per target: no include guard of the usual kind.
#if defined(TENON_PARTIAL_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TENON_PARTIAL_INL_H_
#undef TENON_PARTIAL_INL_H_
#else
#define TENON_PARTIAL_INL_H_
#endif

#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace tenon::cpu::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

template <class D>
using Value = hn::TFromD<D>;

// The first n lanes from memory of which no more may be touched; zeros behind them.
template <class D>
HWY_INLINE hn::Vec<D> load_first(D d, const Value<D>* from, size_t n) {
#if !HWY_MEM_OPS_MIGHT_FAULT  // else masked-off lanes are touched all the same
  if constexpr (sizeof(Value<D>) >= 4) return hn::MaskedLoad(hn::FirstN(d, n), d, from);
#endif
  HWY_ALIGN Value<D> lanes[HWY_MAX_BYTES / sizeof(Value<D>)] = {};
  for (size_t i = 0; i < n; ++i) lanes[i] = from[i];
  return hn::Load(d, lanes);
}
template <class D>
HWY_INLINE void store_first(hn::Vec<D> v, D d, Value<D>* to, size_t n) {
#if !HWY_MEM_OPS_MIGHT_FAULT  // else masked-off lanes are touched all the same
  if constexpr (sizeof(Value<D>) >= 4) return hn::BlendedStore(v, hn::FirstN(d, n), d, to);
#endif
  HWY_ALIGN Value<D> lanes[HWY_MAX_BYTES / sizeof(Value<D>)];
  hn::Store(v, d, lanes);
  for (size_t i = 0; i < n; ++i) to[i] = lanes[i];
}

}  // namespace tenon::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
