// Mixture-of-experts products: one sgemm per expert on its run of rows, nothing padded.
#include <dnnl.h>

#include <cstring>

#include "backends/cpu/dnnl_call.h"

namespace tenon::cpu {
namespace {

// Offsets as data: from 0 to the number of rows, never decreasing.
Status check_offsets(std::string_view op, const int64_t* offsets, int64_t experts, int64_t rows) {
  bool fine = offsets[0] == 0 && offsets[experts] == rows;
  for (int64_t e = 0; e < experts; ++e) fine = fine && offsets[e] <= offsets[e + 1];
  if (fine) return Status::ok();
  return invalid(std::string(op) + ": the offsets must rise from 0 to the number of rows, " +
                 std::to_string(rows));
}

// x: [R, I]  w: [E, I, O] (transposed: [E, O, I])  offsets  ->  [R, O]
class GroupedMatmul final : public Kernel {
 public:
  GroupedMatmul(Context& context, const Piece& piece)
      : context_(context),
        rows_(piece.inputs[0].shape[0]),
        inner_(piece.inputs[0].shape[1]),
        columns_(piece.output_type(0).shape[1]),
        experts_(piece.inputs[1].shape[0]),
        transposed_(piece.nodes[0].attrs.flag("transpose_b")) {}
  Status run(std::span<void* const> in, std::span<void* const> out, void*) override {
    const float *x = static_cast<const float*>(in[0]), *w = static_cast<const float*>(in[1]);
    const int64_t* offsets = static_cast<const int64_t*>(in[2]);
    float* y = static_cast<float*>(out[0]);
    TN_RETURN_IF_ERROR(check_offsets("grouped_matmul", offsets, experts_, rows_));
    const ThreadLimit limit(context_);
    for (int64_t e = 0; e < experts_; ++e) {
      const int64_t first = offsets[e], m = offsets[e + 1] - first;
      if (m > 0)
        dnnl_sgemm('N', transposed_ ? 'T' : 'N', m, columns_, inner_, 1.0f, x + first * inner_, inner_,
                   w + e * inner_ * columns_, transposed_ ? inner_ : columns_, 0.0f, y + first * columns_,
                   columns_);
    }
    return Status::ok();
  }
  std::string_view name() const override { return "onednn:grouped_matmul"; }

 private:
  Context& context_;
  int64_t rows_, inner_, columns_, experts_;
  bool transposed_;
};

// x: [R, I]  y: [R, O]  offsets  ->  [E, I, O]: x^T y of each expert's rows
class GroupedMatmulWeight final : public Kernel {
 public:
  GroupedMatmulWeight(Context& context, const Piece& piece)
      : context_(context),
        rows_(piece.inputs[0].shape[0]),
        inner_(piece.inputs[0].shape[1]),
        columns_(piece.inputs[1].shape[1]),
        experts_(piece.output_type(0).shape[0]) {}
  Status run(std::span<void* const> in, std::span<void* const> out, void*) override {
    const float *x = static_cast<const float*>(in[0]), *y = static_cast<const float*>(in[1]);
    const int64_t* offsets = static_cast<const int64_t*>(in[2]);
    TN_RETURN_IF_ERROR(check_offsets("grouped_matmul_weight", offsets, experts_, rows_));
    const ThreadLimit limit(context_);
    for (int64_t e = 0; e < experts_; ++e) {
      float* z = static_cast<float*>(out[0]) + e * inner_ * columns_;
      const int64_t first = offsets[e], m = offsets[e + 1] - first;
      if (m > 0)
        dnnl_sgemm('T', 'N', inner_, columns_, m, 1.0f, x + first * inner_, inner_, y + first * columns_,
                   columns_, 0.0f, z, columns_);
      else
        std::memset(z, 0, static_cast<size_t>(inner_ * columns_) * sizeof(float));
    }
    return Status::ok();
  }
  std::string_view name() const override { return "onednn:grouped_matmul_weight"; }

 private:
  Context& context_;
  int64_t rows_, inner_, columns_, experts_;
};

template <class K>
std::unique_ptr<Kernel> make(Context& context, const Piece& piece) {
  if (piece.inputs[0].dtype != DType::f32 || !inputs_contiguous(piece)) return nullptr;
  if (piece.inputs[0].numel() == 0 || piece.inputs[1].numel() == 0) return nullptr;
  return std::make_unique<K>(context, piece);
}

}  // namespace

std::span<const KernelEntry> grouped_matmul_kernels() {
  static constexpr KernelEntry entries[] = {
      {"grouped_matmul/1", make<GroupedMatmul>, all_contiguous},
      {"grouped_matmul_weight/1", make<GroupedMatmulWeight>, all_contiguous},
  };
  return entries;
}

}  // namespace tenon::cpu
