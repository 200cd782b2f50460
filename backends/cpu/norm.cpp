// layer_norm, rms_norm and their derivatives over a contiguous last axis.
#include <cmath>

#include "backends/cpu/rows.h"

namespace tenon::cpu {
namespace {

// Mean (0 for RMS norm) of a row and 1 / sqrt(mean square deviation from it + eps).
struct RowStats {
  float mean = 0, scale = 0;
  RowStats(const float* x, size_t n, bool centred, float eps) {
    const float count = static_cast<float>(n);
    if (centred) mean = row_ops().sum(x, n) / count;
    scale = 1 / std::sqrt(row_ops().sum_square_diff(x, n, mean) / count + eps);
  }
};

class RowNorm final : public Kernel {
 public:
  RowNorm(Context& context, const Piece& piece, bool centred)
      : context_(context),
        rows_(piece.inputs[0].dtype, piece.inputs[0].shape),
        centred_(centred),
        eps_(static_cast<float>(piece.nodes[0].attrs.f("eps"))),
        buffers_(context, 2 * align64(rows_.n() * sizeof(float)), 2 * rows_.n()) {}

  Status run(std::span<void* const> in, std::span<void* const> out, void* scratch) override {
    const RowOps& ops = row_ops();
    const size_t n = rows_.n();
    float* const params = static_cast<float*>(scratch);
    const float* gamma = rows_.read(in[1], 0, params);
    float* const second = params + align64(n * sizeof(float)) / sizeof(float);
    const float* beta = second;
    if (centred_)
      beta = rows_.read(in[2], 0, second);
    else
      std::fill_n(second, n, 0.0f);
    parallel_for(buffers_.threads(context_), rows_.count, rows_.grain(), [&](int64_t begin, int64_t end) {
      float* const buffer = buffers_.mine(scratch);
      for (int64_t r = begin; r < end; ++r) {
        const float* x = rows_.read(in[0], r, buffer);
        float* y = rows_.target(out[0], r, buffer + n);
        const RowStats s(x, n, centred_, eps_);
        ops.normalize(x, n, s.mean, s.scale, gamma, beta, y);
        rows_.write(out[0], r, y);
      }
    });
    return Status::ok();
  }
  size_t scratch_bytes() const override { return buffers_.scratch_bytes(); }
  std::string_view name() const override { return centred_ ? "cpu:layer_norm" : "cpu:rms_norm"; }

 private:
  Context& context_;
  Rows rows_;
  bool centred_;
  float eps_;
  ThreadBuffers buffers_;
};

// x, gamma, dy -> dx, dgamma (, dbeta). The sums over rows are taken over fixed blocks of rows, then over the
// blocks, so that they do not depend on the number of threads.
class RowNormGrad final : public Kernel {
 public:
  RowNormGrad(Context& context, const Piece& piece, bool centred)
      : context_(context),
        rows_(piece.inputs[0].dtype, piece.inputs[0].shape),
        centred_(centred),
        eps_(static_cast<float>(piece.nodes[0].attrs.f("eps"))),
        places_(piece) {
    const int64_t per_block = std::max<int64_t>({rows_.grain(), 16, (rows_.count + 63) / 64});
    rows_per_block_ = per_block;
    blocks_ = std::max<int64_t>(1, (rows_.count + per_block - 1) / per_block);
    stride_ = align64(rows_.n() * sizeof(float)) / sizeof(float);
    first_ = align64(places_.scratch_bytes()) / sizeof(float);
    const size_t sums = (2 * static_cast<size_t>(blocks_) + 1) * stride_;
    buffers_ = ThreadBuffers(context, (first_ + sums) * sizeof(float), 3 * rows_.n());
  }

  Status run(std::span<void* const> in, std::span<void* const> out, void* scratch) override {
    const RowOps& ops = row_ops();
    const size_t n = rows_.n();
    void* const dx_base = places_.address(0, out, scratch);
    float* const sums = static_cast<float*>(scratch) + first_;
    const float* gamma = rows_.read(in[1], 0, sums + 2 * static_cast<size_t>(blocks_) * stride_);
    parallel_for(buffers_.threads(context_), blocks_, 1, [&](int64_t begin, int64_t end) {
      float* const buffer = buffers_.mine(scratch);
      for (int64_t b = begin; b < end; ++b) {
        float* const dgamma = sums + 2 * static_cast<size_t>(b) * stride_;
        float* const dbeta = dgamma + stride_;
        std::fill_n(dgamma, n, 0.0f);
        std::fill_n(dbeta, n, 0.0f);
        for (int64_t r = b * rows_per_block_; r < std::min(rows_.count, (b + 1) * rows_per_block_); ++r) {
          const float* x = rows_.read(in[0], r, buffer);
          const float* dy = rows_.read(in[2], r, buffer + n);
          float* dx = rows_.target(dx_base, r, buffer + 2 * n);
          const RowStats s(x, n, centred_, eps_);
          ops.normalize_grad(x, gamma, dy, n, s.mean, s.scale, centred_, dgamma, dbeta, dx);
          rows_.write(dx_base, r, dx);
        }
      }
    });
    for (int64_t b = 1; b < blocks_; ++b) {
      ops.add_to(sums + 2 * static_cast<size_t>(b) * stride_, n, sums);
      ops.add_to(sums + (2 * static_cast<size_t>(b) + 1) * stride_, n, sums + stride_);
    }
    for (size_t o = 1; o < (centred_ ? 3u : 2u); ++o)
      for (size_t i = 0; i < n; ++i)
        write_element(rows_.dtype, places_.address(o, out, scratch), static_cast<int64_t>(i),
                      sums[(o - 1) * stride_ + i]);
    return Status::ok();
  }
  size_t scratch_bytes() const override { return buffers_.scratch_bytes(); }
  std::string_view name() const override { return centred_ ? "cpu:layer_norm_grad" : "cpu:rms_norm_grad"; }

 private:
  Context& context_;
  Rows rows_;
  bool centred_;
  float eps_;
  OutputPlaces places_;
  int64_t rows_per_block_ = 1, blocks_ = 1;
  size_t stride_ = 0, first_ = 0;  // in floats
  ThreadBuffers buffers_;
};

template <class K, bool kCentred>
std::unique_ptr<Kernel> make(Context& context, const Piece& piece) {
  if (!is_row_type(piece.inputs[0].dtype) || !inputs_contiguous(piece) || piece.inputs[0].numel() == 0)
    return nullptr;
  return std::make_unique<K>(context, piece, kCentred);
}

}  // namespace

std::span<const KernelEntry> norm_kernels() {
  static constexpr KernelEntry entries[] = {
      {"layer_norm/1", make<RowNorm, true>, all_contiguous},
      {"rms_norm/1", make<RowNorm, false>, all_contiguous},
      {"layer_norm_grad/1", make<RowNormGrad, true>, all_contiguous},
      {"rms_norm_grad/1", make<RowNormGrad, false>, all_contiguous},
  };
  return entries;
}

}  // namespace tenon::cpu
