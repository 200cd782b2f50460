// Vector loops over images that lie channels-last: vectors run over channels, one channel a lane.
#pragma once

#include <cstddef>

#include "core/tensor/dtype.h"

namespace tenon::cpu {

// Places of one image follow each other `stride` elements apart; `channels` of each are worked on, at most
// kChannelBlock where they are folded.
inline constexpr size_t kChannelBlock = 64;

// Of batch norm; images of f32 or bf16, all else f32.
template <class X>
struct ChannelNormOps {
  // ChannelOps::sum, and sum of (x - sum / n)^2 with the bits of RowOps::sum_square_diff.
  void (*moments)(const X* x, size_t n, size_t stride, size_t channels, float* sum, float* squares);
  // Likewise of RowOps::sum of dy and RowOps::dot_centered of x and dy.
  void (*dots)(const X* x, const float* dy, size_t n, size_t stride, size_t channels, const float* mean,
               float* sum_dy, float* dot);
  // RowOps::center_scale and RowOps::combine with numbers of the channel.
  void (*center_scale)(const X* x, size_t n, size_t channels, const float* mean, const float* a,
                       const float* b, float* out);
  void (*combine)(const X* x, const float* y, size_t n, size_t channels, const float* a, const float* b,
                  const float* mean, const float* c, X* out);
};

struct ChannelOps {
  // Sum over n places: for each channel the bits of RowOps::sum over its elements in a row.
  void (*sum)(const float* x, size_t n, size_t stride, size_t channels, float* out);
  ChannelNormOps<float> norm;
  ChannelNormOps<bf16> norm_bf16;
  // Maxima of the places x + at[0], x + at[1], ..; NaN wins.
  void (*max_of)(const float* x, const ptrdiff_t* at, size_t n, size_t channels, float* out);
  // dy added to (`overlap`) or put at the first maximum's place of dx; without overlap 0 is put at the
  // others.
  void (*max_of_grad)(const float* x, const ptrdiff_t* at, size_t n, size_t channels, const float* dy,
                      bool overlap, float* dx);
};

// The loops for this machine.
const ChannelOps& channel_ops();

}  // namespace tenon::cpu
