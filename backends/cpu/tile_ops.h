// The instructions of tile programs: element-wise functions over short runs of values held in cache.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "core/tensor/dtype.h"

namespace tenon::cpu {

// The widest vector of any target, in elements. Every element of a run is computed by the same vector code,
// the last ones by vectors of which only a part is stored: a value does not depend on where in a tensor it
// lies, or on how the tensor was cut into tiles.
inline constexpr size_t kGroup = 16;
inline constexpr size_t kMaxOperands = 4;

// In a register, bool is u8 (0 or 1) and bf16 is an f32 that bf16 can represent; the others are themselves.
enum class Lane : uint8_t { f32, f64, i32, i64, u8 };
constexpr Lane lane_of(DType t) {
  constexpr Lane lanes[] = {Lane::f32, Lane::f64, Lane::f32, Lane::i32, Lane::i64, Lane::u8, Lane::u8};
  return lanes[static_cast<int>(t)];
}
constexpr size_t size_of(Lane lane) {
  constexpr size_t sizes[] = {4, 8, 4, 8, 1};
  return sizes[static_cast<int>(lane)];
}

struct TileArgs {
  const void* in[kMaxOperands];
  bool varies[kMaxOperands];  // false: one value for all elements, repeated kGroup times
  void* out;
  size_t n;
  double p0, p1;  // attributes: clamp's bounds, leaky_relu's slope
  // Memory that later tiles read, to be fetched along the way; none where both are equal.
  const std::byte *ahead = nullptr, *ahead_end = nullptr;
};
using TileFn = void (*)(const TileArgs&);

// X(name, operands). Names are those of the ops.
#define TN_TILE_FLOAT_UNARY(X)                                                                             \
  X(exp)                                                                                                   \
  X(log)                                                                                                   \
  X(log1p)                                                                                                 \
  X(expm1)                                                                                                 \
  X(sqrt)                                                                                                  \
  X(rsqrt)                                                                                                 \
  X(reciprocal)                                                                                            \
  X(tanh)                                                                                                  \
  X(sigmoid)                                                                                               \
  X(softplus)                                                                                              \
  X(erf) X(gelu) X(gelu_tanh) X(silu) X(leaky_relu) X(sin) X(cos) X(asin) X(acos) X(atan) X(floor) X(ceil) \
      X(round)
#define TN_TILE_UNARY(X) X(neg) X(square) X(relu) X(abs) X(sign) X(clamp)
#define TN_TILE_BINARY(X) X(add) X(sub) X(mul) X(minimum) X(maximum)
#define TN_TILE_COMPARE(X) X(equal) X(not_equal) X(less) X(less_equal) X(greater) X(greater_equal)

enum class TileOp : uint8_t {
#define X(name) name,
  TN_TILE_FLOAT_UNARY(X) TN_TILE_UNARY(X) TN_TILE_BINARY(X) TN_TILE_COMPARE(X)
#undef X
      div,
  pow,
  logical_and,
  logical_or,
  logical_not,
  is_finite,
  where,
  copy,         // also conversion between lanes
  to_bool,      // x != 0
  round_bf16,   // f32 -> the nearest bf16, as f32
  expand_bf16,  // bf16 in memory -> f32
  shrink_bf16,  // f32 -> the nearest bf16, in memory
};

constexpr bool is_comparison(TileOp op) { return op >= TileOp::equal && op <= TileOp::greater_equal; }

// The code for this machine of `op` from lane type `in` to `out`; null when there is none (the op is not for
// that type).
TileFn find_tile_fn(TileOp op, Lane in, Lane out);

// f32 operations that are done two at a time, which halves the trips to memory and back.
#define TN_TILE_PAIR(X) X(add) X(sub) X(mul) X(div)
// second(first(in0, in1), in2), exchanged: second(in2, first(in0, in1)); null when there is none. Both
// results are rounded as the operations alone round them.
TileFn find_tile_pair(TileOp first, TileOp second, bool exchanged);
// f32 results of a comparison of f32 or i32 operands: where it holds for in0 and in1, in2, elsewhere in3; and
// 1 or 0.
TileFn find_tile_select(TileOp compare, Lane in);
TileFn find_tile_test(TileOp compare, Lane in);
// exp(in0 - in1)
TileFn find_tile_exp_of_difference();

}  // namespace tenon::cpu
