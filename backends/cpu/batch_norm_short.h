// Kernels that batch_norm.cpp hands its short channels to; null when oneDNN declines.
#pragma once

#include "backends/cpu/kernels.h"

namespace tenon::cpu {

std::unique_ptr<Kernel> make_short_batch_norm(Context& context, const Piece& piece);
std::unique_ptr<Kernel> make_short_batch_norm_grad(Context& context, const Piece& piece);

}  // namespace tenon::cpu
