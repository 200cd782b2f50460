// attention and its derivative in bf16, by blocks of queries as in attention.cpp, whose formulas these are.
// Scores, sums and statistics are f32; what products read is bf16: Q, K, V and dO as they are, P and dS
// rounded. A head's keys and values are put into the order that products read once, for all its blocks.
#include <limits>

#include "backends/cpu/attention_blocks.h"
#include "backends/cpu/pair_gemm.h"

namespace tenon::cpu {
namespace {

// The products here lose little by short blocks, which leave out more of what is hidden.
constexpr int64_t kCausalRows = 32;
constexpr float kHidden = -std::numeric_limits<float>::infinity();

int64_t pairs(int64_t n) { return (n + 1) / 2; }

// Parts of a thread's buffer, in floats or words, each at the start of a cache line.
class Parts {
 public:
  size_t add(int64_t n) {
    const size_t at = size_;
    size_ += static_cast<size_t>(n + 15) / 16 * 16;
    return at;
  }
  size_t size() const { return size_; }

 private:
  size_t size_ = 0;
};
uint32_t* words(float* buffer, size_t at) { return reinterpret_cast<uint32_t*>(buffer + at); }

// Rows of f32 as words along the rows.
void round_rows(const float* x, int64_t rows, int64_t cols, uint32_t* out) {
  for (int64_t r = 0; r < rows; ++r, x += cols, out += pairs(cols)) {
    if (cols % 2) out[cols / 2] = 0;
    row_ops().shrink(x, static_cast<size_t>(cols), reinterpret_cast<bf16*>(out));
  }
}

class AttentionBf16 final : public Kernel {
 public:
  AttentionBf16(Context& context, const Piece& piece)
      : context_(context), x_(piece, 3, kCausalRows), places_(piece) {
    const AttentionExtents& e = x_.e;
    Parts parts;
    keys_ = parts.add(pairs(e.d) * e.s);
    values_ = parts.add(pairs(e.s) * e.dv);
    queries_ = parts.add(x_.block * pairs(e.d));
    scores_ = parts.add(x_.block * e.s);
    p_ = parts.add(x_.block * pairs(e.s));
    out_ = parts.add(x_.block * e.dv);
    factors_ = parts.add(x_.block);
    buffers_ = ThreadBuffers(context, places_.scratch_bytes(), parts.size());
  }

  Status run(std::span<void* const> in, std::span<void* const> out, void* scratch) override {
    parallel_for(buffers_.threads(context_), x_.e.batch * x_.blocks(), 1, [&](int64_t begin, int64_t end) {
      float* const buffer = buffers_.mine(scratch);
      for (int64_t unit = begin, head = -1; unit < end; ++unit) {
        const int64_t b = unit / x_.blocks();
        if (b != head) {
          pair_gemm().along_rows_transposed(x_.k.at<bf16>(in[1], b), x_.e.s, x_.e.d, x_.k.row_stride,
                                            words(buffer, keys_));
          pair_gemm().along_columns(x_.v.at<bf16>(in[2], b), x_.e.s, x_.e.dv, x_.v.row_stride,
                                    words(buffer, values_));
          head = b;
        }
        attend(in, b, unit % x_.blocks(), buffer, static_cast<bf16*>(places_.address(0, out, scratch)),
               static_cast<float*>(places_.address(1, out, scratch)));
      }
    });
    return Status::ok();
  }
  size_t scratch_bytes() const override { return buffers_.scratch_bytes(); }
  std::string_view name() const override { return "cpu:attention_bf16"; }

 private:
  void attend(std::span<void* const> in, int64_t b, int64_t i, float* buffer, bf16* result,
              float* lse) const {
    const RowOps& ops = row_ops();
    const PairGemm& gemm = pair_gemm();
    const AttentionExtents& e = x_.e;
    const int64_t rows = x_.rows_of(i), width = x_.visible_in(i), first = i * x_.block;
    float *const scores = buffer + scores_, *const y = buffer + out_, *const factors = buffer + factors_;
    pair_along_rows(x_.q.at<bf16>(in[0], b) + first * x_.q.row_stride, rows, e.d, x_.q.row_stride,
                    words(buffer, queries_));
    gemm.multiply(rows, width, pairs(e.d), {words(buffer, queries_), pairs(e.d), 1}, words(buffer, keys_),
                  e.s, x_.scale, scores, width, false);
    x_.add_mask(in, b, i, scores, width);
    for (int64_t r = 0; r < rows; ++r) {
      float* const row = scores + r * width;
      const size_t n = x_.seen(i, r);
      const float max = ops.max(row, n);
      std::fill(row + n, row + width, 0.0f);
      float& statistic = lse[b * e.t + first + r];
      if (max == kHidden) {
        std::fill_n(row, n, 0.0f);
        statistic = max;
        factors[r] = 0;
        continue;
      }
      const float sum = ops.exp_sum(row, n, max, row);
      statistic = max + std::log(sum);
      factors[r] = 1 / sum;
    }
    round_rows(scores, rows, width, words(buffer, p_));
    gemm.multiply(rows, e.dv, pairs(width), {words(buffer, p_), pairs(width), 1}, words(buffer, values_),
                  e.dv, 1, y, e.dv, false);
    for (int64_t r = 0; r < rows; ++r) {
      float* const row = y + r * e.dv;
      ops.scale(row, static_cast<size_t>(e.dv), factors[r], row);
      ops.shrink(row, static_cast<size_t>(e.dv), result + (b * e.t + first + r) * e.dv);
    }
  }

  Context& context_;
  AttentionBlocks x_;
  OutputPlaces places_;
  size_t keys_, values_, queries_, scores_, p_, out_, factors_;  // in a thread's buffer
  ThreadBuffers buffers_;
};

// q, k, v, L, delta, dO (, mask) -> dq, dk, dv. One thread does all blocks of a head in order: dk and dv add
// up over them.
class AttentionGradBf16 final : public Kernel {
 public:
  AttentionGradBf16(Context& context, const Piece& piece)
      : context_(context), x_(piece, 6, kCausalRows), dout_(piece.inputs[5]), places_(piece) {
    const AttentionExtents& e = x_.e;
    const int64_t block = x_.block;
    Parts parts;
    keys_ = parts.add(pairs(e.d) * e.s);
    values_ = parts.add(pairs(e.dv) * e.s);
    key_columns_ = parts.add(pairs(e.s) * e.d);
    queries_ = parts.add(block * pairs(e.d));
    query_columns_ = parts.add(pairs(block) * e.d);
    douts_ = parts.add(block * pairs(e.dv));
    dout_columns_ = parts.add(pairs(block) * e.dv);
    p_ = parts.add(block * e.s);
    ds_ = parts.add(block * e.s);
    rounded_ = parts.add(block * pairs(e.s));
    columns_ = parts.add(pairs(block) * e.s);
    dq_ = parts.add(block * e.d);
    dk_ = parts.add(e.s * e.d);
    dv_ = parts.add(e.s * e.dv);
    buffers_ = ThreadBuffers(context, places_.scratch_bytes(), parts.size());
  }

  Status run(std::span<void* const> in, std::span<void* const> out, void* scratch) override {
    parallel_for(buffers_.threads(context_), x_.e.batch, 1, [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; ++b) head(in, out, scratch, b, buffers_.mine(scratch));
    });
    return Status::ok();
  }
  size_t scratch_bytes() const override { return buffers_.scratch_bytes(); }
  std::string_view name() const override { return "cpu:attention_grad_bf16"; }

 private:
  void head(std::span<void* const> in, std::span<void* const> out, void* scratch, int64_t b,
            float* buffer) const {
    const AttentionExtents& e = x_.e;
    const auto result = [&](size_t i, int64_t size) {
      return static_cast<bf16*>(places_.address(i, out, scratch)) + b * size;
    };
    pair_gemm().along_rows_transposed(x_.k.at<bf16>(in[1], b), e.s, e.d, x_.k.row_stride,
                                      words(buffer, keys_));
    pair_gemm().along_columns(x_.k.at<bf16>(in[1], b), e.s, e.d, x_.k.row_stride,
                              words(buffer, key_columns_));
    pair_gemm().along_rows_transposed(x_.v.at<bf16>(in[2], b), e.s, e.dv, x_.v.row_stride,
                                      words(buffer, values_));
    std::fill_n(buffer + dk_, e.s * e.d, 0.0f);
    std::fill_n(buffer + dv_, e.s * e.dv, 0.0f);
    for (int64_t i = 0; i < x_.blocks(); ++i) add_block(in, b, i, buffer, result(0, e.t * e.d));
    row_ops().shrink(buffer + dk_, static_cast<size_t>(e.s * e.d), result(1, e.s * e.d));
    row_ops().shrink(buffer + dv_, static_cast<size_t>(e.s * e.dv), result(2, e.s * e.dv));
  }

  void add_block(std::span<void* const> in, int64_t b, int64_t i, float* buffer, bf16* dq) const {
    const RowOps& ops = row_ops();
    const PairGemm& gemm = pair_gemm();
    const AttentionExtents& e = x_.e;
    const int64_t rows = x_.rows_of(i), width = x_.visible_in(i), first = i * x_.block;
    const float* const lse = static_cast<const float*>(in[3]) + b * e.t + first;
    const float* const delta = static_cast<const float*>(in[4]) + b * e.t + first;
    float *const p = buffer + p_, *const ds = buffer + ds_;
    uint32_t *const rounded = words(buffer, rounded_), *const columns = words(buffer, columns_);
    const bf16* const q = x_.q.at<bf16>(in[0], b) + first * x_.q.row_stride;
    const bf16* const dout = dout_.at<bf16>(in[5], b) + first * dout_.row_stride;
    pair_along_rows(q, rows, e.d, x_.q.row_stride, words(buffer, queries_));
    gemm.along_columns(q, rows, e.d, x_.q.row_stride, words(buffer, query_columns_));
    pair_along_rows(dout, rows, e.dv, dout_.row_stride, words(buffer, douts_));
    gemm.along_columns(dout, rows, e.dv, dout_.row_stride, words(buffer, dout_columns_));

    gemm.multiply(rows, width, pairs(e.d), {words(buffer, queries_), pairs(e.d), 1}, words(buffer, keys_),
                  e.s, x_.scale, p, width, false);
    x_.add_mask(in, b, i, p, width);
    for (int64_t r = 0; r < rows; ++r) {
      float* const row = p + r * width;
      const size_t n = x_.seen(i, r);
      std::fill(row + n, row + width, 0.0f);
      // A query that sees no key has L = -infinity and probabilities of zero.
      if (lse[r] == kHidden)
        std::fill_n(row, n, 0.0f);
      else
        ops.exp_sum(row, n, lse[r], row);
    }
    gemm.round_along_columns(p, rows, width, width, columns);
    gemm.multiply(width, e.dv, pairs(rows), {columns, 1, width}, words(buffer, dout_columns_), e.dv, 1,
                  buffer + dv_, e.dv, true);

    gemm.multiply(rows, width, pairs(e.dv), {words(buffer, douts_), pairs(e.dv), 1}, words(buffer, values_),
                  e.s, 1, ds, width, false);
    for (int64_t r = 0; r < rows; ++r) {
      float* const row = ds + r * width;
      const size_t n = x_.seen(i, r);
      ops.softmax_grad(p + r * width, row, n, delta[r], row);
      std::fill(row + n, row + width, 0.0f);
    }
    round_rows(ds, rows, width, rounded);
    gemm.multiply(rows, e.d, pairs(width), {rounded, pairs(width), 1}, words(buffer, key_columns_), e.d,
                  x_.scale, buffer + dq_, e.d, false);
    ops.shrink(buffer + dq_, static_cast<size_t>(rows * e.d), dq + first * e.d);
    gemm.round_along_columns(ds, rows, width, width, columns);
    gemm.multiply(width, e.d, pairs(rows), {columns, 1, width}, words(buffer, query_columns_), e.d, x_.scale,
                  buffer + dk_, e.d, true);
  }

  Context& context_;
  AttentionBlocks x_;
  Matrices dout_;
  OutputPlaces places_;
  size_t keys_, values_, key_columns_, queries_, query_columns_, douts_, dout_columns_, p_, ds_, rounded_,
      columns_, dq_, dk_, dv_;  // in a thread's buffer
  ThreadBuffers buffers_;
};

}  // namespace

std::unique_ptr<Kernel> make_attention_bf16(Context& context, const Piece& piece) {
  return std::make_unique<AttentionBf16>(context, piece);
}
std::unique_ptr<Kernel> make_attention_grad_bf16(Context& context, const Piece& piece) {
  return std::make_unique<AttentionGradBf16>(context, piece);
}

}  // namespace tenon::cpu
