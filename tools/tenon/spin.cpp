#include "tools/tenon/spin.h"

#include <sys/auxv.h>
#include <unistd.h>

#include <cstdlib>

namespace tenon::cli {

void spin_briefly(char** argv) {
  // About 40 us: longer than what lies between two parallel loops of a step.
  constexpr const char* kTurns = "1000";
  if (getauxval(AT_SECURE) != 0 || std::getenv("OMP_WAIT_POLICY") || std::getenv("GOMP_SPINCOUNT")) return;
  if (setenv("GOMP_SPINCOUNT", kTurns, 0) == 0) execv("/proc/self/exe", argv);
  // Where that is not possible, the program goes on as it is.
}

}  // namespace tenon::cli
