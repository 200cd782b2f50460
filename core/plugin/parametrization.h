// Parametrizations: an effective weight as a function of the stored one. One instance serves one weight, or all that share it.
#pragma once

#include "core/plugin/instance.h"

namespace tenon {

struct EffectiveWeight {
  Tensor weight;  // of the stored one's type
  Emissions emitted;
};

// hooks.init on the initial stored value, once for each weight. Where the plugin emits "raw", training starts from that instead; otherwise a
// null tensor comes back.
Result<Tensor> init_parametrization(Instance& parametrization, Graph& graph, const CallInfo& info, Tensor raw);
// Errors: what the plugin says, a weight of another type.
Result<EffectiveWeight> effective_weight(Instance& parametrization, Graph& graph, const CallInfo& info, Tensor raw);
// The stored value that gives this weight. Error: it can't be inverted.
Result<Tensor> stored_weight(Instance& parametrization, Graph& graph, const CallInfo& info, Tensor weight);

}  // namespace tenon
