// Device memory of the CPU backend: 64-byte aligned blocks, kept for reuse when released.
#pragma once

#include <cstddef>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "core/base/status.h"

namespace tenon::cpu {

// A step of training allocates and releases the same sizes over and over; after the first one all of them
// come from the free lists, so that no step pays for malloc, page faults or the zeroing of fresh pages.
class MemoryPool {
 public:
  MemoryPool() = default;
  ~MemoryPool();
  MemoryPool(const MemoryPool&) = delete;
  MemoryPool& operator=(const MemoryPool&) = delete;

  // Never null on success, also for 0 bytes.
  Result<void*> allocate(size_t bytes);
  // `bytes` as given to allocate().
  void release(void* p, size_t bytes);

 private:
  std::mutex mutex_;
  std::unordered_map<size_t, std::vector<void*>> free_;  // by block size
  size_t cached_ = 0;                                    // bytes in free_
};

}  // namespace tenon::cpu
