// Pairs of arithmetic steps become one instruction: half the calls, and the inner result stays in a vector
// register.
#include <algorithm>

#include "backends/cpu/tile_draft.h"

namespace tenon::cpu {
namespace {

bool can_pair(const TileDraft& draft, const TileStep& step) {
  const TileValue& out = draft.value(step.out);
  return step.kind == TileInstr::map && step.n_in <= 2 && out.kind == TileRef::slot && out.lane == Lane::f32;
}

int readers(const TileDraft& draft, int value) {
  int n = 0;
  for (const TileStep& s : draft.steps)
    n += static_cast<int>(std::count(s.in.begin(), s.in.begin() + s.n_in, value));
  return n;
}

}  // namespace

void pair_steps(TileDraft& draft) {
  std::vector<uint8_t> gone(draft.steps.size(), 0);
  for (size_t second = 0; second < draft.steps.size(); ++second) {
    TileStep& s = draft.steps[second];
    for (int k = 0; k < s.n_in && s.n_in == 2 && can_pair(draft, s); ++k) {
      const int inner = s.in[static_cast<size_t>(k)], other = s.in[static_cast<size_t>(1 - k)];
      const auto first =
          std::find_if(draft.steps.begin(), draft.steps.begin() + static_cast<std::ptrdiff_t>(second),
                       [&](const TileStep& f) { return f.out == inner; });
      if (first == draft.steps.begin() + static_cast<std::ptrdiff_t>(second) || !can_pair(draft, *first) ||
          draft.value(inner).output >= 0 || readers(draft, inner) != 1)
        continue;
      const bool square = first->op == TileOp::square;
      const TileFn fn = find_tile_pair(square ? TileOp::mul : first->op, s.op, k == 1);
      if (!fn || (!square && first->n_in != 2)) continue;
      s.in = {first->in[0], first->in[square ? 0 : 1], other};
      s.n_in = 3;
      s.fn = fn;
      gone[static_cast<size_t>(first - draft.steps.begin())] = 1;
    }
  }
  size_t kept = 0;
  for (size_t i = 0; i < draft.steps.size(); ++i)
    if (!gone[i]) draft.steps[kept++] = draft.steps[i];
  draft.steps.resize(kept);
}

}  // namespace tenon::cpu
