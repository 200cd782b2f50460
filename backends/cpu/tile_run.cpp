// The interpreter: runs a tile program over its iteration space, tiles split over threads.
#include <array>
#include <atomic>
#include <cstring>

#include "backends/cpu/rows.h"
#include "backends/cpu/strided.h"
#include "backends/cpu/tile_program.h"

namespace tenon::cpu {
namespace {

// One element, repeated: what an operand that does not vary points to.
struct alignas(64) ScalarBlock {
  std::byte bytes[kGroup * 8];
  template <class T>
  void fill(T v) {
    for (size_t i = 0; i < kGroup; ++i) std::memcpy(bytes + i * sizeof(v), &v, sizeof(v));
  }
};

// Reads one element in register form (bf16 as f32) and repeats it.
void fill_block(ScalarBlock& block, DType dtype, const std::byte* from) {
  dispatch(dtype, [&](auto t) {
    std::memcpy(&t, from, sizeof(t));
    if constexpr (std::is_same_v<decltype(t), bf16>)
      block.fill(static_cast<float>(t));
    else
      block.fill(t);
  });
}

class TileKernel final : public Kernel {
 public:
  TileKernel(Context& context, TileProgram program, std::string name)
      : context_(context), p_(std::move(program)), name_(std::move(name)) {
    total_ = p_.space.numel();
    tiles_per_row_ = (p_.row_length + static_cast<int64_t>(p_.tile) - 1) / static_cast<int64_t>(p_.tile);
    units_ = p_.cuts.empty() ? p_.rows * tiles_per_row_ : static_cast<int64_t>(p_.cuts.size()) - 1;
    constexpr int64_t kWork =
        4 * kMovedGrain;  // element-instructions, of which most move between registers in cache
    const int64_t unit = std::max<int64_t>(1, total_ / std::max<int64_t>(units_, 1));
    grain_ = std::max<int64_t>(1, kWork / (unit * static_cast<int64_t>(std::max<size_t>(p_.body.size(), 1))));
    find_streams();
    const size_t slots = static_cast<size_t>(p_.n_slots) * p_.slot_bytes;
    if (slots > kSlotMemory) buffers_ = ThreadBuffers(context, 0, slots / sizeof(float));
  }
  std::string_view name() const override { return name_; }
  size_t scratch_bytes() const override { return buffers_ ? buffers_->scratch_bytes() : 0; }

  Status run(std::span<void* const> in, std::span<void* const> out, void* scratch) override {
    if (total_ == 0) return Status::ok();
    std::array<ScalarBlock, kMaxTileScalars> scalars;
    run_prologue(in, scalars);
    // Which outputs share memory with an input that is read after they are written.
    std::array<bool, kMaxTileOutputs> wait{};
    for (size_t k = 0; k < p_.outputs.size(); ++k)
      for (size_t i = 0; i < p_.inputs.size(); ++i)
        if (p_.last_read[i] > p_.outputs[k].written_by && reads(p_.inputs[i], in, out[k])) wait[k] = true;
    std::atomic<int64_t> bad_row{-1};
    const int threads = buffers_ ? buffers_->threads(context_) : context_.threads;
    parallel_for(threads, units_, grain_, [&](int64_t begin, int64_t end) {
      Worker worker(p_, streams_, in, out, scalars, wait);
      if (buffers_) worker.use_slots(reinterpret_cast<std::byte*>(buffers_->mine(scratch)));
      for (int64_t unit = begin; unit < end; ++unit) {
        if (p_.cuts.empty()) {
          worker.run(unit / tiles_per_row_, unit % tiles_per_row_);
        } else {
          const auto u = static_cast<size_t>(unit);
          worker.run_part(p_.cuts[u], p_.cuts[u + 1]);
        }
      }
      if (worker.bad_row() >= 0) bad_row = worker.bad_row();
    });
    if (bad_row < 0) return Status::ok();
    return invalid("take_along_axis: the index of row " + std::to_string(bad_row) + " is outside [0, " +
                   std::to_string(p_.row_length) + ")");
  }

 private:
  using Scalars = std::array<ScalarBlock, kMaxTileScalars>;
  using Flags = std::array<bool, kMaxTileOutputs>;

  static bool reads(const TileInput& input, std::span<void* const> in, const void* address) {
    if (input.mode != TileInput::joined) return in[input.source] == address;
    return std::any_of(input.parts.begin(), input.parts.end(),
                       [&](const TileInput::Part& part) { return in[part.source] == address; });
  }

  // The streams, to be fetched ahead here where no machine code does it: the processor can't see the next
  // tile coming, since an instruction reads a whole tile before the next instruction starts another stream.
  void find_streams() {
    if (!p_.phases.empty()) return;
    for (size_t i = 0; i < p_.inputs.size(); ++i)
      if (is_stream(p_, p_.inputs[i])) streams_.push_back(i);
  }

  void run_prologue(std::span<void* const> in, Scalars& scalars) {
    for (const TileInput& input : p_.inputs)
      if (input.mode == TileInput::scalar)
        fill_block(scalars[input.block], input.dtype, static_cast<const std::byte*>(in[input.source]));
    for (const TileInstr& instr : p_.prologue) {
      TileArgs args{};
      for (size_t o = 0; o < instr.n_in; ++o) args.in[o] = scalars[instr.in[o].index].bytes;
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
    Worker(const TileProgram& p, std::span<const size_t> streams, std::span<void* const> in,
           std::span<void* const> out, Scalars& scalars, const Flags& wait)
        : p_(p), streams_(streams), in_(in), out_(out), wait_(wait), scalars_(scalars) {
      prepare();
    }
    void use_slots(std::byte* memory) {
      slots_ = memory;
      prepare();
    }
    int64_t bad_row() const { return bad_row_; }

    void run(int64_t row, int64_t tile_in_row) {
      if (row != row_) enter(row);
      const int64_t column = tile_in_row * static_cast<int64_t>(p_.tile);
      const int64_t n = std::min<int64_t>(static_cast<int64_t>(p_.tile), p_.row_length - column);
      for (size_t i = 0; i < p_.inputs.size(); ++i)
        if (p_.inputs[i].mode == TileInput::direct) now_[i] = element(p_.inputs[i], row_offset_[i] + column);
      run_tile(row * p_.row_length + column, static_cast<size_t>(n));
    }

    // Elements [first, last), which lie in one part of every joined input.
    void run_part(int64_t first, int64_t last) {
      for (size_t i = 0; i < p_.inputs.size(); ++i) {
        const TileInput& input = p_.inputs[i];
        if (input.mode == TileInput::direct) now_[i] = element(input, first);
        if (input.mode != TileInput::joined) continue;
        const auto next =
            std::upper_bound(input.parts.begin(), input.parts.end(), first,
                             [](int64_t at, const TileInput::Part& part) { return at < part.first; });
        const TileInput::Part& part = *(next - 1);
        const auto* from = static_cast<const std::byte*>(in_[part.source]);
        const size_t bytes = tenon::size_of(input.dtype);
        if (part.direct) {
          now_[i] = from + (first - part.first) * static_cast<int64_t>(bytes);
        } else {
          gather(part.shape, part.strides, bytes, from, first - part.first, last - first, slot(input.block));
          now_[i] = slot(input.block);
        }
      }
      run_tile(first, static_cast<size_t>(last - first));
    }

   private:
    std::byte* slot(size_t i) { return slots_ + i * p_.slot_bytes; }
    const std::byte* element(const TileInput& input, int64_t offset) const {
      return static_cast<const std::byte*>(in_[input.source]) +
             offset * static_cast<int64_t>(tenon::size_of(input.dtype));
    }

    // What of the arguments stays the same.
    void prepare() {
      for (size_t i = 0; i < p_.body.size(); ++i) {
        const TileInstr& instr = p_.body[i];
        TileArgs& args = args_[i];
        args.p0 = instr.p0;
        args.p1 = instr.p1;
        for (size_t o = 0; o < instr.n_in; ++o) {
          const TileRef& ref = instr.in[o];
          args.varies[o] = ref.kind != TileRef::scalar && ref.kind != TileRef::row_scalar;
          if (ref.kind == TileRef::scalar) args.in[o] = scalars_[ref.index].bytes;
          if (ref.kind == TileRef::row_scalar) args.in[o] = row_scalars_[ref.index].bytes;
          if (ref.kind == TileRef::slot) args.in[o] = slot(ref.index);
        }
        if (instr.out.kind == TileRef::slot) args.out = slot(instr.out.index);
        if (instr.out.kind == TileRef::row_scalar) args.out = row_scalars_[instr.out.index].bytes;
      }
    }

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
        if (input.mode == TileInput::row_scalar)
          fill_block(row_scalars_[input.block], input.dtype, element(input, offset));
      }
    }

    void fetch(int64_t first, size_t n) {
      for (const TileInput& input : p_.inputs)
        if (input.mode == TileInput::gathered || (input.mode == TileInput::periodic && !periods_there_))
          gather(p_.space, input.strides, tenon::size_of(input.dtype), in_[input.source], first,
                 static_cast<int64_t>(n), slot(input.block));
      periods_there_ = true;
    }

    // Shares the streams' next tiles out among the instructions, each of which takes a part of one stream.
    void fetch_ahead(size_t i, size_t n, TileArgs& args) const {
      args.ahead = args.ahead_end = nullptr;
      if (streams_.empty()) return;
      const size_t parts =
          (p_.body.size() + streams_.size() - 1) / streams_.size();  // instructions per stream
      if (i / parts >= streams_.size()) return;
      const size_t s = streams_[i / parts], bytes = n * tenon::size_of(p_.inputs[s].dtype);
      const std::byte* next = now_[s] + bytes;
      args.ahead = next + bytes * (i % parts) / parts;
      args.ahead_end = next + bytes * (i % parts + 1) / parts;
    }

    void run_tile(int64_t first, size_t n) {
      fetch(first, n);
      for (size_t k = 0; k < p_.outputs.size(); ++k)
        if (p_.outputs[k].row_block < 0)
          result_[k] = wait_[k] ? slot(static_cast<size_t>(p_.outputs[k].slot)) : address(k, first);
      for (size_t i = 0; i < p_.body.size(); ++i) {
        fetch_ahead(i, n, args_[i]);
        execute(p_.body[i], args_[i], n);
      }
      for (size_t k = 0; k < p_.outputs.size(); ++k) {
        const TileOutput& output = p_.outputs[k];
        if (output.row_block >= 0)
          store_row(output, address(k, row_));
        else if (wait_[k])
          std::memcpy(address(k, first), result_[k], n * tenon::size_of(output.dtype));
      }
    }

    void execute(const TileInstr& instr, TileArgs& args, size_t n) {
      for (size_t o = 0; o < instr.n_in; ++o) {
        if (instr.in[o].kind == TileRef::input) args.in[o] = now_[instr.in[o].index];
        if (instr.in[o].kind == TileRef::output) args.in[o] = result_[instr.in[o].index];
      }
      switch (instr.kind) {
        case TileInstr::map:
          if (instr.out.kind == TileRef::output) args.out = result_[instr.out.index];
          args.n = instr.out.kind == TileRef::row_scalar ? kGroup : n;
          instr.fn(args);
          break;
        case TileInstr::native: {
          const TileProgram::Phase& phase = p_.phases[static_cast<size_t>(instr.phase)];
          void* streams[NativeCode::kMaxStreams];
          for (size_t k = 0; k < phase.streams.size(); ++k) streams[k] = stream(phase.streams[k]);
          phase.code->run(streams, n, scalars_.data(), row_scalars_.data(), phase.code->pool.data());
          break;
        }
        case TileInstr::fold:
          row_scalars_[instr.out.index].fill(
              fold_row(instr.how, static_cast<const float*>(args.in[0]), static_cast<int64_t>(n)));
          break;
        case TileInstr::pick: {
          int64_t at = 0;
          if (instr.index == Lane::i64)
            at = *static_cast<const int64_t*>(args.in[1]);
          else
            at = *static_cast<const int32_t*>(args.in[1]);
          const bool inside = at >= 0 && at < static_cast<int64_t>(n);
          if (!inside) bad_row_ = row_;
          row_scalars_[instr.out.index].fill(inside ? static_cast<const float*>(args.in[0])[at] : 0.0f);
          break;
        }
      }
    }

    void* stream(const TileRef& ref) {
      if (ref.kind == TileRef::input) return const_cast<std::byte*>(now_[ref.index]);  // is only read
      return ref.kind == TileRef::output ? result_[ref.index] : slot(ref.index);
    }

    void store_row(const TileOutput& output, std::byte* to) const {
      const std::byte* from = row_scalars_[static_cast<size_t>(output.row_block)].bytes;
      if (output.dtype == DType::bf16) {
        float v;
        std::memcpy(&v, from, sizeof(v));
        const bf16 half(v);
        std::memcpy(to, &half, sizeof(half));
      } else {
        std::memcpy(to, from, tenon::size_of(output.dtype));
      }
    }

    std::byte* address(size_t output, int64_t element) const {
      return static_cast<std::byte*>(out_[output]) +
             element * static_cast<int64_t>(tenon::size_of(p_.outputs[output].dtype));
    }

    const TileProgram& p_;
    std::span<const size_t> streams_;
    std::span<void*const> in_, out_;
    const Flags& wait_;
    Scalars& scalars_;
    int64_t row_ = -1, bad_row_ = -1;
    bool periods_there_ = false;
    std::array<int64_t, kMaxTileInputs> row_offset_;
    std::array<const std::byte*, kMaxTileInputs> now_;  // where each direct input's tile begins
    std::array<std::byte*, kMaxTileOutputs> result_;    // where each output's tile goes
    std::array<TileArgs, kMaxTileInstrs> args_;
    std::array<ScalarBlock, kMaxTileScalars> row_scalars_;
    alignas(64) std::byte own_slots_[kSlotMemory];
    std::byte* slots_ = own_slots_;
  };

  Context& context_;
  TileProgram p_;
  std::string name_;
  int64_t total_ = 0, tiles_per_row_ = 1, units_ = 0, grain_ = 1;
  std::vector<size_t> streams_;
  std::optional<ThreadBuffers> buffers_;  // where the slots are more than the stack should hold
};

}  // namespace

bool is_stream(const TileProgram& p, const TileInput& input) {
  constexpr int64_t kCached = int64_t{1} << 19;  // elements
  const bool follows = input.mode == TileInput::joined ||
                       (input.mode == TileInput::direct && is_contiguous(p.space, input.strides));
  return follows && p.space.numel() > kCached;
}

std::unique_ptr<Kernel> make_tile_interpreter(Context& context, TileProgram program, std::string name) {
  return std::make_unique<TileKernel>(context, std::move(program), std::move(name));
}

}  // namespace tenon::cpu
