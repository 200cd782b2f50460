// What the kernels of attention share: where matrices lie, and how queries are cut into blocks whose scores
// are computed at a time.
#pragma once

#include <cmath>

#include "backends/cpu/dnnl_call.h"
#include "backends/cpu/rows.h"
#include "backends/cpu/strided.h"

namespace tenon::cpu {

// A batch of matrices with unit column stride: where each begins and how far apart its rows are, in elements.
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
  template <class T>
  const T* at(const void* base, int64_t b) const {
    return static_cast<const T*>(base) + offsets[static_cast<size_t>(b)];
  }
};

struct AttentionExtents {
  int64_t batch = 1, t, s, d, dv;
  AttentionExtents(const Shape& q, const Shape& v) {
    const int r = q.rank();
    for (int i = 0; i + 2 < r; ++i) batch *= q[i];
    t = q[r - 2], s = v[r - 2], d = q[r - 1], dv = v[r - 1];
  }
};

// The operands and their blocks. `mask`: the number of the mask among the inputs, where there is one.
class AttentionBlocks {
 public:
  // Blocks of causal attention have at most `causal_rows` queries.
  AttentionBlocks(const Piece& piece, size_t mask, int64_t causal_rows)
      : e(piece.inputs[0].shape, piece.inputs[2].shape),
        q(piece.inputs[0]),
        k(piece.inputs[1]),
        v(piece.inputs[2]),
        dtype_(piece.inputs[0].dtype),
        causal_(piece.nodes[0].attrs.flag("causal")),
        mask_index_(mask) {
    const double given = piece.nodes[0].attrs.f("scale");
    scale = static_cast<float>(given != 0 ? given : 1 / std::sqrt(static_cast<double>(e.d)));
    // A block's scores should stay in the second-level cache. Where later keys are hidden, shorter blocks
    // leave out more of what no query of theirs sees, but their products run at a lower rate.
    block = std::clamp<int64_t>(65536 / std::max<int64_t>(e.s, 1), 16, causal_ ? causal_rows : 128);
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
  // Adds the mask, where there is one, to the scores of block i of batch b: rows `width` apart, of each the
  // keys that its query sees.
  void add_mask(std::span<void* const> in, int64_t b, int64_t i, float* scores, int64_t width) const {
    if (!has_mask_) return;
    for (int64_t r = 0; r < rows_of(i); ++r) {
      int64_t at = 0, row = b * e.t + i * block + r;
      for (int d = mask_shape_.rank() - 2; d >= 0; --d) {
        at += row % mask_shape_[d] * mask_strides_[d];
        row /= mask_shape_[d];
      }
      const size_t n = seen(i, r);
      for (size_t j = 0; j < n; ++j)
        scores[r * width + static_cast<int64_t>(j)] +=
            read_element(dtype_, in[mask_index_], at + static_cast<int64_t>(j) * mask_strides_.back());
    }
  }

  AttentionExtents e;
  Matrices q, k, v;
  float scale = 1;
  int64_t block = 1;

 private:
  DType dtype_;
  bool causal_, has_mask_ = false;
  size_t mask_index_;
  Strides mask_strides_;
  Shape mask_shape_;
};

// q, k, v and the cotangent need unit column strides, L and delta none at all; the mask is read as it lies.
template <bool kGrad>
uint32_t attention_wants_contiguous(const Piece& piece) {
  const auto readable = [](const Layout& l) {
    const int r = l.shape.rank();
    const bool columns = l.strides[r - 1] == 1 || l.shape[r - 1] == 1;
    return columns && (l.shape[r - 2] == 1 || l.strides[r - 2] >= l.shape[r - 1]);
  };
  uint32_t mask = 0;
  for (const size_t i : {0u, 1u, 2u, 5u})
    if ((i < 3 || kGrad) && !readable(piece.inputs[i])) mask |= 1u << i;
  for (const size_t i : {3u, 4u})
    if (kGrad && !piece.inputs[i].contiguous()) mask |= 1u << i;
  return mask;
}

// Of bf16; the piece is one that attention_wants_contiguous leaves as it is, and has no empty input.
std::unique_ptr<Kernel> make_attention_bf16(Context& context, const Piece& piece);
std::unique_ptr<Kernel> make_attention_grad_bf16(Context& context, const Piece& piece);

}  // namespace tenon::cpu
