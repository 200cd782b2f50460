#include "backends/cpu/kernels.h"

namespace tenon::cpu {

const KernelEntry* find_kernel(std::string_view op) {
  for (const auto& family : {matmul_kernels()})
    for (const KernelEntry& entry : family)
      if (entry.op == op) return &entry;
  return nullptr;
}

uint32_t all_contiguous(const Piece& piece) {
  uint32_t mask = 0;
  for (size_t i = 0; i < piece.inputs.size() && i < 32; ++i)
    if (!piece.inputs[i].contiguous()) mask |= 1u << i;
  return mask;
}

}  // namespace tenon::cpu
