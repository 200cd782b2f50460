#include "tools/bench/measure.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <string>

namespace tenon::bench {

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

double peak_megabytes() {
  std::ifstream in("/proc/self/status");
  for (std::string line; std::getline(in, line);)
    if (line.starts_with("VmHWM:")) return std::strtod(line.c_str() + 6, nullptr) / 1024;
  return 0;
}

Result<Measured> measure(Runtime& runtime, Workload& workload, double seconds) {
  using Clock = std::chrono::steady_clock;
  for (int i = 0; i < 5; ++i) TN_RETURN_IF_ERROR(workload.step());
  const RuntimeStats before = runtime.stats();
  std::vector<double> ms;
  const auto end = Clock::now() + std::chrono::duration<double>(seconds);
  while (Clock::now() < end || ms.size() < 5) {
    const auto start = Clock::now();
    TN_RETURN_IF_ERROR(workload.step());
    ms.push_back(std::chrono::duration<double, std::milli>(Clock::now() - start).count());
  }
  const RuntimeStats& after = runtime.stats();
  const auto steps = static_cast<int64_t>(ms.size());
  return Measured{.ms = median(std::move(ms)),
                  .steps = steps,
                  .peak_mb = peak_megabytes(),
                  .arena_mb = static_cast<double>(after.arena_bytes) / (1 << 20),
                  .kernels = (after.kernels - before.kernels) / steps,
                  .plan_misses = after.plan_misses - before.plan_misses};
}

}  // namespace tenon::bench
