#include "tests/support/device.h"

#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "backends/cpu/cpu.h"
#include "backends/reference/reference.h"
#include "core/plan/passes.h"

namespace tenon::test {

RuntimeOptions options() {
  RuntimeOptions o;
  const char* eager = std::getenv("TENON_EAGER");
  o.eager = eager && std::string_view(eager) == "1";
  if (const char* passes = std::getenv("TENON_PASSES"))
    if (const Status s = set_passes(o, passes); !s.is_ok()) {
      std::fprintf(stderr, "TENON_PASSES: %s\n", s.message().c_str());
      std::exit(2);
    }
  return o;
}

std::unique_ptr<Runtime> runtime(const RuntimeOptions& o) {
  const char* device = std::getenv("TENON_TEST_DEVICE");
  const std::string_view name = device ? device : "cpu";
  if (name == "reference") return std::make_unique<Runtime>(make_reference_backend(), o);
  if (name == "cpu") return std::make_unique<Runtime>(make_cpu_backend(o.pass_native), o);
  std::fprintf(stderr, "TENON_TEST_DEVICE is '%s'; it must be cpu or reference\n", device);
  std::exit(2);
}

}  // namespace tenon::test
