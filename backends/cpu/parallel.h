// Splitting loops over the threads of the backend.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>

namespace tenon::cpu {

// Work that is worth another thread takes about 10 us. To wake one takes a tenth of that, but on a busy
// machine it may be long in coming, and all wait for it.
inline constexpr int64_t kMovedGrain = 65536;  // elements that are read, perhaps added, and written
inline constexpr int64_t kMathGrain = 32768;   // elements that go through an exponential or the like

// Calls f(begin, end) for consecutive ranges that cover [0, n), on up to `threads` threads. Ranges start at
// multiples of `grain`, and no thread is woken for less than one grain. f must give the same result however
// [0, n) is cut.
template <class F>
void parallel_for(int threads, int64_t n, int64_t grain, F&& f) {
  if (n <= 0) return;
  const int64_t grains = (n + grain - 1) / grain;
  const int team = static_cast<int>(std::min<int64_t>(threads, grains));
  if (team <= 1) {
    f(int64_t{0}, n);
    return;
  }
#pragma omp parallel num_threads(team)
  {
    // The team may come out smaller than asked for.
    const int64_t size = omp_get_num_threads(), me = omp_get_thread_num();
    const int64_t begin = grains * me / size * grain, end = std::min(n, grains * (me + 1) / size * grain);
    if (begin < end) f(begin, end);
  }
}

}  // namespace tenon::cpu
