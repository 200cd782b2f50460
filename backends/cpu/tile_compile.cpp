// From a draft to a program: what runs once, what runs for each tile, and a register slot for each value.
#include <algorithm>

#include "backends/cpu/tile_draft.h"

namespace tenon::cpu {
namespace {

// Elements of the longest tile, and into how many tiles at least a piece is split before they become long.
constexpr size_t kLongTile = 16384, kUnitsForThreads = 256;

class Compiler {
 public:
  explicit Compiler(TileDraft draft) : draft_(std::move(draft)), program_(draft_.program) {}

  bool run(bool native) {
    std::vector<TileStep> prologue;
    for (const TileStep& s : draft_.steps)
      if (draft_.value(s.out).kind == TileRef::scalar) prologue.push_back(s);
    if (program_.n_row_scalars > int{kMaxTileScalars} ||
        program_.n_scalars + static_cast<int>(prologue.size()) > int{kMaxTileScalars})
      return false;
    for (const TileStep& s : prologue)
      draft_.value(s.out).index = static_cast<uint16_t>(program_.n_scalars++);
    std::erase_if(draft_.steps,
                  [&](const TileStep& s) { return draft_.value(s.out).kind == TileRef::scalar; });
    if (native) form_phases(draft_);
    pair_steps(draft_);
    const std::vector<TileStep>& body = draft_.steps;
    if (body.size() > kMaxTileInstrs) return false;
    find_lifetimes(body);
    assign_slots(body);
    for (const TileStep& s : prologue) program_.prologue.push_back(encode(s));
    for (const TileStep& s : body) program_.body.push_back(encode(s));
    fit_tile();
    cut_at_parts();
    return true;
  }
  TileProgram take() { return std::move(program_); }

 private:
  const TilePhase& phase(const TileStep& s) const { return draft_.phases[static_cast<size_t>(s.phase)]; }
  std::span<const int> operands(const TileStep& s) const {
    if (s.kind == TileInstr::native) return phase(s).reads;
    return {s.in.data(), static_cast<size_t>(s.n_in)};
  }
  std::span<const int> results(const TileStep& s) const {
    if (s.kind == TileInstr::native) return phase(s).writes;
    return {&s.out, 1};
  }

  void find_lifetimes(const std::vector<TileStep>& body) {
    program_.last_read.assign(program_.inputs.size(), -1);
    for (size_t i = 0; i < body.size(); ++i)
      for (const int operand : operands(body[i])) {
        TileValue& v = draft_.value(operand);
        v.last_use = static_cast<int>(i);
        if (v.kind == TileRef::input) program_.last_read[v.index] = static_cast<int>(i);
      }
  }

  int take_slot() {
    if (free_.empty()) return program_.n_slots++;
    const int s = free_.back();
    free_.pop_back();
    return s;
  }
  void widen(Lane lane) { lane_bytes_ = std::max(lane_bytes_, size_of(lane)); }

  // Linear scan: a slot is free again after its value's last use. A result may take the slot of an operand
  // that ends with it when both have lanes of equal width, since elements are read before they are written.
  void assign_slots(const std::vector<TileStep>& body) {
    for (TileInput& in : program_.inputs) {
      if (in.mode != TileInput::joined) continue;
      if (std::all_of(in.parts.begin(), in.parts.end(), [](const TileInput::Part& p) { return p.direct; }))
        continue;
      in.block = static_cast<uint16_t>(take_slot());  // for the whole of the program
      widen(lane_of(in.dtype));
    }
    for (auto& [input, value] : draft_.slot_inputs) {
      TileValue& v = draft_.value(value);
      v.slot = take_slot();
      program_.inputs[input].block = static_cast<uint16_t>(v.slot);
      widen(v.lane);
    }
    const int end = static_cast<int>(body.size());
    for (int i = 0; i < end; ++i) {
      const TileStep& step = body[static_cast<size_t>(i)];
      for (const int result : results(step)) {
        TileValue& out = draft_.value(result);
        if (out.kind != TileRef::slot) continue;
        widen(out.lane);
        bool needs_slot = out.output < 0;
        if (out.output >= 0) {
          program_.outputs[static_cast<size_t>(out.output)].written_by = i;
          needs_slot =
              std::any_of(program_.last_read.begin(), program_.last_read.end(), [&](int r) { return r > i; });
          if (needs_slot) out.last_use = end;
        }
        release(step, i, &out);
        if (needs_slot) {
          out.slot = take_slot();
          if (out.output >= 0) program_.outputs[static_cast<size_t>(out.output)].slot = out.slot;
        }
      }
      release(step, i, nullptr);
      for (const int result : results(step)) {
        const TileValue& out = draft_.value(result);
        if (out.slot >= 0 && out.last_use < 0 && out.output < 0) free_.push_back(out.slot);  // never read
      }
    }
  }

  // Frees the slots of operands that end with this step: those that its result `out` may take, or all.
  void release(const TileStep& step, int at, const TileValue* out) {
    for (const int operand : operands(step)) {
      TileValue& v = draft_.value(operand);
      const bool in_place = out && is_floating(v.dtype) && is_floating(out->dtype) &&
                            size_of(v.lane) == size_of(out->lane) && step.op != TileOp::expand_bf16 &&
                            step.op != TileOp::shrink_bf16;
      if (v.slot < 0 || v.held || v.last_use != at || (out && !in_place) || v.output >= 0) continue;
      free_.push_back(v.slot);
      v.last_use = -1;  // once only, even when it is both operands
    }
  }

  // Shorter tiles where there are many slots, so that they stay in the first-level cache; rows with folds are
  // whole, and tiles that hold periods too. Where one instruction does everything, nothing of a tile is read
  // again: long tiles spare calls, of which a loop over memory notices every one.
  void fit_tile() {
    const bool fixed =
        draft_.folds || std::any_of(program_.inputs.begin(), program_.inputs.end(),
                                    [](const TileInput& in) { return in.mode == TileInput::periodic; });
    const auto slots = static_cast<size_t>(program_.n_slots);
    while (!fixed && program_.tile > 64 && slots * program_.tile * lane_bytes_ > kSlotMemory)
      program_.tile /= 2;
    if (!fixed && slots == 0 && program_.body.size() == 1) {
      const auto share = static_cast<size_t>(program_.space.numel()) / kUnitsForThreads;
      program_.tile = std::clamp(share / program_.tile * program_.tile, program_.tile, kLongTile);
    }
    program_.slot_bytes = align64(program_.tile * lane_bytes_);
  }

  // With joined inputs, tiles begin where parts do.
  void cut_at_parts() {
    std::vector<int64_t> first;
    for (const TileInput& in : program_.inputs)
      for (const TileInput::Part& part : in.parts) first.push_back(part.first);
    if (first.empty()) return;
    const int64_t total = program_.space.numel();
    first.push_back(total);
    std::sort(first.begin(), first.end());
    first.erase(std::unique(first.begin(), first.end()), first.end());
    for (size_t i = 0; i + 1 < first.size(); ++i)
      for (int64_t at = first[i]; at < first[i + 1]; at += static_cast<int64_t>(program_.tile))
        program_.cuts.push_back(at);
    program_.cuts.push_back(total);
  }

  TileRef ref(int value) const {
    const TileValue& v = draft_.value(value);
    if (v.output >= 0) return {TileRef::output, static_cast<uint16_t>(v.output)};
    if (v.kind == TileRef::slot) return {TileRef::slot, static_cast<uint16_t>(v.slot)};
    return {v.kind, v.index};
  }
  TileInstr encode(const TileStep& s) {
    TileInstr t;
    t.kind = s.kind;
    if (s.kind == TileInstr::native) {
      t.phase = static_cast<int>(program_.phases.size());
      TileProgram::Phase& p = program_.phases.emplace_back();
      p.code = phase(s).code;
      for (const std::span<const int> values : {operands(s), results(s)})
        for (const int v : values) p.streams.push_back(ref(v));
      return t;
    }
    t.fn = s.fn;
    t.how = s.how;
    if (s.kind == TileInstr::pick) t.index = draft_.value(s.in[1]).lane;
    t.n_in = static_cast<uint8_t>(s.n_in);
    for (size_t o = 0; o < t.n_in; ++o) t.in[o] = ref(s.in[o]);
    t.out = ref(s.out);
    t.p0 = s.p0;
    t.p1 = s.p1;
    return t;
  }

  TileDraft draft_;
  TileProgram& program_;
  std::vector<int> free_;
  size_t lane_bytes_ = 1;
};

}  // namespace

std::unique_ptr<Kernel> make_tile_kernel(Context& context, const Piece& piece) {
  std::optional<TileDraft> draft = draft_piece(piece);
  if (!draft) return nullptr;
  Compiler compiler(*std::move(draft));
  if (!compiler.run(context.native)) return nullptr;
  const std::string_view last = piece.nodes.back().op;
  std::string name = "tile:";
  name += last.substr(0, last.rfind('/'));
  if (piece.nodes.size() > 1) name.append("+").append(std::to_string(piece.nodes.size() - 1));
  TileProgram program = compiler.take();
  if (!program.phases.empty()) name += " native";
  return make_tile_interpreter(context, std::move(program), std::move(name));
}

}  // namespace tenon::cpu
