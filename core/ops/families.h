// Each family of ops lists its definitions here for the registry.
#pragma once

#include <span>

#include "core/graph/op.h"

namespace tenon {

using OpList = std::span<const OpDef* const>;
OpList elementwise_ops();
OpList reduce_ops();
OpList shape_ops();
OpList index_ops();
OpList matmul_ops();
OpList mixed_matmul_ops();
OpList conv_ops();
OpList norm_ops();
OpList softmax_ops();
OpList attention_ops();
OpList sort_ops();
OpList moe_ops();
OpList linalg_ops();
OpList random_ops();

}  // namespace tenon
