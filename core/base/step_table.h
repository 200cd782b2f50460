// A table from 64-bit keys to 32-bit numbers that keeps its memory when it is emptied: for look-ups that
// every step makes anew.
#pragma once

#include <cstdint>
#include <vector>

namespace tenon {

class StepTable {
 public:
  uint32_t size() const { return size_; }
  void clear() {
    size_ = 0;
    if (++stamp_ != 0) return;
    entries_.assign(entries_.size(), {});  // stamps have come round
    stamp_ = 1;
  }
  // The number under `key`; where there is none yet, `fresh` is put there.
  uint32_t find_or_insert(uint64_t key, uint32_t fresh) {
    if (2 * size_ >= entries_.size()) grow();
    Entry& e = entry(key);
    if (e.stamp == stamp_) return e.value;
    e = {key, fresh, stamp_};
    ++size_;
    return fresh;
  }

 private:
  struct Entry {
    uint64_t key = 0;
    uint32_t value = 0, stamp = 0;
  };
  // Where the key is, or where it belongs.
  Entry& entry(uint64_t key) {
    const size_t mask = entries_.size() - 1;
    size_t i = static_cast<size_t>((key * 0x9e3779b97f4a7c15u) >> 32) & mask;
    while (entries_[i].stamp == stamp_ && entries_[i].key != key) i = (i + 1) & mask;
    return entries_[i];
  }
  void grow() {
    std::vector<Entry> old(entries_.empty() ? 64 : 2 * entries_.size());
    old.swap(entries_);
    for (const Entry& e : old)
      if (e.stamp == stamp_) entry(e.key) = e;
  }

  std::vector<Entry> entries_;
  uint32_t size_ = 0, stamp_ = 1;
};

}  // namespace tenon
