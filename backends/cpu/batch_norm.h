// What the files of batch norm share: batch_norm.cpp hands channels-last and short channels to the two
// others.
#pragma once

#include "backends/cpu/kernels.h"

namespace tenon::cpu {

struct Moments {
  float mean, var;
};
// Mean and variance of a channel from those of its parts, of n elements each: their sums and sums of squared
// distances from their own means, `step` apart (Chan, Golub & LeVeque 1979).
inline Moments join_moments(const float* sums, const float* squares, int64_t parts, int64_t step, float n) {
  const float count = n * static_cast<float>(parts);
  float sum = 0, square = 0;
  for (int64_t p = 0; p < parts; ++p) sum += sums[p * step];
  const float mean = sum / count;
  for (int64_t p = 0; p < parts; ++p) {
    const float shift = sums[p * step] / n - mean;
    square += squares[p * step] + n * shift * shift;
  }
  return {mean, square / count};
}

// On oneDNN; null when it declines.
std::unique_ptr<Kernel> make_short_batch_norm(Context& context, const Piece& piece);
std::unique_ptr<Kernel> make_short_batch_norm_grad(Context& context, const Piece& piece);

// All tensors channels-last; x may be bf16, all else is f32.
std::unique_ptr<Kernel> make_channels_last_batch_norm(Context& context, const Piece& piece);
std::unique_ptr<Kernel> make_channels_last_batch_norm_grad(Context& context, const Piece& piece);

}  // namespace tenon::cpu
