// The interpreter: runs a tile program over its iteration space, tiles split over threads.
#include <array>
#include <cstring>

#include "backends/cpu/parallel.h"
#include "backends/cpu/strided.h"
#include "backends/cpu/tile_program.h"

namespace tenon::cpu {
namespace {

// One element, repeated: what an operand that does not vary points to.
struct alignas(64) ScalarBlock {
  std::byte bytes[kGroup * 8];
};

// Reads one element in register form (bf16 as f32) and repeats it.
void fill_block(ScalarBlock& block, DType dtype, const std::byte* from) {
  const auto repeat = [&](auto v) {
    for (size_t i = 0; i < kGroup; ++i) std::memcpy(block.bytes + i * sizeof(v), &v, sizeof(v));
  };
  dispatch(dtype, [&](auto t) {
    std::memcpy(&t, from, sizeof(t));
    if constexpr (std::is_same_v<decltype(t), bf16>)
      repeat(static_cast<float>(t));
    else
      repeat(t);
  });
}

class TileKernel final : public Kernel {
 public:
  TileKernel(Context& context, TileProgram program, std::string name)
      : context_(context), p_(std::move(program)), name_(std::move(name)) {
    total_ = p_.space.numel();
    tiles_per_row_ = (p_.row_length + static_cast<int64_t>(p_.tile) - 1) / static_cast<int64_t>(p_.tile);
    // About 64k element-instructions are worth waking another thread for.
    const int64_t work = static_cast<int64_t>(std::max<size_t>(p_.body.size(), 1) * p_.tile);
    grain_ = std::max<int64_t>(1, 65536 / std::min<int64_t>(work, 65536));
    if (tiles_per_row_ > 1 || p_.rows == 1) return;
    const int64_t row_work = std::max<int64_t>(1, work / static_cast<int64_t>(p_.tile) * p_.row_length);
    grain_ = std::max<int64_t>(1, 65536 / row_work);
  }
  std::string_view name() const override { return name_; }

  Status run(std::span<void* const> in, std::span<void* const> out, void*) override {
    if (total_ == 0) return Status::ok();
    std::array<ScalarBlock, kMaxTileScalars> scalars;
    run_prologue(in, scalars);
    // Which outputs share memory with an input that is read after they are written.
    std::array<bool, kMaxTileInputs> wait{};
    for (size_t k = 0; k < p_.outputs.size(); ++k)
      for (size_t i = 0; i < in.size(); ++i)
        if (in[i] == out[k] && p_.last_read[i] > p_.outputs[k].written_by) wait[k] = true;
    parallel_for(context_.threads, p_.rows * tiles_per_row_, grain_, [&](int64_t begin, int64_t end) {
      Worker worker(p_, in, out, scalars, wait);
      for (int64_t unit = begin; unit < end; ++unit) worker.run(unit / tiles_per_row_, unit % tiles_per_row_);
    });
    return Status::ok();
  }

 private:
  using Scalars = std::array<ScalarBlock, kMaxTileScalars>;
  using Flags = std::array<bool, kMaxTileInputs>;

  void run_prologue(std::span<void* const> in, Scalars& scalars) {
    for (size_t i = 0; i < p_.inputs.size(); ++i)
      if (p_.inputs[i].mode == TileInput::scalar && in[i])
        fill_block(scalars[p_.inputs[i].block], p_.inputs[i].dtype, static_cast<const std::byte*>(in[i]));
    for (const TileInstr& instr : p_.prologue) {
      TileArgs args{};
      for (size_t o = 0; o < instr.n_in; ++o) {
        args.in[o] = scalars[instr.in[o].index].bytes;
        args.varies[o] = true;  // a block is as long as the one group we compute
      }
      args.out = scalars[instr.out.index].bytes;
      args.n = kGroup;
      args.p0 = instr.p0;
      args.p1 = instr.p1;
      instr.fn(args);
    }
  }

  // The state of one thread: argument lists of all instructions, and the memory of slots.
  class Worker {
   public:
    Worker(const TileProgram& p, std::span<void* const> in, std::span<void* const> out, Scalars& scalars,
           const Flags& wait)
        : p_(p), in_(in), out_(out), wait_(wait) {
      for (size_t i = 0; i < p.body.size(); ++i) {
        const TileInstr& instr = p.body[i];
        TileArgs& args = args_[i];
        args.p0 = instr.p0;
        args.p1 = instr.p1;
        for (size_t o = 0; o < instr.n_in; ++o) {
          args.varies[o] = instr.in[o].kind != TileRef::scalar && instr.in[o].kind != TileRef::row_scalar;
          if (instr.in[o].kind == TileRef::scalar) args.in[o] = scalars[instr.in[o].index].bytes;
          if (instr.in[o].kind == TileRef::row_scalar) args.in[o] = row_scalars_[instr.in[o].index].bytes;
          if (instr.in[o].kind == TileRef::slot) args.in[o] = slot(instr.in[o].index);
        }
        if (instr.out.kind == TileRef::slot) args.out = slot(instr.out.index);
      }
    }

    void run(int64_t row, int64_t tile_in_row) {
      if (row != row_) enter(row);
      const int64_t column = tile_in_row * static_cast<int64_t>(p_.tile);
      const auto n =
          static_cast<size_t>(std::min<int64_t>(static_cast<int64_t>(p_.tile), p_.row_length - column));
      const int64_t first = row * p_.row_length + column;
      for (size_t i = 0; i < p_.inputs.size(); ++i) {
        const TileInput& input = p_.inputs[i];
        const size_t bytes = tenon::size_of(input.dtype);
        if (input.mode == TileInput::direct)
          now_[i] =
              static_cast<const std::byte*>(in_[i]) + (row_offset_[i] + column) * static_cast<int64_t>(bytes);
      }
      const size_t whole = n / kGroup * kGroup;
      if (whole) run_groups(first, whole);
      if (n > whole) run_rest(first + static_cast<int64_t>(whole), whole, n - whole);
    }

   private:
    std::byte* slot(size_t i) { return slots_ + i * p_.slot_bytes; }

    void enter(int64_t row) {
      row_ = row;
      for (size_t i = 0; i < p_.inputs.size(); ++i) {
        const TileInput& input = p_.inputs[i];
        if (input.mode != TileInput::direct && input.mode != TileInput::row_scalar) continue;
        int64_t offset = 0, rest = row;
        if (p_.rows > 1)
          for (int d = p_.space.rank() - 2; d >= 0; --d) {
            offset += rest % p_.space[d] * input.strides[d];
            rest /= p_.space[d];
          }
        row_offset_[i] = offset;
        if (input.mode == TileInput::row_scalar && in_[i])
          fill_block(row_scalars_[input.block], input.dtype,
                     static_cast<const std::byte*>(in_[i]) +
                         offset * static_cast<int64_t>(tenon::size_of(input.dtype)));
      }
    }

    void fetch(int64_t first, size_t n) {
      for (size_t i = 0; i < p_.inputs.size(); ++i)
        if (p_.inputs[i].mode == TileInput::gathered)
          gather(p_.space, p_.inputs[i].strides, tenon::size_of(p_.inputs[i].dtype), in_[i], first,
                 static_cast<int64_t>(n), slot(p_.inputs[i].block));
    }

    void execute(size_t n) {
      for (size_t i = 0; i < p_.body.size(); ++i) {
        const TileInstr& instr = p_.body[i];
        TileArgs& args = args_[i];
        for (size_t o = 0; o < instr.n_in; ++o) {
          if (instr.in[o].kind == TileRef::input) args.in[o] = now_[instr.in[o].index];
          if (instr.in[o].kind == TileRef::output) args.in[o] = result_[instr.in[o].index];
        }
        if (instr.out.kind == TileRef::output) args.out = result_[instr.out.index];
        args.n = n;
        instr.fn(args);
      }
    }

    void run_groups(int64_t first, size_t n) {
      fetch(first, n);
      for (size_t k = 0; k < p_.outputs.size(); ++k)
        result_[k] = wait_[k] ? slot(static_cast<size_t>(p_.outputs[k].slot)) : address(k, first);
      execute(n);
      for (size_t k = 0; k < p_.outputs.size(); ++k)
        if (wait_[k]) std::memcpy(address(k, first), result_[k], n * tenon::size_of(p_.outputs[k].dtype));
    }

    // The last elements of a row, fewer than a group, run padded to one.
    void run_rest(int64_t first, size_t done, size_t n) {
      fetch(first, n);
      for (size_t i = 0; i < p_.inputs.size(); ++i) {
        if (p_.inputs[i].mode != TileInput::direct) continue;
        const size_t bytes = tenon::size_of(p_.inputs[i].dtype);
        std::memset(padded_in_[i].bytes, 0, sizeof(ScalarBlock));
        std::memcpy(padded_in_[i].bytes, now_[i] + done * bytes, n * bytes);
        now_[i] = padded_in_[i].bytes;
      }
      for (size_t k = 0; k < p_.outputs.size(); ++k) result_[k] = padded_out_[k].bytes;
      execute(kGroup);
      for (size_t k = 0; k < p_.outputs.size(); ++k)
        std::memcpy(address(k, first), result_[k], n * tenon::size_of(p_.outputs[k].dtype));
    }

    std::byte* address(size_t output, int64_t element) const {
      return static_cast<std::byte*>(out_[output]) +
             element * static_cast<int64_t>(tenon::size_of(p_.outputs[output].dtype));
    }

    const TileProgram& p_;
    std::span<void*const> in_, out_;
    const Flags& wait_;
    int64_t row_ = -1;
    std::array<int64_t, kMaxTileInputs> row_offset_;
    std::array<const std::byte*, kMaxTileInputs> now_;  // where each direct input's tile begins
    std::array<std::byte*, kMaxTileInputs> result_;     // where each output's tile goes
    std::array<TileArgs, kMaxTileInstrs> args_;
    std::array<ScalarBlock, kMaxTileInputs> row_scalars_, padded_in_, padded_out_;
    alignas(64) std::byte slots_[kSlotMemory];
  };

  Context& context_;
  TileProgram p_;
  std::string name_;
  int64_t total_ = 0, tiles_per_row_ = 1, grain_ = 1;
};

}  // namespace

std::unique_ptr<Kernel> make_tile_interpreter(Context& context, TileProgram program, std::string name) {
  return std::make_unique<TileKernel>(context, std::move(program), std::move(name));
}

}  // namespace tenon::cpu
