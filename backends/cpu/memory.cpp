#include "backends/cpu/memory.h"

#include <algorithm>
#include <bit>
#include <cstdlib>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace tenon::cpu {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kHuge = size_t{2} << 20;
// Released memory beyond this goes back to the system, so that a change of batch size can't double the
// footprint.
constexpr size_t kMaxCached = size_t{64} << 20;

// Small sizes are rounded up to a quarter of their power of two, so that near sizes share a list; large ones,
// which are few and long-lived, to a page only.
size_t block_size(size_t bytes) {
  bytes = std::max(bytes, kAlignment);
  if (bytes >= (size_t{64} << 10)) return (bytes + 4095) & ~size_t{4095};
  const size_t step = std::max(kAlignment, std::bit_floor(bytes) / 4);
  return (bytes + step - 1) / step * step;
}

void* system_allocate(size_t block) {
#ifdef __linux__
  if (block >= 2 * kHuge) {
    // Huge pages make long streams (optimizer steps over millions of parameters) markedly faster.
    void* p = std::aligned_alloc(kHuge, (block + kHuge - 1) & ~(kHuge - 1));
    if (p) madvise(p, block & ~(kHuge - 1), MADV_HUGEPAGE);
    return p;
  }
#endif
  return std::aligned_alloc(kAlignment, block);
}

}  // namespace

MemoryPool::~MemoryPool() {
  for (auto& [block, list] : free_)
    for (void* p : list) std::free(p);
}

Result<void*> MemoryPool::allocate(size_t bytes) {
  const size_t block = block_size(bytes);
  {
    std::lock_guard lock(mutex_);
    const auto it = free_.find(block);
    if (it != free_.end() && !it->second.empty()) {
      void* p = it->second.back();
      it->second.pop_back();
      cached_ -= block;
      return p;
    }
  }
  if (void* p = block < bytes ? nullptr : system_allocate(block)) return p;
  return Status(Code::unsupported, "out of memory: the system refused " + std::to_string(bytes) +
                                       " bytes; use a smaller batch or model");
}

void MemoryPool::release(void* p, size_t bytes) {
  if (!p) return;
  const size_t block = block_size(bytes);
  {
    std::lock_guard lock(mutex_);
    if (cached_ + block <= kMaxCached) {
      free_[block].push_back(p);
      cached_ += block;
      return;
    }
  }
  std::free(p);
}

}  // namespace tenon::cpu
