// Element-wise pieces as tile programs: a short list of instructions over registers that stay in L1, run tile
// by tile.
#pragma once

#include <memory>
#include <vector>

#include "backends/cpu/kernels.h"
#include "backends/cpu/tile_ops.h"

namespace tenon::cpu {

// Whether the tile interpreter knows an op for tensors of this type (that of any of its inputs, or of its
// output).
bool is_tile_op(std::string_view op, DType dtype);

// Inputs that are cheaper to copy first: those that step through memory along the innermost dimension.
uint32_t tile_wants_contiguous(const Piece& piece);

// A kernel for a piece of tile ops, or null where the piece has another op or shapes that differ from the
// outputs'.
std::unique_ptr<Kernel> make_tile_kernel(Context& context, const Piece& piece);

// --- The program, as the compiler leaves it and the interpreter reads it ---

// Where an operand or a result lies.
struct TileRef {
  enum Kind : uint8_t { slot, scalar, input, row_scalar, output } kind = slot;
  uint16_t index = 0;
};

struct TileInstr {
  TileFn fn = nullptr;
  uint8_t n_in = 0;
  TileRef in[kMaxOperands];
  TileRef out;
  double p0 = 0, p1 = 0;
};

struct TileInput {
  enum Mode : uint8_t {
    unused,
    scalar,      // one element for the whole piece
    direct,      // rows are read where they lie
    row_scalar,  // one element per row
    gathered,    // copied to a slot first
  } mode = unused;
  DType dtype = DType::f32;
  uint16_t block = 0;  // scalar, row_scalar: its block; gathered: its slot
  Strides strides;     // over `TileProgram::space`
};

struct TileOutput {
  DType dtype = DType::f32;
  int written_by = -1;  // the instruction
  // Writing straight to memory could change inputs that are still to be read if an input shares the address.
  // Then the result waits in this slot until the end of the tile. -1: no instruction reads any input
  // afterwards.
  int slot = -1;
};

struct TileProgram {
  std::vector<TileInput> inputs;
  std::vector<TileOutput> outputs;
  std::vector<TileInstr> prologue;  // on scalars only, once per run
  std::vector<TileInstr> body;
  std::vector<int> last_read;  // per input: last instruction of the body that reads it directly, or -1
  int n_scalars = 0, n_row_scalars = 0, n_slots = 0;
  size_t slot_bytes = 0, tile = 0;  // bytes of a slot; elements of a tile
  Shape space;                      // collapsed iteration space; the last dimension is a row in row mode
  int64_t rows = 1, row_length = 0;
};

std::unique_ptr<Kernel> make_tile_interpreter(Context& context, TileProgram program, std::string name);

// Upper bounds, so that the interpreter's state is a few arrays on the stack.
inline constexpr size_t kMaxTileInstrs = 96, kMaxTileInputs = 40, kMaxTileScalars = 96;
inline constexpr size_t kSlotMemory = size_t{40} << 10;

}  // namespace tenon::cpu
