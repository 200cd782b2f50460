// The device under test: TENON_TEST_DEVICE names it (cpu, the default, or reference). TENON_EAGER=1: eager.
#pragma once

#include <memory>

#include "core/runtime.h"

namespace tenon::test {

RuntimeOptions options();
std::unique_ptr<Runtime> runtime(const RuntimeOptions& options = test::options());

}  // namespace tenon::test
