// Dropout (Srivastava et al. 2014), inverted: scaled when training, nothing to do in evaluation.
#pragma once

#include "core/graph/graph.h"

namespace tenon {

// Each element of x is zeroed with probability `rate` in [0, 1), the others are divided by 1 - rate. `key`: a
// random key used for nothing else.
Tensor dropout(Tensor x, double rate, Tensor key);

}  // namespace tenon
