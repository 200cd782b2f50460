// Kernels: the op as the host applies it, and its two forms one by one.
#pragma once

#include <optional>

#include "tools/validate/subject.h"

namespace tenon::validate {

// The kernel's code on these inputs, each given with steps between its elements when `spread`. Empty: it declines the case,
// so that the composed form runs.
Result<std::optional<std::vector<HostArray>>> run_kernel(const Host& host, const tn_descriptor& d, const Inputs& inputs, bool spread);
// The composed form, or the built-in op that the kernel stands for.
Result<std::vector<HostArray>> compose_kernel(const Host& host, const tn_descriptor& d, const Inputs& inputs);

}  // namespace tenon::validate
