#include "tools/bench/machine.h"

#include <dnnl.h>
#include <sched.h>

#include <cstdlib>
#include <fstream>

#include "core/base/version.h"

namespace tenon::bench {

std::string cpu_model() {
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);)
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  return "unknown CPU";
}

int cores() {
  cpu_set_t set;
  return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

double load() {
  double average = 0;
  return getloadavg(&average, 1) == 1 ? average : 0;
}

std::string tenon_version() {
#ifdef __clang__
  const std::string compiler = "clang " + std::to_string(__clang_major__);
#else
  const std::string compiler = "GCC " + std::to_string(__GNUC__);
#endif
  const dnnl_version_t* v = dnnl_version();
  return std::string(TENON_VERSION) + " (" + compiler + ", oneDNN " + std::to_string(v->major) + "." +
         std::to_string(v->minor) + "." + std::to_string(v->patch) + ")";
}

}  // namespace tenon::bench
