// cross_entropy from integer labels over a contiguous last axis, and its derivative: the softmax of a row is
// never written down.
#include <cmath>

#include "backends/cpu/short_rows.h"

namespace tenon::cpu {
namespace {

// Stride with which the elements of a tensor follow each other, in row-major order, if it is the same
// throughout.
std::optional<int64_t> even_stride(const Layout& l) {
  int64_t stride = 0, count = 1;
  for (int i = l.shape.rank() - 1; i >= 0; --i) {
    if (l.shape[i] == 1) continue;
    if (count == 1)
      stride = l.strides[i];
    else if (l.strides[i] != stride * count)
      return std::nullopt;
    count *= l.shape[i];
  }
  return stride;
}

// logits: [.., C]  labels: [..]  ->  loss [..], or with dloss: [..] the derivative [.., C]
class CrossEntropy final : public Kernel {
 public:
  CrossEntropy(Context& context, const Piece& piece)
      : context_(context),
        rows_(piece.inputs[0].dtype, piece.inputs[0].shape),
        label_type_(piece.inputs[1].dtype),
        smoothing_(static_cast<float>(piece.nodes[0].attrs.f("label_smoothing"))),
        ignored_(piece.nodes[0].attrs.i("ignore_index")),
        label_stride_(*even_stride(piece.inputs[1])),
        grad_(piece.inputs.size() == 3),
        dloss_stride_(grad_ ? *even_stride(piece.inputs[2]) : 0),
        buffers_(context, 0, 2 * rows_.n()) {}

  Status run(std::span<void* const> in, std::span<void* const> out, void* scratch) override {
    for (int64_t r = 0; r < rows_.count; ++r) {
      const int64_t label = label_of(in[1], r);
      if (label != ignored_ && (label < 0 || label >= rows_.length))
        return invalid("cross_entropy: label " + std::to_string(label) + " of sample " + std::to_string(r) +
                       " is outside [0, " + std::to_string(rows_.length) +
                       "); the model needs as many outputs as there are classes, labels start at 0");
    }
    parallel_for(buffers_.threads(context_), rows_.count, rows_.grain(), [&](int64_t begin, int64_t end) {
      if (rows_.length <= kShortRow)
        return each_row_block(begin, end, [&](int64_t first, size_t count) {
          if (grad_)
            derivative_block(in, out[0], first, count);
          else
            loss_block(in, out[0], first, count);
        });
      float* const buffer = buffers_.mine(scratch);
      for (int64_t r = begin; r < end; ++r) {
        const int64_t label = label_of(in[1], r);
        if (grad_)
          derivative(in, out, r, label, buffer);
        else
          write_element(rows_.dtype, out[0], r, label == ignored_ ? 0 : loss(in, r, label, buffer));
      }
    });
    return Status::ok();
  }
  size_t scratch_bytes() const override { return buffers_.scratch_bytes(); }
  std::string_view name() const override { return grad_ ? "cpu:cross_entropy_grad" : "cpu:cross_entropy"; }

 private:
  int64_t label_of(const void* labels, int64_t r) const {
    return label_type_ == DType::i32 ? static_cast<const int32_t*>(labels)[r * label_stride_]
                                     : static_cast<const int64_t*>(labels)[r * label_stride_];
  }

  float loss(std::span<void* const> in, int64_t r, int64_t label, float* buffer) const {
    const RowOps& ops = row_ops();
    const size_t n = rows_.n();
    const float* x = rows_.read(in[0], r, buffer);
    const float max = ops.max(x, n);
    float v = std::log(ops.exp_sum(x, n, max, nullptr)) - (1 - smoothing_) * (x[label] - max);
    // Only with smoothing, so that without it a logit of -infinity stays harmless.
    if (smoothing_ > 0) {
      ops.shift(x, n, max, 0, buffer + n);
      v -= smoothing_ / static_cast<float>(n) * ops.sum(buffer + n, n);
    }
    return v;
  }

  // Blocks of short rows: maxima, exponentials and their sums, one of each for every row.
  struct Block {
    RowBlock x, e;
    BlockColumn max, sum;
  };
  void read_block(const void* in, int64_t first, size_t count, Block& b) const {
    const size_t n = rows_.n();
    b.x.read(rows_, in, first, count);
    row_ops().columns_max(b.x.at, n, b.max.at);
    std::copy_n(b.x.at, n * kColumnBlock, b.e.at);
    row_ops().columns_exp_sum(b.e.at, n, b.max.at, b.sum.at);
  }

  void loss_block(std::span<void* const> in, void* out, int64_t first, size_t count) const {
    const size_t n = rows_.n();
    Block b;
    BlockColumn log_sum, total{};
    read_block(in[0], first, count, b);
    row_ops().columns_log(b.sum.at, log_sum.at);
    if (smoothing_ > 0) {
      for (size_t j = 0; j < n; ++j)
        for (size_t r = 0, at = j * kColumnBlock; r < kColumnBlock; ++r, ++at)
          b.e.at[at] = b.x.at[at] - b.max.at[r];
      row_ops().columns_sum(b.e.at, n, total.at);
    }
    for (size_t r = 0; r < count; ++r) {
      const int64_t row = first + static_cast<int64_t>(r), label = label_of(in[1], row);
      float v = 0;
      if (label != ignored_) {
        const float x = b.x.at[static_cast<size_t>(label) * kColumnBlock + r];
        v = log_sum.at[r] - (1 - smoothing_) * (x - b.max.at[r]);
        if (smoothing_ > 0) v -= smoothing_ / static_cast<float>(n) * total.at[r];
      }
      write_element(rows_.dtype, out, row, v);
    }
  }

  void derivative_block(std::span<void* const> in, void* out, int64_t first, size_t count) const {
    const size_t n = rows_.n();
    Block b;
    BlockColumn d{}, scale{}, shift{};
    read_block(in[0], first, count, b);
    for (size_t r = 0; r < count; ++r) {
      d.at[r] = read_element(rows_.dtype, in[2], (first + static_cast<int64_t>(r)) * dloss_stride_);
      scale.at[r] = d.at[r] / b.sum.at[r];
      shift.at[r] = -d.at[r] * smoothing_ / static_cast<float>(n);
    }
    for (size_t j = 0; j < n; ++j)
      for (size_t r = 0, at = j * kColumnBlock; r < kColumnBlock; ++r, ++at)
        b.e.at[at] = b.e.at[at] * scale.at[r] + shift.at[r];
    for (size_t r = 0; r < count; ++r) {
      const int64_t label = label_of(in[1], first + static_cast<int64_t>(r));
      if (label != ignored_)
        b.e.at[static_cast<size_t>(label) * kColumnBlock + r] -= d.at[r] * (1 - smoothing_);
      else
        for (size_t j = 0; j < n; ++j) b.e.at[j * kColumnBlock + r] = 0;
    }
    b.e.write(rows_, out, first, count);
  }

  void derivative(std::span<void* const> in, std::span<void* const> out, int64_t r, int64_t label,
                  float* buffer) const {
    const RowOps& ops = row_ops();
    const size_t n = rows_.n();
    float* dx = rows_.target(out[0], r, buffer + n);
    if (label == ignored_) {
      std::fill_n(dx, n, 0.0f);
    } else {
      const float* x = rows_.read(in[0], r, buffer);
      const float d = read_element(rows_.dtype, in[2], r * dloss_stride_);
      const float sum = ops.exp_sum(x, n, ops.max(x, n), dx);
      ops.center_scale(dx, n, 0, d / sum, -d * smoothing_ / static_cast<float>(n), dx);
      dx[label] -= d * (1 - smoothing_);
    }
    rows_.write(out[0], r, dx);
  }

  Context& context_;
  Rows rows_;
  DType label_type_;
  float smoothing_;
  int64_t ignored_, label_stride_;
  bool grad_;
  int64_t dloss_stride_;
  ThreadBuffers buffers_;
};

uint32_t logits_contiguous(const Piece& piece) {
  uint32_t mask = piece.inputs[0].contiguous() ? 0 : 1;
  for (size_t i = 1; i < piece.inputs.size(); ++i)
    if (!even_stride(piece.inputs[i])) mask |= 1u << i;
  return mask;
}
std::unique_ptr<Kernel> make_cross_entropy(Context& context, const Piece& piece) {
  if (!is_row_type(piece.inputs[0].dtype) || logits_contiguous(piece)) return nullptr;
  return std::make_unique<CrossEntropy>(context, piece);
}

}  // namespace

std::span<const KernelEntry> cross_entropy_kernels() {
  static constexpr KernelEntry entries[] = {
      {"cross_entropy/1", make_cross_entropy, logits_contiguous},
      {"cross_entropy_grad/1", make_cross_entropy, logits_contiguous},
  };
  return entries;
}

}  // namespace tenon::cpu
