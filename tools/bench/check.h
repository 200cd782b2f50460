// Whether a workload computes what it should: its first three steps against PyTorch's from the same initial
// values and data (torch_values.h).
#pragma once

#include "tools/bench/workload.h"

namespace tenon::bench {

// Runs three steps of a fresh workload. Error (state): a loss that PyTorch does not give, with both.
Status check_against_torch(const WorkloadInfo& info, Workload& workload);

}  // namespace tenon::bench
