#include "tools/bench/measure.h"

#include <sys/resource.h>

#include <algorithm>
#include <chrono>

namespace tenon::bench {

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

double peak_megabytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024;
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
