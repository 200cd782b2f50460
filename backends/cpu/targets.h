// Instruction sets that vector code is compiled for: a fallback, SSE4, AVX2 and AVX-512 on x86. Levels
// between those gain nothing here and cost compile time. To be included before Highway.
#pragma once

#ifndef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_AVX3_DL)
#endif
