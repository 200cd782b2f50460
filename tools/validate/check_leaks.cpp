// Memory, open files and threads after many instances.
#include <malloc.h>

#include <filesystem>

#include "tools/validate/check.h"

namespace tenon::validate {
namespace {

constexpr int kWarmUp = 8, kCycles = 16, kRounds = 12;
// Bytes a cycle: the smallest piece of the heap; of a whole run, what no table of the program grows by.
constexpr size_t kLeast = 32, kLeastOfRun = 1024;

size_t count_in(const char* folder) {
  std::error_code ec;
  size_t n = 0;
  for (std::filesystem::directory_iterator it(folder, ec), end; !ec && it != end; it.increment(ec)) ++n;
  return n;
}

size_t heap() {
  const auto m = mallinfo2();
  return m.uordblks + m.hblkhd;
}

}  // namespace

Verdict check_leaks(const Bench& bench) {
  const int cycles = bench.is_procedure() ? 4 : kCycles;
  bench.doing("many times over");
  const auto cycle = [&](int n) -> Status {
    for (int i = 0; i < n; ++i) TN_RETURN_IF_ERROR(bench.steps({}, 2).status());
    return Status::ok();
  };
  if (Status s = cycle(bench.is_procedure() ? 2 : kWarmUp); !s.is_ok()) return failed(s.message());
  if (heap() == 0) return not_applicable("the heap of this build does not count");
  const auto kept = [&] {  // but for a run's plans, which are kept for the next step of their form
    if (bench.is_procedure()) bench.host.runtime.clear();
    return heap();
  };
  const size_t files = count_in("/proc/self/fd"), threads = count_in("/proc/self/task");
  // A table that grows now and then is no leak: what leaks grows in every round.
  const size_t bound = (bench.is_procedure() ? kLeastOfRun : kLeast) * static_cast<size_t>(cycles);
  size_t least = SIZE_MAX, before = kept();
  for (int round = 0; round < kRounds && least >= bound; ++round) {
    if (Status s = cycle(cycles); !s.is_ok()) return failed(s.message());
    const size_t after = kept();
    least = std::min(least, after > before ? after - before : 0);
    before = after;
  }
  if (least >= bound)
    return failed("each time that it is made, used and destroyed, about " + std::to_string(least / static_cast<size_t>(cycles)) + " bytes stay behind");
  if (count_in("/proc/self/fd") > files) return failed("open files stay behind");
  if (count_in("/proc/self/task") > threads) return failed("threads stay behind");
  return ok();
}

}  // namespace tenon::validate
