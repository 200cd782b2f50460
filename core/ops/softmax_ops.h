// Definitions of the softmax family that live in files of their own.
#pragma once

#include "core/graph/op.h"

namespace tenon {

extern const OpDef kCrossEntropy, kCrossEntropyGrad;

}  // namespace tenon
