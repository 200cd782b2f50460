#include "backends/cpu/kernels.h"
#include "core/tensor/channels_last.h"

namespace tenon::cpu {

const KernelEntry* find_kernel(std::string_view op) {
  for (const auto& family :
       {matmul_kernels(), copy_kernels(), join_kernels(), index_kernels(), random_kernels(), reduce_kernels(),
        grouped_matmul_kernels(), conv_kernels(), max_pool_kernels(), avg_pool_kernels(), softmax_kernels(),
        cross_entropy_kernels(), norm_kernels(), batch_norm_kernels(), attention_kernels(), cholesky_kernels()})
    for (const KernelEntry& entry : family)
      if (entry.op == op) return &entry;
  return nullptr;
}

OutputPlaces::OutputPlaces(const Piece& piece) {
  const PieceNode& node = piece.nodes[0];
  for (size_t o = 0; o < node.outputs.size(); ++o) {
    Place& place = places_.emplace_back();
    for (size_t k = 0; k < piece.outputs.size(); ++k)
      if (piece.outputs[k].index == static_cast<int>(o)) place = {true, k};
    if (place.wanted) continue;
    place.at = scratch_;
    scratch_ += align64(Layout(node.outputs[o]).size_bytes());
  }
}

uint32_t all_contiguous(const Piece& piece) {
  uint32_t mask = 0;
  for (size_t i = 0; i < piece.inputs.size() && i < 32; ++i)
    if (!piece.inputs[i].contiguous()) mask |= 1u << i;
  return mask;
}

uint32_t all_scattered(const Piece& piece) {
  uint32_t mask = all_contiguous(piece);
  for (size_t i = 0; i < piece.inputs.size() && i < 32; ++i)
    if (is_channels_last(piece.inputs[i])) mask &= ~(1u << i);
  return mask;
}

bool all_channels_last(const Piece& piece) {
  for (const Layout& l : piece.inputs)
    if (has_channels_last(l.shape) && !is_channels_last(l)) return false;
  for (size_t k = 0; k < piece.outputs.size(); ++k)
    if (has_channels_last(piece.output_type(k).shape) && !piece.outputs[k].channels_last) return false;
  return is_channels_last(piece.inputs[0]);
}

}  // namespace tenon::cpu
