// attention and its derivative in f32, by blocks of queries: scores of one block at a time, never T x S. The
// products are oneDNN's sgemm, which takes the strides of q, k, v as they come out of a split into heads.
//   S = scale Q K^T + mask    L = log sum e^S    P = e^(S - L)    O = P V
//   dV = P^T dO    dS = scale P (dO V^T - delta)    dQ = dS K    dK = dS^T Q
#include <dnnl.h>

#include <cmath>
#include <limits>

#include "backends/cpu/attention_blocks.h"

namespace tenon::cpu {
namespace {

// Shorter blocks would leave out more, but sgemm is slower on them.
constexpr int64_t kCausalRows = 64;

// What forward and backward share: scores of a block of queries.
class Scores : public AttentionBlocks {
 public:
  Scores(const Piece& piece, size_t mask) : AttentionBlocks(piece, mask, kCausalRows) {}

  // scores: [rows, width] row-major, width = visible_in(i). Of each row, the keys that its query sees.
  void compute(std::span<void* const> in, int64_t b, int64_t i, float* scores) const {
    const int64_t rows = rows_of(i), width = visible_in(i);
    dnnl_sgemm('N', 'T', rows, width, e.d, scale, q.at<float>(in[0], b) + i * block * q.row_stride,
               q.row_stride, k.at<float>(in[1], b), k.row_stride, 0.0f, scores, width);
    add_mask(in, b, i, scores, width);
  }
};

// Splits heads over threads, with one thread for each product: on several, oneDNN's sums would depend on
// their number.
template <class F>
void for_each_unit(Context& context, int threads, int64_t n, F&& f) {
  const ThreadLimit limit(context, std::min<int64_t>(threads, n) <= 1 ? 1 : INT_MAX);
  parallel_for(threads, n, 1, f);
}

class AttentionKernel final : public Kernel {
 public:
  AttentionKernel(Context& context, const Piece& piece)
      : context_(context),
        scores_(piece, 3),
        places_(piece),
        buffers_(context, places_.scratch_bytes(), static_cast<size_t>(scores_.block * scores_.e.s)) {}

  Status run(std::span<void* const> in, std::span<void* const> out, void* scratch) override {
    const RowOps& ops = row_ops();
    const AttentionExtents& e = scores_.e;
    float* const result = static_cast<float*>(places_.address(0, out, scratch));
    float* const lse = static_cast<float*>(places_.address(1, out, scratch));
    for_each_unit(context_, buffers_.threads(context_), e.batch * scores_.blocks(),
                  [&](int64_t begin, int64_t end) {
                    float* const p = buffers_.mine(scratch);
                    for (int64_t unit = begin; unit < end; ++unit) {
                      const int64_t b = unit / scores_.blocks(), i = unit % scores_.blocks();
                      const int64_t rows = scores_.rows_of(i), width = scores_.visible_in(i),
                                    first = b * e.t + i * scores_.block;
                      scores_.compute(in, b, i, p);
                      for (int64_t r = 0; r < rows; ++r) {
                        float* const row = p + r * width;
                        const size_t n = scores_.seen(i, r);
                        const float max = ops.max(row, n);
                        std::fill(row + n, row + width, 0.0f);
                        if (max == -std::numeric_limits<float>::infinity()) {
                          std::fill_n(row, n, 0.0f);
                          lse[first + r] = max;
                          continue;
                        }
                        const float sum = ops.exp_sum(row, n, max, row);
                        ops.scale(row, n, 1 / sum, row);
                        lse[first + r] = max + std::log(sum);
                      }
                      dnnl_sgemm('N', 'N', rows, e.dv, width, 1.0f, p, width, scores_.v.at<float>(in[2], b),
                                 scores_.v.row_stride, 0.0f, result + first * e.dv, e.dv);
                    }
                  });
    return Status::ok();
  }
  size_t scratch_bytes() const override { return buffers_.scratch_bytes(); }
  std::string_view name() const override { return "cpu:attention"; }

 private:
  Context& context_;
  Scores scores_;
  OutputPlaces places_;
  ThreadBuffers buffers_;
};

// q, k, v, L, delta, dO (, mask) -> dq, dk, dv. One thread does all blocks of a head in order: dk and dv add
// up over them.
class AttentionGradKernel final : public Kernel {
 public:
  AttentionGradKernel(Context& context, const Piece& piece)
      : context_(context),
        scores_(piece, 6),
        dout_(piece.inputs[5]),
        places_(piece),
        buffers_(context, places_.scratch_bytes(), static_cast<size_t>(2 * scores_.block * scores_.e.s)) {}

  Status run(std::span<void* const> in, std::span<void* const> out, void* scratch) override {
    for_each_unit(context_, buffers_.threads(context_), scores_.e.batch, [&](int64_t begin, int64_t end) {
      float* const p = buffers_.mine(scratch);
      for (int64_t b = begin; b < end; ++b) head(in, out, scratch, b, p, p + scores_.block * scores_.e.s);
    });
    return Status::ok();
  }
  size_t scratch_bytes() const override { return buffers_.scratch_bytes(); }
  std::string_view name() const override { return "cpu:attention_grad"; }

 private:
  void head(std::span<void* const> in, std::span<void* const> out, void* scratch, int64_t b, float* p,
            float* ds) const {
    const RowOps& ops = row_ops();
    const AttentionExtents& e = scores_.e;
    float* const dq = static_cast<float*>(places_.address(0, out, scratch)) + b * e.t * e.d;
    float* const dk = static_cast<float*>(places_.address(1, out, scratch)) + b * e.s * e.d;
    float* const dv = static_cast<float*>(places_.address(2, out, scratch)) + b * e.s * e.dv;
    const float* const lse = static_cast<const float*>(in[3]) + b * e.t;
    const float* const delta = static_cast<const float*>(in[4]) + b * e.t;
    std::fill_n(dk, e.s * e.d, 0.0f);
    std::fill_n(dv, e.s * e.dv, 0.0f);
    const float *q = scores_.q.at<float>(in[0], b), *k = scores_.k.at<float>(in[1], b),
                *v = scores_.v.at<float>(in[2], b);
    const float* dout = dout_.at<float>(in[5], b);
    for (int64_t i = 0; i < scores_.blocks(); ++i) {
      const int64_t rows = scores_.rows_of(i), width = scores_.visible_in(i), first = i * scores_.block;
      const float* const dout_rows = dout + first * dout_.row_stride;
      scores_.compute(in, b, i, p);
      for (int64_t r = 0; r < rows; ++r) {
        float* const row = p + r * width;
        const float l = lse[first + r];
        const size_t n = scores_.seen(i, r);
        std::fill(row + n, row + width, 0.0f);
        // A query that sees no key has L = -infinity and probabilities of zero.
        if (l == -std::numeric_limits<float>::infinity())
          std::fill_n(row, n, 0.0f);
        else
          ops.exp_sum(row, n, l, row);
      }
      dnnl_sgemm('T', 'N', width, e.dv, rows, 1.0f, p, width, dout_rows, dout_.row_stride, 1.0f, dv, e.dv);
      dnnl_sgemm('N', 'T', rows, width, e.dv, 1.0f, dout_rows, dout_.row_stride, v, scores_.v.row_stride,
                 0.0f, ds, width);
      for (int64_t r = 0; r < rows; ++r) {
        float* const row = ds + r * width;
        const size_t n = scores_.seen(i, r);
        ops.softmax_grad(p + r * width, row, n, delta[first + r], row);
        std::fill(row + n, row + width, 0.0f);
      }
      dnnl_sgemm('N', 'N', rows, e.d, width, scores_.scale, ds, width, k, scores_.k.row_stride, 0.0f,
                 dq + first * e.d, e.d);
      dnnl_sgemm('T', 'N', width, e.d, rows, scores_.scale, ds, width, q + first * scores_.q.row_stride,
                 scores_.q.row_stride, 1.0f, dk, e.d);
    }
  }

  Context& context_;
  Scores scores_;
  Matrices dout_;
  OutputPlaces places_;
  ThreadBuffers buffers_;
};

template <class K, bool kGrad>
std::unique_ptr<Kernel> make(Context& context, const Piece& piece) {
  if (attention_wants_contiguous<kGrad>(piece)) return nullptr;
  for (size_t i = 0; i < (kGrad ? 6u : 3u); ++i)
    if (piece.inputs[i].numel() == 0) return nullptr;
  if (piece.inputs[0].dtype == DType::bf16)
    return kGrad ? make_attention_grad_bf16(context, piece) : make_attention_bf16(context, piece);
  if (piece.inputs[0].dtype != DType::f32) return nullptr;
  const ThreadLimit limit(context);
  return std::make_unique<K>(context, piece);
}

}  // namespace

std::span<const KernelEntry> attention_kernels() {
  static constexpr KernelEntry entries[] = {
      {"attention/1", make<AttentionKernel, false>, attention_wants_contiguous<false>},
      {"attention_grad/1", make<AttentionGradKernel, true>, attention_wants_contiguous<true>},
  };
  return entries;
}

}  // namespace tenon::cpu
