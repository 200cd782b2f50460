// The vector instructions that the tests run with.
#pragma once

#include <hwy/targets.h>

namespace tenon::test {

// Where there is none, oneDNN has no bf16 pooling and fused pieces do not become machine code.
inline bool has_avx512() { return (hwy::SupportedTargets() & HWY_AVX3) != 0; }

}  // namespace tenon::test
