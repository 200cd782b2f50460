// TENON_TEST_VECTORS=avx2, sse4 or fallback: as on a processor with no more than these instructions.
// (fallback: what every one has; oneDNN has nothing below SSE4.)
#include <hwy/targets.h>

#include <cstdio>
#include <cstdlib>
#include <dnnl.hpp>
#include <string_view>

namespace tenon::test {
namespace {

[[maybe_unused]] const bool limited = [] {
  const char* given = std::getenv("TENON_TEST_VECTORS");
  if (!given || !*given) return false;
  const std::string_view name = given;
  if (name != "avx2" && name != "sse4" && name != "fallback") {
    std::fprintf(stderr, "TENON_TEST_VECTORS is '%s'; it must be avx2, sse4 or fallback\n", given);
    std::exit(2);
  }
  const int64_t best = name == "avx2" ? HWY_AVX2 : name == "sse4" ? HWY_SSE4 : HWY_EMU128;
  // The better ones have lower bits. (DisableTargets would last only until somebody asks for
  // SupportedTargets.)
  hwy::SetSupportedTargetsForTest((hwy::SupportedTargets() & ~(best - 1)) | HWY_EMU128 | HWY_SCALAR);
  if (dnnl::set_max_cpu_isa(name == "avx2" ? dnnl::cpu_isa::avx2 : dnnl::cpu_isa::sse41) !=
      dnnl::status::success) {
    std::fprintf(stderr, "TENON_TEST_VECTORS: oneDNN can't be limited any more\n");
    std::exit(2);
  }
  return true;
}();

}  // namespace
}  // namespace tenon::test
