// Mixture-of-experts products: one sgemm per expert and thread on its run of rows, nothing padded.
#include <dnnl.h>

#include <algorithm>
#include <cstring>

#include "backends/cpu/dnnl_call.h"
#include "backends/cpu/parallel.h"

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

// A product of fewer multiplications is done before another thread could have helped much.
constexpr int64_t kThreadWork = int64_t{1} << 18;

// x: [R, I]  w: [E, I, O] (transposed: [E, O, I])  offsets  ->  [R, O]
// Each thread takes an equal run of rows, whatever experts they belong to.
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
    const ThreadLimit alone(context_, 1);
    const int64_t grain = std::max<int64_t>(1, kThreadWork / (inner_ * columns_));
    parallel_for(context_.threads, rows_, grain, [&](int64_t begin, int64_t end) {
      for (int64_t e = 0; e < experts_; ++e) {
        const int64_t first = std::max(offsets[e], begin), m = std::min(offsets[e + 1], end) - first;
        if (m <= 0) continue;
        dnnl_sgemm('N', transposed_ ? 'T' : 'N', m, columns_, inner_, 1.0f, x + first * inner_, inner_,
                   w + e * inner_ * columns_, transposed_ ? inner_ : columns_, 0.0f, y + first * columns_,
                   columns_);
      }
    });
    return Status::ok();
  }
  std::string_view name() const override { return "onednn:grouped_matmul"; }

 private:
  Context& context_;
  int64_t rows_, inner_, columns_, experts_;
  bool transposed_;
};

// x: [R, I]  y: [R, O]  offsets  ->  [E, I, O]: x^T y of each expert's rows
// Each thread takes rows of the result, of all experts behind one another, of about equal work.
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
    const ThreadLimit alone(context_, 1);
    // Work is counted in multiplications per column: an expert's rows for each row of its result, and one
    // more for writing it.
    const auto work = [&](int64_t e) { return (offsets[e + 1] - offsets[e] + 1) * inner_; };
    const int64_t total = (rows_ + experts_) * inner_;
    parallel_for(context_.threads, total, std::max<int64_t>(1, kThreadWork / columns_),
                 [&](int64_t begin, int64_t end) {
                   int64_t done = 0;
                   for (int64_t e = 0; e < experts_; done += work(e++)) {
                     const int64_t first = offsets[e], m = offsets[e + 1] - first;
                     // Rows of the result whose work begins in [begin, end).
                     const auto row_at = [&](int64_t at) {
                       return std::clamp<int64_t>((at - done + m) / (m + 1), 0, inner_);
                     };
                     const int64_t i = row_at(begin), n = row_at(end) - i;
                     float* z = static_cast<float*>(out[0]) + (e * inner_ + i) * columns_;
                     if (n <= 0) continue;
                     if (m > 0)
                       dnnl_sgemm('T', 'N', n, columns_, m, 1.0f, x + first * inner_ + i, inner_,
                                  y + first * columns_, columns_, 0.0f, z, columns_);
                     else
                       std::memset(z, 0, static_cast<size_t>(n * columns_) * sizeof(float));
                   }
                 });
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
