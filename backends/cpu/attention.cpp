// attention and its derivative by blocks of queries: scores of one block at a time, never T x S. The products
// are oneDNN's sgemm, which takes the strides of q, k, v as they come out of a split into heads.
//   S = scale Q K^T + mask    L = log sum e^S    P = e^(S - L)    O = P V
//   dV = P^T dO    dS = scale P (dO V^T - delta)    dQ = dS K    dK = dS^T Q
#include <dnnl.h>

#include <cmath>
#include <limits>

#include "backends/cpu/dnnl_call.h"
#include "backends/cpu/rows.h"
#include "backends/cpu/strided.h"

namespace tenon::cpu {
namespace {

// A batch of matrices with unit column stride: where each begins and how far apart its rows are.
struct Matrices {
  std::vector<int64_t> offsets;
  int64_t row_stride = 0;

  explicit Matrices(const Layout& l) : row_stride(l.strides[l.shape.rank() - 2]) {
    const int batch_rank = l.shape.rank() - 2;
    Shape batch;
    for (int i = 0; i < batch_rank; ++i) batch.push_back(l.shape[i]);
    for (int64_t b = 0; b < batch.numel(); ++b) {
      int64_t rest = b, at = 0;
      for (int i = batch_rank - 1; i >= 0; --i) {
        at += rest % batch[i] * l.strides[i];
        rest /= batch[i];
      }
      offsets.push_back(at);
    }
    if (l.shape[batch_rank] == 1) row_stride = l.shape[batch_rank + 1];
  }
  const float* at(const void* base, int64_t b) const {
    return static_cast<const float*>(base) + offsets[static_cast<size_t>(b)];
  }
};

bool readable(const Layout& l) {
  const int r = l.shape.rank();
  const bool columns = l.strides[r - 1] == 1 || l.shape[r - 1] == 1;
  return columns && (l.shape[r - 2] == 1 || l.strides[r - 2] >= l.shape[r - 1]);
}

struct Extents {
  int64_t batch = 1, t, s, d, dv;
  Extents(const Shape& q, const Shape& v) {
    const int r = q.rank();
    for (int i = 0; i + 2 < r; ++i) batch *= q[i];
    t = q[r - 2], s = v[r - 2], d = q[r - 1], dv = v[r - 1];
  }
};

// What forward and backward share: scores of a block of queries.
class Scores {
 public:
  Scores(const Piece& piece, size_t mask)
      : e(piece.inputs[0].shape, piece.inputs[2].shape),
        q(piece.inputs[0]),
        k(piece.inputs[1]),
        v(piece.inputs[2]),
        causal_(piece.nodes[0].attrs.flag("causal")),
        mask_index_(mask) {
    const double given = piece.nodes[0].attrs.f("scale");
    scale = static_cast<float>(given != 0 ? given : 1 / std::sqrt(static_cast<double>(e.d)));
    // A block's scores should stay in the second-level cache. Where later keys are hidden, shorter blocks
    // leave out more of what no query of theirs sees, but their products run at a lower rate.
    block = std::clamp<int64_t>(65536 / std::max<int64_t>(e.s, 1), 16, causal_ ? 64 : 128);
    if (piece.inputs.size() <= mask) return;
    Shape shape = piece.inputs[0].shape;
    shape[shape.rank() - 1] = e.s;
    mask_strides_ = broadcast_strides(piece.inputs[mask].shape, piece.inputs[mask].strides, shape);
    mask_shape_ = shape;
    has_mask_ = true;
  }

  int64_t blocks() const { return (e.t + block - 1) / block; }
  int64_t rows_of(int64_t i) const { return std::min(block, e.t - i * block); }
  // Keys that query t may see, and that any query of block i may see.
  int64_t visible(int64_t t) const { return causal_ ? t + 1 + e.s - e.t : e.s; }
  int64_t visible_in(int64_t i) const { return visible(i * block + rows_of(i) - 1); }

  // Keys that query r of block i sees, of visible_in(i).
  size_t seen(int64_t i, int64_t r) const {
    return static_cast<size_t>(std::clamp<int64_t>(visible(i * block + r), 0, visible_in(i)));
  }
  // scores: [rows, width] row-major, width = visible_in(i). Of each row, the keys that its query sees.
  void compute(std::span<void* const> in, int64_t b, int64_t i, float* scores) const {
    const int64_t rows = rows_of(i), width = visible_in(i);
    dnnl_sgemm('N', 'T', rows, width, e.d, scale, q.at(in[0], b) + i * block * q.row_stride, q.row_stride,
               k.at(in[1], b), k.row_stride, 0.0f, scores, width);
    if (!has_mask_) return;
    for (int64_t r = 0; r < rows; ++r)
      add_mask(static_cast<const float*>(in[mask_index_]), b * e.t + i * block + r, seen(i, r),
               scores + r * width);
  }

  Extents e;
  Matrices q, k, v;
  float scale = 1;
  int64_t block = 1;

 private:
  void add_mask(const float* mask, int64_t row, size_t n, float* scores) const {
    int64_t at = 0;
    for (int i = mask_shape_.rank() - 2; i >= 0; --i) {
      at += row % mask_shape_[i] * mask_strides_[i];
      row /= mask_shape_[i];
    }
    for (size_t j = 0; j < n; ++j) scores[j] += mask[at + static_cast<int64_t>(j) * mask_strides_.back()];
  }

  bool causal_, has_mask_ = false;
  size_t mask_index_;
  Strides mask_strides_;
  Shape mask_shape_;
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
    const Extents& e = scores_.e;
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
                      dnnl_sgemm('N', 'N', rows, e.dv, width, 1.0f, p, width, scores_.v.at(in[2], b),
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
    const Extents& e = scores_.e;
    float* const dq = static_cast<float*>(places_.address(0, out, scratch)) + b * e.t * e.d;
    float* const dk = static_cast<float*>(places_.address(1, out, scratch)) + b * e.s * e.d;
    float* const dv = static_cast<float*>(places_.address(2, out, scratch)) + b * e.s * e.dv;
    const float* const lse = static_cast<const float*>(in[3]) + b * e.t;
    const float* const delta = static_cast<const float*>(in[4]) + b * e.t;
    std::fill_n(dk, e.s * e.d, 0.0f);
    std::fill_n(dv, e.s * e.dv, 0.0f);
    const float *q = scores_.q.at(in[0], b), *k = scores_.k.at(in[1], b), *v = scores_.v.at(in[2], b);
    const float* dout = dout_.at(in[5], b);
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

// q, k, v and the cotangent need unit column strides, L and delta none at all; the mask is read as it lies.
template <bool kGrad>
uint32_t attention_wants_contiguous(const Piece& piece) {
  uint32_t mask = 0;
  for (const size_t i : {0u, 1u, 2u, 5u})
    if ((i < 3 || kGrad) && !readable(piece.inputs[i])) mask |= 1u << i;
  for (const size_t i : {3u, 4u})
    if (kGrad && !piece.inputs[i].contiguous()) mask |= 1u << i;
  return mask;
}

template <class K, bool kGrad>
std::unique_ptr<Kernel> make(Context& context, const Piece& piece) {
  if (piece.inputs[0].dtype != DType::f32 || attention_wants_contiguous<kGrad>(piece)) return nullptr;
  for (size_t i = 0; i < (kGrad ? 6u : 3u); ++i)
    if (piece.inputs[i].numel() == 0) return nullptr;
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
