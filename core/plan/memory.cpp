// Where each block of working memory lies: blocks that live at the same time must not overlap. Largest first,
// each at the smallest gap that fits it.
#include <algorithm>
#include <numeric>

#include "core/plan/plan.h"

namespace tenon {

size_t assign_offsets(std::vector<Lifetime>& blocks) {
  constexpr size_t kAlign = 64;
  std::vector<size_t> order(blocks.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return blocks[a].bytes > blocks[b].bytes; });
  std::vector<size_t> placed, busy;
  size_t total = 0;
  for (size_t i : order) {
    Lifetime& b = blocks[i];
    const size_t bytes = (std::max<size_t>(b.bytes, 1) + kAlign - 1) / kAlign * kAlign;
    busy.clear();
    for (size_t j : placed)
      if (blocks[j].first <= b.last && b.first <= blocks[j].last) busy.push_back(j);
    std::sort(busy.begin(), busy.end(),
              [&](size_t x, size_t y) { return blocks[x].offset < blocks[y].offset; });
    size_t best = SIZE_MAX, best_gap = SIZE_MAX, end = 0;
    for (size_t j : busy) {
      const Lifetime& o = blocks[j];
      if (o.offset > end && o.offset - end >= bytes && o.offset - end < best_gap)
        best = end, best_gap = o.offset - end;
      end = std::max(end, o.offset + (std::max<size_t>(o.bytes, 1) + kAlign - 1) / kAlign * kAlign);
    }
    b.offset = best == SIZE_MAX ? end : best;
    total = std::max(total, b.offset + bytes);
    placed.push_back(i);
  }
  return total;
}

}  // namespace tenon
