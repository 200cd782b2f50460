// Memory, copies and the choice of a kernel for each piece.
#include <cstring>

#include "backends/cpu/cpu.h"
#include "backends/cpu/dnnl_call.h"
#include "backends/cpu/kernels.h"
#include "backends/cpu/memory.h"
#include "backends/cpu/parallel.h"
#include "backends/cpu/tile_program.h"

namespace tenon {
namespace cpu {
namespace {

DType first_dtype(const PieceNode& node, const Piece& piece) {
  if (node.inputs.empty()) return node.outputs[0].dtype;
  return node.inputs[0] >= 0 ? piece.inputs[static_cast<size_t>(node.inputs[0])].dtype
                             : node.outputs[0].dtype;
}

// Input i of the node is input i of the piece; not so when one value is several operands.
bool inputs_in_order(const PieceNode& node) {
  for (size_t i = 0; i < node.inputs.size(); ++i)
    if (node.inputs[i] != static_cast<int>(i)) return false;
  return true;
}

class CpuBackend final : public Backend {
 public:
  explicit CpuBackend(bool native) {
    context_.threads = omp_get_max_threads();
    context_.native = native;
  }
  std::string_view name() const override { return "cpu"; }

  Result<void*> allocate(size_t bytes) override { return pool_.allocate(bytes); }
  void release(void* p, size_t bytes) override { pool_.release(p, bytes); }
  Status upload(void* device, const void* host, size_t bytes) override { return copy(device, host, bytes); }
  Status download(void* host, const void* device, size_t bytes) override { return copy(host, device, bytes); }
  Status copy(void* to, const void* from, size_t bytes) override {
    if (bytes) std::memcpy(to, from, bytes);
    return Status::ok();
  }
  Status zero(void* p, size_t bytes) override {
    if (bytes) std::memset(p, 0, bytes);
    return Status::ok();
  }
  Status synchronize() override { return Status::ok(); }

  bool fuses(std::string_view op, DType dtype) const override {
    if (op == "matmul/1") return dtype == DType::f32;
    if (op == "mixed_matmul/1") return dtype != DType::f64;
    return is_tile_op(op, dtype) || is_row_op(op, dtype) || op == "concat/1";
  }

  uint32_t wants_contiguous(const Piece& piece) const override {
    if (const KernelEntry* entry = piece.nodes.size() == 1 && inputs_in_order(piece.nodes[0])
                                       ? find_kernel(piece.nodes[0].op)
                                       : nullptr)
      return entry->wants_contiguous ? entry->wants_contiguous(piece) : 0;
    if (is_product(piece)) return product_wants_contiguous(piece);
    if (const uint32_t mask = widened_fold_wants_contiguous(piece)) return mask;
    return is_tile_op(piece.nodes[0].op, first_dtype(piece.nodes[0], piece)) ? tile_wants_contiguous(piece)
                                                                             : 0;
  }

  ChannelsLast channels_last(const Piece& piece) override {
    const KernelEntry* entry = inputs_in_order(piece.nodes[0]) ? find_kernel(piece.nodes[0].op) : nullptr;
    return entry && entry->channels_last ? entry->channels_last(context_, piece) : ChannelsLast::never;
  }

  bool reads_bf16(std::string_view op, const Shape& x) const override {
    const KernelEntry* entry = find_kernel(op);
    return entry && entry->reads_bf16 && entry->reads_bf16(x);
  }

  Result<std::unique_ptr<Kernel>> compile(const Piece& piece) override {
    if (piece.nodes.empty()) return internal_error("cpu: a piece without operations can't be compiled");
    // A primitive is made for the threads of this moment: they decide its order of summation.
    const ThreadLimit limit(context_);
    if (piece.nodes.size() == 1 && inputs_in_order(piece.nodes[0]))
      if (const KernelEntry* entry = find_kernel(piece.nodes[0].op))
        if (std::unique_ptr<Kernel> kernel = entry->make(context_, piece)) return kernel;
    if (piece.nodes.size() > 1 && is_product(piece))
      if (std::unique_ptr<Kernel> kernel = make_product(context_, piece)) return kernel;
    if (std::unique_ptr<Kernel> kernel = make_widened_fold(context_, piece)) return kernel;
    if (std::unique_ptr<Kernel> kernel = make_tile_kernel(context_, piece)) return kernel;
    if (piece.nodes.size() > 1 || !inputs_in_order(piece.nodes[0])) return make_sequence_kernel(*this, piece);
    if (!piece.nodes[0].plain)
      return unsupported("cpu: operation '" + std::string(piece.nodes[0].op) + "' has no kernel");
    return make_plain_kernel(context_, piece);
  }

  void set_threads(int n) override { context_.threads = n > 0 ? n : 1; }
  int threads() const override { return context_.threads; }

 private:
  MemoryPool pool_;
  Context context_;
};

}  // namespace
}  // namespace cpu

std::unique_ptr<Backend> make_cpu_backend(bool native) { return std::make_unique<cpu::CpuBackend>(native); }

}  // namespace tenon
