// Steps of which one reads the other's result become one instruction: half the calls, and what lies between
// them stays in a vector register. Both results are rounded as the steps alone would round them.
#include <algorithm>

#include "backends/cpu/tile_draft.h"

namespace tenon::cpu {
namespace {

class Pairs {
 public:
  explicit Pairs(TileDraft& draft) : draft_(draft), steps_(draft.steps) {}

  void run() {
    for (size_t at = 0; at < steps_.size(); ++at) {
      TileStep& s = steps_[at];
      if (s.kind != TileInstr::map || draft_.value(s.out).kind != TileRef::slot) continue;
      if (!use_comparison(s) && !subtract_in_exp(s)) join_arithmetic(s);
    }
    for (size_t at = steps_.size(); at-- > 0;) {
      if (steps_[at].kind == TileInstr::native) continue;
      const TileValue& out = draft_.value(steps_[at].out);
      if (out.kind == TileRef::slot && out.output < 0 && readers(steps_[at].out) == 0)
        steps_.erase(steps_.begin() + static_cast<std::ptrdiff_t>(at));
    }
  }

 private:
  // The step that computes a value for each element; null: it is an input, or one number.
  const TileStep* maker(int value) const {
    if (draft_.value(value).kind != TileRef::slot) return nullptr;
    const auto it =
        std::find_if(steps_.begin(), steps_.end(), [&](const TileStep& s) { return s.out == value; });
    return it == steps_.end() || it->kind != TileInstr::map ? nullptr : &*it;
  }
  int readers(int value) const {
    int n = 0;
    for (const TileStep& s : steps_) {
      if (s.kind == TileInstr::native)
        n += static_cast<int>(std::ranges::count(draft_.phases[static_cast<size_t>(s.phase)].reads, value));
      n += static_cast<int>(std::count(s.in.begin(), s.in.begin() + s.n_in, value));
    }
    return n;
  }
  // Read by one step only, and nobody outside.
  bool is_inner(int value) const { return draft_.value(value).output < 0 && readers(value) == 1; }
  Lane lane(int value) const { return draft_.value(value).lane; }

  // where(a < b, x, y), and a < b as a number. The comparison is cheap enough to be done by each of its
  // readers.
  bool use_comparison(TileStep& s) {
    const bool select = s.op == TileOp::where && s.n_in == 3, test = s.op == TileOp::copy;
    if ((!select && !test) || lane(s.out) != Lane::f32 || (test && draft_.value(s.out).dtype != DType::f32))
      return false;
    const TileStep* compare = maker(s.in[0]);
    if (!compare || compare->n_in != 2 || draft_.value(compare->out).dtype != DType::boolean) return false;
    const Lane in = lane(compare->in[0]);
    const TileFn fn = select ? find_tile_select(compare->op, in) : find_tile_test(compare->op, in);
    if (!fn) return false;
    s.in = {compare->in[0], compare->in[1], s.in[1], s.in[2]};
    s.n_in = select ? 4 : 2;
    s.fn = fn;
    s.op = TileOp::where;
    return true;
  }

  bool subtract_in_exp(TileStep& s) {
    if (s.op != TileOp::exp || lane(s.out) != Lane::f32 || !is_inner(s.in[0])) return false;
    const TileStep* inner = maker(s.in[0]);
    if (!inner || inner->op != TileOp::sub || inner->n_in != 2) return false;
    s.in[1] = inner->in[1];
    s.in[0] = inner->in[0];
    s.n_in = 2;
    s.fn = find_tile_exp_of_difference();
    return true;
  }

  void join_arithmetic(TileStep& s) {
    for (size_t k = 0; k < 2 && s.n_in == 2 && lane(s.out) == Lane::f32; ++k) {
      if (!is_inner(s.in[k]) || lane(s.in[k]) != Lane::f32) continue;
      const TileStep* inner = maker(s.in[k]);
      if (!inner) continue;
      const bool square = inner->op == TileOp::square && inner->n_in == 1;
      if (!square && inner->n_in != 2) continue;
      const TileFn fn = find_tile_pair(square ? TileOp::mul : inner->op, s.op, k == 1);
      if (!fn) continue;
      s.in = {inner->in[0], inner->in[square ? 0 : 1], s.in[1 - k], -1};
      s.n_in = 3;
      s.fn = fn;
    }
  }

  TileDraft& draft_;
  std::vector<TileStep>& steps_;
};

}  // namespace

void pair_steps(TileDraft& draft) { Pairs(draft).run(); }

}  // namespace tenon::cpu
