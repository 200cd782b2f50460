// Which steps of a program become machine code, and in which runs ("phases") between folds and whatever else
// is left to the interpreter. A step that has code runs as late as something needs its result, so that phases
// are few and long.
#include <hwy/targets.h>

#include <algorithm>

#include "backends/cpu/targets.h"
#include "backends/cpu/tile_draft.h"

namespace tenon::cpu {
namespace {

// What compile_phase knows.
bool has_code(const TileDraft& draft, const TileStep& s) {
  if (s.kind != TileInstr::map || draft.value(s.out).kind != TileRef::slot) return false;
  const TileValue& out = draft.value(s.out);
  const auto lane = [&](int i) { return draft.value(s.in[static_cast<size_t>(i)]).lane; };
  const auto all = [&](Lane l) {
    for (int i = 0; i < s.n_in; ++i)
      if (lane(i) != l) return false;
    return true;
  };
  const auto condition = [&] {  // a mask, which lies in memory or is made in the phase
    const TileValue& v = draft.value(s.in[0]);
    return v.dtype == DType::boolean && (v.kind == TileRef::slot || v.kind == TileRef::input);
  };
  if (is_comparison(s.op)) return out.dtype == DType::boolean && (all(Lane::f32) || all(Lane::i32));
  if (out.lane != Lane::f32) return false;
  switch (s.op) {
    case TileOp::add:
    case TileOp::sub:
    case TileOp::mul:
    case TileOp::div:
    case TileOp::minimum:
    case TileOp::maximum:
    case TileOp::neg:
    case TileOp::abs:
    case TileOp::square:
    case TileOp::relu:
    case TileOp::leaky_relu:
    case TileOp::clamp:
    case TileOp::sqrt:
    case TileOp::rsqrt:
    case TileOp::reciprocal:
    case TileOp::exp:
    case TileOp::sigmoid:
    case TileOp::silu:
      return all(Lane::f32);
    case TileOp::copy:
      return all(Lane::f32) || condition();
    case TileOp::where:
      return condition() && lane(1) == Lane::f32 && lane(2) == Lane::f32;
    default:
      return false;
  }
}

class Phases {
 public:
  explicit Phases(TileDraft& draft) : draft_(draft), steps_(draft.steps) {}

  void run() {
    for (const TileStep& s : steps_) state_.push_back(has_code(draft_, s) ? State::waiting : State::other);
    for (size_t i = 0; i < steps_.size(); ++i) {
      if (state_[i] != State::other) continue;
      for (int k = 0; k < steps_[i].n_in; ++k) gather(steps_[i].in[static_cast<size_t>(k)]);
      close();
      order_.push_back(steps_[i]);
    }
    for (size_t i = 0; i < steps_.size(); ++i)
      if (state_[i] == State::waiting && draft_.value(steps_[i].out).output >= 0) gather(steps_[i].out);
    close();
    steps_ = std::move(order_);
    for (TilePhase& p : draft_.phases) find_streams(p);
    compile();
  }

 private:
  enum class State : uint8_t { other, waiting, taken };

  // Takes the step that makes a value, and what it needs, into the phase at hand.
  void gather(int value) {
    const auto it =
        std::find_if(steps_.begin(), steps_.end(), [&](const TileStep& s) { return s.out == value; });
    if (it == steps_.end() || state_[index(it)] != State::waiting) return;
    state_[index(it)] = State::taken;
    now_.push_back(index(it));
    for (int k = 0; k < it->n_in; ++k) gather(it->in[static_cast<size_t>(k)]);
  }
  size_t index(std::vector<TileStep>::iterator it) const { return static_cast<size_t>(it - steps_.begin()); }

  void close() {
    if (now_.empty()) return;
    std::sort(now_.begin(), now_.end());
    TilePhase phase;
    for (const size_t i : now_) phase.steps.push_back(steps_[i]);
    now_.clear();
    TileStep native;
    native.kind = TileInstr::native;
    native.phase = static_cast<int>(draft_.phases.size());
    draft_.phases.push_back(std::move(phase));
    order_.push_back(native);
  }

  void find_streams(TilePhase& p) const {
    const auto made_here = [&](int v) {
      return std::any_of(p.steps.begin(), p.steps.end(), [&](const TileStep& s) { return s.out == v; });
    };
    for (const TileStep& s : p.steps) {
      for (int k = 0; k < s.n_in; ++k) {
        const int v = s.in[static_cast<size_t>(k)];
        const TileRef::Kind kind = draft_.value(v).kind;
        if ((kind == TileRef::slot || kind == TileRef::input) && !made_here(v) &&
            std::find(p.reads.begin(), p.reads.end(), v) == p.reads.end())
          p.reads.push_back(v);
      }
      if (draft_.value(s.out).output >= 0 || read_elsewhere(s.out, p)) p.writes.push_back(s.out);
    }
  }
  bool read_elsewhere(int value, const TilePhase& own) const {
    const auto reads = [&](const TileStep& s) { return s.reads(value); };
    return std::any_of(steps_.begin(), steps_.end(), reads) ||
           std::any_of(draft_.phases.begin(), draft_.phases.end(), [&](const TilePhase& p) {
             return &p != &own && std::any_of(p.steps.begin(), p.steps.end(), reads);
           });
  }

  // The interpreter runs a step alone as fast, and phases that need too many registers.
  void compile() {
    order_.clear();
    for (const TileStep& s : steps_) {
      if (s.kind != TileInstr::native) {
        order_.push_back(s);
        continue;
      }
      TilePhase& p = draft_.phases[static_cast<size_t>(s.phase)];
      if (p.steps.size() > 1) p.code = compile_phase(draft_, p);
      if (p.code)
        order_.push_back(s);
      else
        order_.insert(order_.end(), p.steps.begin(), p.steps.end());
    }
    steps_ = std::move(order_);
  }

  TileDraft& draft_;
  std::vector<TileStep>& steps_;
  std::vector<TileStep> order_;
  std::vector<State> state_;
  std::vector<size_t> now_;  // steps of the phase at hand
};

}  // namespace

void form_phases(TileDraft& draft) {
  // The code copies what the interpreter does with AVX-512.
#if HWY_ARCH_X86_64 && defined(__linux__)
  if ((hwy::SupportedTargets() & HWY_TARGETS & HWY_AVX3) != 0) Phases(draft).run();
#else
  (void)draft;
#endif
}

}  // namespace tenon::cpu
