// The seam between the engine and a device: memory, copies, and kernels compiled from pieces of a plan.
//
// Core never dereferences a device address. A backend compiles each piece once, when a plan is made; a step then
// only hands it addresses. Backends are modules of the same build as the host: this surface has no stability promise.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/status.h"
#include "core/tensor/attrs.h"
#include "core/tensor/view.h"

namespace tenon {

// What an op's plain kernel gets. Inputs may have any strides; outputs are contiguous and never overlap an input,
// except that an element-wise op may get an output at the address of an equally laid out input.
// Calls body(user, begin, end) over parts of [0, n) of at least `grain`, on up to `threads` threads, and waits.
using ParallelFor = void (*)(int threads, int64_t n, int64_t grain, void (*body)(void*, int64_t, int64_t), void* user);
struct KernelArgs {
  std::span<const View> in;
  std::span<const View> out;
  Attrs attrs;
  int threads = 1;
  ParallelFor parallel = nullptr;  // null: only this thread
};
using PlainKernel = Status (*)(const KernelArgs&);

// One operation inside a piece. Inputs >= 0 are the piece's inputs; input ~k is output 0 of the piece's node k.
struct PieceNode {
  std::string_view op;  // registry id, "matmul/1"
  PlainKernel plain = nullptr;
  Attrs attrs;
  std::vector<int> inputs;
  std::vector<TensorType> outputs;
};

// A connected part of a plan that runs as one kernel: one operation, or a fused chain in topological order.
struct Piece {
  std::vector<PieceNode> nodes;
  std::vector<Layout> inputs;
  struct Output {
    int node = 0, index = 0;     // index > 0 only for single-node pieces with several outputs
    bool channels_last = false;  // to be written so; else row-major
  };
  std::vector<Output> outputs;
  const TensorType& output_type(size_t i) const {
    return nodes[static_cast<size_t>(outputs[i].node)].outputs[static_cast<size_t>(outputs[i].index)];
  }
};

// Limits of a fused chain: what a tile program's registers and pointer table hold.
inline constexpr size_t kMaxPieceNodes = 64;
inline constexpr size_t kMaxPieceInputs = 24;  // not counting those of concat/1

// A compiled piece. Kernels own their attributes; run() is called by one thread at a time and in stream order.
class Kernel {
 public:
  virtual ~Kernel() = default;
  // Device addresses in the piece's order of inputs and outputs. `scratch` has scratch_bytes(), 64-byte aligned.
  virtual Status run(std::span<void* const> in, std::span<void* const> out, void* scratch) = 0;
  virtual size_t scratch_bytes() const { return 0; }
  virtual std::string_view name() const = 0;  // shown by the profile: "onednn:matmul", "plain:sort"
};

// What compile() does with tensors that lie channels-last (core/tensor/channels_last.h).
enum class ChannelsLast : uint8_t {
  never,    // reads and writes row-major only
  reads,    // reads both, writes row-major
  keeps,    // reads all tensors of rank 3 and more either way, and writes such as it reads
  prefers,  // reads both, and had rather write channels-last
};

// The profile (tools/bench/profile.cpp) wraps both classes and forwards all of their functions.
class Backend {
 public:
  virtual ~Backend() = default;
  virtual std::string_view name() const = 0;  // "cpu", "reference", "cuda"

  // Memory, 64-byte aligned. Addresses are the device's; arithmetic on them is allowed, dereferencing is not.
  virtual Result<void*> allocate(size_t bytes) = 0;
  virtual void release(void* p, size_t bytes) = 0;
  virtual Status upload(void* device, const void* host, size_t bytes) = 0;
  virtual Status download(void* host, const void* device, size_t bytes) = 0;
  virtual Status copy(void* to, const void* from, size_t bytes) = 0;
  virtual Status zero(void* p, size_t bytes) = 0;
  virtual Status synchronize() = 0;

  // Whether this op may be part of a piece of several: asked of element-wise ops, folds along the last axis (sum/1, ..,
  // and take_along_axis/1 with one index a row), concat/1 of vectors for one such piece, matmul/1 and mixed_matmul/1
  // followed by add/1 of one vector to all rows, by relu/1, or by both, and folds along any axes after a cast/1 to a
  // wider type.
  virtual bool fuses(std::string_view op, DType dtype) const = 0;
  // Bit i set: compile() is much faster when input i of the piece is contiguous; the planner then inserts a copy.
  virtual uint32_t wants_contiguous(const Piece& piece) const = 0;
  // Asked of pieces of one operation that is not element-wise. What says yes gives the same bits in either layout.
  virtual ChannelsLast channels_last(const Piece& piece) = 0;
  // Whether compile() has, for an op whose inputs are f32, a kernel that is as fast when the first one, of this shape,
  // is bf16. Asked of ops that allow that.
  virtual bool reads_bf16(std::string_view op, const Shape& x) const = 0;
  virtual Result<std::unique_ptr<Kernel>> compile(const Piece& piece) = 0;

  virtual void set_threads(int n) = 0;
  virtual int threads() const = 0;
};

}  // namespace tenon
