// What the reduction files share.
#pragma once

#include "core/ops/dense.h"
#include "core/ops/reduce.h"

namespace tenon {

// The cumulative ops (reduce_cumulative.cpp) and those that give an index or a truth value
// (reduce_select.cpp).
extern const OpDef* const kCumulativeOps[3];
extern const OpDef* const kSelectOps[4];

inline constexpr AttrSpec kReduceAttrs[] = {{"axes", AttrKind::ints}, {"keepdims", AttrKind::i64}};

// Integers are summed and multiplied in i64.
inline DType accumulated_dtype(DType t) { return is_floating(t) ? t : DType::i64; }

inline Shape reduced_shape(const Shape& shape, const Axes& axes, bool keepdims) {
  Shape out;
  for (int i = 0; i < shape.rank(); ++i) {
    if (!axes.contains(i))
      out.push_back(shape[i]);
    else if (keepdims)
      out.push_back(1);
  }
  return out;
}

// Axes of a reduction whose attributes passed infer.
inline Axes reduced_axes(const Attrs& attrs, int rank) {
  return normalize_axes("reduce", attrs.ints("axes"), rank).value();
}

// A reduction as two nested walks over the input: `outer` over the kept axes, which is the output's order,
// and `inner` over the reduced ones.
struct Walk {
  Shape outer, inner;
  Strides outer_strides, inner_strides;
  Walk(const Layout& x, const Axes& axes) {
    for (int i = 0; i < x.shape.rank(); ++i) {
      if (!axes.contains(i)) {
        outer.push_back(x.shape[i]);
        outer_strides.push_back(x.strides[i]);
      } else if (const int last = inner.rank() - 1; last >= 0 && (x.shape[i] == 1 || inner_strides[last] == x.strides[i] * x.shape[i])) {
        if (x.shape[i] == 1) continue;
        inner[last] *= x.shape[i];  // one loop over both
        inner_strides[last] = x.strides[i];
      } else {
        inner.push_back(x.shape[i]);
        inner_strides.push_back(x.strides[i]);
      }
    }
  }
  // Calls f(offset) for the elements that are reduced together with the one at `base`.
  template <class F>
  void each(int64_t base, F&& f) const {
    if (inner.rank() == 1) {
      for (int64_t i = 0; i < inner[0]; ++i) f(base + i * inner_strides[0]);
      return;
    }
    for_each_offset<1>(inner, {inner_strides}, [&](int64_t o) { f(base + o); });
  }
};

// The sum of a sequence: blocks of 128 terms, added pairwise like the digits of a binary counter. The
// rounding error grows with log n, and the order depends on n alone.
template <class A>
class PairwiseSum {
 public:
  void add(A v) {
    block_ += v;
    if (++in_block_ == kBlock) carry();
  }
  A total() const {
    A sum = block_;
    for (int level = 0; level < kLevels; ++level)
      if (blocks_ >> level & 1u) sum += partial_[level];
    return sum;
  }

 private:
  static constexpr int kBlock = 128, kLevels = 48;
  void carry() {
    int level = 0;
    for (uint64_t n = blocks_; n & 1u; n >>= 1) block_ += partial_[level++];
    partial_[level] = block_;
    ++blocks_;
    block_ = 0;
    in_block_ = 0;
  }
  A block_ = 0;
  int in_block_ = 0;
  uint64_t blocks_ = 0;
  A partial_[kLevels];
};

// Undoes the dropping of axes: g, whose axes were reduced, with size 1 in their place; then repeated to
// `shape`.
Tensor keep_reduced(Tensor g, const Shape& shape, const Axes& axes);
Tensor expand_reduced(Tensor g, const Shape& shape, const Axes& axes);

inline Tensor apply_reduce(const OpDef& op, Tensor x, const Axes& axes, bool keepdims) {
  return x.valid() ? x.graph().apply(op, {x}, AttrList().ints(axes).i(keepdims)) : Tensor();
}

// Shapes and axes that every reduction is tried with; `low`, `high` bound the values.
std::vector<Sample> reduce_samples(double low, double high, bool empty);

}  // namespace tenon
