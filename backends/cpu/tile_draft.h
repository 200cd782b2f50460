// A piece lowered to instructions on values, before registers are given out.
#pragma once

#include <array>
#include <optional>
#include <vector>

#include "backends/cpu/tile_program.h"

namespace tenon::cpu {

struct TileValue {
  TileRef::Kind kind = TileRef::slot;
  Lane lane = Lane::f32;
  DType dtype = DType::f32;
  uint16_t index = 0;  // input, scalar or row_scalar
  int last_use = -1;
  int output = -1;  // written straight to this output
  int slot = -1;
  bool held = false;  // its slot is filled once and must stay
};

struct TileStep {
  TileInstr::Kind kind = TileInstr::map;
  TileFn fn = nullptr;
  TileOp op = TileOp::copy;
  RowFold how = RowFold::sum;
  std::array<int, kMaxOperands> in{-1, -1, -1, -1};  // values
  int n_in = 0, out = -1;
  double p0 = 0, p1 = 0;
  int phase = -1;  // native: which of TileDraft::phases
  bool reads(int value) const { return std::find(in.begin(), in.begin() + n_in, value) != in.begin() + n_in; }
};

// Steps that run as one, as machine code: values that it reads from memory, and those that it leaves there.
struct TilePhase {
  std::vector<TileStep> steps;
  std::vector<int> reads, writes;
  std::shared_ptr<const NativeCode> code;
};

struct TileDraft {
  TileProgram program;  // inputs, outputs, iteration space, numbers of scalars
  std::vector<TileValue> values;
  std::vector<TileStep> steps;
  std::vector<std::pair<size_t, int>> slot_inputs;  // input that is copied to a slot, its value
  std::vector<TilePhase> phases;
  bool folds = false;

  TileValue& value(int v) { return values[static_cast<size_t>(v)]; }
  const TileValue& value(int v) const { return values[static_cast<size_t>(v)]; }
};

// Nullopt: not a piece for tiles.
std::optional<TileDraft> draft_piece(const Piece& piece);

// Puts steps into phases where the processor has AVX-512. All values but slots must have their numbers.
void form_phases(TileDraft& draft);
// The code of a phase; null where it needs more registers than there are.
std::shared_ptr<const NativeCode> compile_phase(const TileDraft& draft, const TilePhase& phase);

// Two steps in a row of which the second alone reads the first's result become one where there is code for
// both.
void pair_steps(TileDraft& draft);

}  // namespace tenon::cpu
