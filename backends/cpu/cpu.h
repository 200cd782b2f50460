// The CPU backend: oneDNN where it is good, tile programs and hand kernels on Highway elsewhere, plain
// kernels for the rest.
#pragma once

#include <memory>

#include "backends/backend.h"

namespace tenon {

// Uses as many threads as OpenMP would (OMP_NUM_THREADS, or the cores this process may run on) until
// set_threads(). `native`: fused pieces may become machine code.
std::unique_ptr<Backend> make_cpu_backend(bool native = true);

}  // namespace tenon
