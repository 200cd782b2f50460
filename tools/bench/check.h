// Whether a workload computes what it should: its first three steps against PyTorch's from the same initial
// values and data (torch_values.h).
#pragma once

#include "tools/bench/workload.h"

namespace tenon::bench {

// Runs three steps of a fresh workload. Error (state): a loss that PyTorch does not give, with both.
// PyTorch's are f32; with products in bf16 (8 bits of precision) the losses have to be near, no more.
Status check_against_torch(const WorkloadInfo& info, Workload& workload, std::string_view precision = "f32");

}  // namespace tenon::bench
