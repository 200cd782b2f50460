// The reference device: every op on its plain kernel, in memory whose addresses the host can't dereference.
#pragma once

#include <memory>

#include "backends/backend.h"

namespace tenon {

std::unique_ptr<Backend> make_reference_backend();

}  // namespace tenon
