// What a kernel has to do, whoever does it: floating-point operations and bytes that must be moved.
#pragma once

#include "backends/backend.h"

namespace tenon::bench {

struct Cost {
  double flops = 0;
  double bytes = 0;  // each input once (what a broadcast repeats counts once), each output once
  // Seconds that it takes at least on a machine of these rates.
  double least_seconds(double flops_per_second, double bytes_per_second) const;
};

// Products, convolutions, attention and factorisations count multiplications and additions by their textbook
// formula (2 M N K for a product; half of it for causal attention); what only moves data counts none;
// everything else one operation for each element of its largest operand.
Cost cost_of(const Piece& piece);

// Whether the op is a product of matrices, a convolution or attention: what a GEMM's peak rate is a measure
// of.
bool is_product(std::string_view op);

}  // namespace tenon::bench
