// Definitions of the normalisation family that live in files of their own.
#pragma once

#include "core/graph/op.h"

namespace tenon {

extern const OpDef kBatchNorm, kBatchNormGrad;

}  // namespace tenon
