// Layout: convolutions that compute channels-last leave their results so, and what follows takes them as they
// are: element-wise pieces run in the order of memory, other operations where the backend says that they can
// (Backend::channels_last). All else gets a row-major copy, so that nothing has to know of this.
#pragma once

#include <span>
#include <vector>

#include "backends/backend.h"
#include "core/tensor/channels_last.h"

namespace tenon {

struct LayoutChoice {
  enum class Copy : uint8_t { none, row_major, channels_last };
  std::vector<Copy> copies;  // which the inputs need
  bool moved = false;        // the piece is over [B, .., C] now, and its results lie so
};

// Decides how a piece reads its inputs and writes its results, and rewrites it so. `kept`: which inputs this
// pass left channels-last; `elementwise`: all of its operations are. Without `enabled`, nothing is written
// channels-last.
LayoutChoice choose_layouts(Piece& piece, bool elementwise, const std::vector<bool>& kept, Backend& backend,
                            bool enabled);

// A layout [B, C, ..], broadcast to this rank, as [B, .., C].
Layout in_memory_order(Layout l, int rank);

}  // namespace tenon
