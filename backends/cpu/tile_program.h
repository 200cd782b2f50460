// Element-wise pieces, and folds along rows between them, as tile programs: a short list of instructions over
// registers that stay in cache, run tile by tile.
#pragma once

#include <memory>
#include <vector>

#include "backends/cpu/kernels.h"
#include "backends/cpu/row_fold.h"
#include "backends/cpu/tile_ops.h"

namespace tenon::cpu {

// Whether the tile interpreter knows an op for tensors of this type (that of any of its inputs, or of its
// output).
bool is_tile_op(std::string_view op, DType dtype);
// Whether it also knows it as a fold along rows (sum, .., or an element picked from each row).
bool is_row_op(std::string_view op, DType dtype);

// Inputs that are cheaper to copy first: those that step through memory along the innermost dimension.
uint32_t tile_wants_contiguous(const Piece& piece);

// A kernel for a piece of tile ops, or null where the piece has another op or shapes that don't fit together.
std::unique_ptr<Kernel> make_tile_kernel(Context& context, const Piece& piece);

// --- The program, as the compiler leaves it and the interpreter reads it ---

// Where an operand or a result lies. A row_scalar is one value per row, a scalar one for the whole piece;
// both are kept as blocks of kGroup equal elements.
struct TileRef {
  enum Kind : uint8_t { slot, scalar, input, row_scalar, output } kind = slot;
  uint16_t index = 0;
};

struct TileInstr {
  enum Kind : uint8_t {
    map,     // fn over the tile, or once a row where the result is a row_scalar
    fold,    // in[0] along the row -> a row_scalar
    pick,    // element in[1] of in[0] along the row -> a row_scalar
    native,  // a phase: several maps over the tile, as machine code
  } kind = map;
  TileFn fn = nullptr;
  RowFold how = RowFold::sum;  // fold
  Lane index = Lane::i64;      // pick: of in[1]
  uint8_t n_in = 0;
  TileRef in[kMaxOperands];
  TileRef out;
  double p0 = 0, p1 = 0;
  int phase = -1;  // native: which of TileProgram::phases
};

// Machine code for several maps. Its loop runs over `n` elements of all streams at once.
struct NativeCode {
  static constexpr size_t kMaxStreams = 10;
  using Run = void (*)(void* const* streams, size_t n, const void* scalars, const void* row_scalars,
                       const void* pool);
  std::shared_ptr<const void> memory;
  Run run = nullptr;
  std::vector<uint32_t> pool;  // constants
};

struct TileInput {
  enum Mode : uint8_t {
    scalar,      // one element for the whole piece
    direct,      // rows are read where they lie
    row_scalar,  // one element per row
    periodic,    // the same in every tile: copied to a slot once
    gathered,    // copied to a slot for each tile
    joined,      // parts behind one another, each in memory of its own
  } mode = scalar;
  DType dtype = DType::f32;
  uint16_t source = 0;  // which of the piece's inputs; joined: the first part's
  uint16_t block = 0;   // scalar, row_scalar: its block; periodic, gathered, joined: its slot
  Strides strides;      // over `TileProgram::space`
  struct Part {
    int64_t first = 0;  // element of the joined whole
    uint16_t source = 0;
    bool direct = true;  // else copied to the slot
    Shape shape;
    Strides strides;
  };
  std::vector<Part> parts;
};

struct TileOutput {
  DType dtype = DType::f32;
  int written_by = -1;  // the instruction
  // Writing straight to memory could change inputs that are still to be read if an input shares the address.
  // Then the result waits in this slot until the end of the tile. -1: no instruction reads any input
  // afterwards.
  int slot = -1;
  int row_block = -1;  // one element per row: the row_scalar that holds it
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
  struct Phase {
    std::shared_ptr<const NativeCode> code;
    std::vector<TileRef> streams;  // what it reads, then what it writes
  };
  std::vector<Phase> phases;
  std::vector<int64_t> cuts;  // with joined inputs: where tiles begin, and the end; else empty
};

// Whether each tile of an input follows the one before in memory, of which there is more than a core's own
// caches hold. It pays to fetch the next tile while this one is worked on.
bool is_stream(const TileProgram& program, const TileInput& input);

std::unique_ptr<Kernel> make_tile_interpreter(Context& context, TileProgram program, std::string name);

// Upper bounds, so that the interpreter's state is a few arrays on the stack.
inline constexpr size_t kMaxTileInstrs = 192, kMaxTileInputs = 40, kMaxTileOutputs = 32,
                        kMaxTileScalars = 128;
// Slots of more bytes than this lie in scratch memory.
inline constexpr size_t kSlotMemory = size_t{40} << 10;
// Rows with folds are held whole, so there is a longest one.
inline constexpr int64_t kMaxFoldedRow = 16384;

}  // namespace tenon::cpu
