// Aggregators: a federated round's client updates into the new global parameters.
#pragma once

#include "core/plugin/instance.h"

namespace tenon {

struct FederatedRound {
  int64_t round = 0;                    // from 0
  std::vector<uint8_t> participation;   // [n_clients]: 1 = active
  std::vector<int64_t> client_samples;  // [n_clients]; empty: unknown
  Tensor params;                        // [P]
  Tensor deltas;                        // [n_active, P]: local minus global, in the order of the active clients; or null
  std::vector<NamedTensor> inputs;      // of the plugin's roles
};

struct AggregatedRound {
  Tensor params;  // [P]
  Emissions emitted;
};

// Appends the round; what it sets is collected by take_updates() of the instance, whose tables have a row for each client.
// Errors: what the plugin says, deltas or params of a wrong type, another number of clients than before.
Result<AggregatedRound> aggregate_round(Instance& aggregator, Graph& graph, const CallInfo& info, const FederatedRound& round);

}  // namespace tenon
