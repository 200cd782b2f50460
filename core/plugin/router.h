// Routers: which experts a token goes to. One instance serves one mixture-of-experts layer.
#pragma once

#include "core/plugin/instance.h"

namespace tenon {

struct RoutedTokens {
  Tensor indices;  // i64 [T, K]
  Tensor gates;    // [T, K]
  Emissions emitted;
};

// logits: [T, E]. Errors: what the plugin says, indices or gates of a wrong type, another number of experts a token than
// `top_k` (0: any).
Result<RoutedTokens> route_tokens(Instance& router, Graph& graph, const CallInfo& info, Tensor logits, int64_t top_k);

}  // namespace tenon
