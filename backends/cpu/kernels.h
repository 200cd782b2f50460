// Fast kernels register themselves by op id, one list per file; what none takes runs on the op's plain
// kernel.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backends/backend.h"

namespace tenon::cpu {

struct DnnlState;
// State shared by the kernels of one backend.
struct Context {
  int threads = 1;
  bool native = true;               // tile programs may become machine code
  std::shared_ptr<DnnlState> dnnl;  // made by the first kernel that needs it
};

// Compiles a single-node piece whose inputs are the node's in order, or returns null to decline it.
using KernelFactory = std::unique_ptr<Kernel> (*)(Context&, const Piece&);

struct KernelEntry {
  std::string_view op;
  KernelFactory make = nullptr;
  // Inputs that make() takes only when contiguous; null: any layout will do.
  uint32_t (*wants_contiguous)(const Piece&) = nullptr;
  ChannelsLast (*channels_last)(Context&, const Piece&) = nullptr;  // null: never
  bool (*reads_bf16)(const Shape&) = nullptr;                       // Backend::reads_bf16; null: no
};

std::span<const KernelEntry> matmul_kernels();
std::span<const KernelEntry> grouped_matmul_kernels();
std::span<const KernelEntry> conv_kernels();
std::span<const KernelEntry> max_pool_kernels();
std::span<const KernelEntry> avg_pool_kernels();
std::span<const KernelEntry> copy_kernels();
std::span<const KernelEntry> join_kernels();
std::span<const KernelEntry> index_kernels();
std::span<const KernelEntry> random_kernels();
std::span<const KernelEntry> reduce_kernels();
std::span<const KernelEntry> softmax_kernels();
std::span<const KernelEntry> cross_entropy_kernels();
std::span<const KernelEntry> norm_kernels();
std::span<const KernelEntry> batch_norm_kernels();
std::span<const KernelEntry> attention_kernels();
std::span<const KernelEntry> cholesky_kernels();

// Every input that is not contiguous.
uint32_t all_contiguous(const Piece& piece);
// Every input that is neither contiguous nor channels-last.
uint32_t all_scattered(const Piece& piece);
// Whether the first input lies channels-last, and so do all inputs and outputs that can.
bool all_channels_last(const Piece& piece);
inline constexpr size_t align64(size_t bytes) { return (bytes + 63) & ~size_t{63}; }
inline bool inputs_contiguous(const Piece& piece) { return all_contiguous(piece) == 0; }

// Null when no fast kernel exists for the op.
const KernelEntry* find_kernel(std::string_view op);

// matmul of f64; null to decline.
std::unique_ptr<Kernel> make_matmul_f64(Context& context, const Piece& piece);
uint32_t matmul_f64_wants_contiguous(const Piece& piece);
// matmul or mixed_matmul, and what follows it in its piece: add of a vector to each row, relu, or both,
// perhaps after reshapes that keep rows; null to decline.
bool is_product(const Piece& piece);
std::unique_ptr<Kernel> make_product(Context& context, const Piece& piece);
uint32_t product_wants_contiguous(const Piece& piece);

// cast of bf16 to f32, and a fold of it along any axes; null to decline.
std::unique_ptr<Kernel> make_widened_fold(Context& context, const Piece& piece);
uint32_t widened_fold_wants_contiguous(const Piece& piece);

// The op's plain kernel, for a piece of one node.
std::unique_ptr<Kernel> make_plain_kernel(const Context& context, const Piece& piece);

// The kernels of a piece's nodes one after the other, with inner results in scratch memory.
Result<std::unique_ptr<Kernel>> make_sequence_kernel(Backend& backend, const Piece& piece);

// Addresses of a node's outputs at run time. One that the piece does not hand out is written to scratch
// memory.
class OutputPlaces {
 public:
  OutputPlaces() = default;
  explicit OutputPlaces(const Piece& piece);
  // Bytes at the beginning of the scratch memory that are taken.
  size_t scratch_bytes() const { return scratch_; }
  void* address(size_t output, std::span<void* const> out, void* scratch) const {
    const Place& p = places_[output];
    return p.wanted ? out[p.at] : static_cast<std::byte*>(scratch) + p.at;
  }

 private:
  struct Place {
    bool wanted = false;
    size_t at = 0;  // index of the piece's output, or offset in scratch
  };
  std::vector<Place> places_;
  size_t scratch_ = 0;
};

// A copy of an operation's attributes that outlives the graph it came from.
class OwnedAttrs {
 public:
  explicit OwnedAttrs(const Attrs& a) : spec_(a.spec()), words_(a.words().begin(), a.words().end()) {}
  Attrs get() const { return {spec_, words_}; }

 private:
  std::span<const AttrSpec> spec_;  // part of the op's definition: static
  std::vector<int64_t> words_;
};

}  // namespace tenon::cpu
