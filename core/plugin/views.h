// Memory that a plugin shows the host.
#pragma once

#include "core/abi/tenon_plugin.h"
#include "core/base/status.h"
#include "core/tensor/host_array.h"

namespace tenon {

// A copy of what the view shows. Errors: not host memory, an impossible rank or dtype.
Result<HostArray> host_array(const tn_view* view);

}  // namespace tenon
