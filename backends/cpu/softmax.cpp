// softmax and log_softmax over a contiguous last axis, with their derivatives: one pass over each row for the
// maximum, one for the sum, one for the result, all while the row is in cache.
#include <cmath>

#include "backends/cpu/short_rows.h"

namespace tenon::cpu {
namespace {

bool over_last_axis(const Piece& piece) {
  const int64_t axis = piece.nodes[0].attrs.i("axis");
  const int rank = piece.inputs[0].shape.rank();
  return rank > 0 && (axis == -1 || axis == rank - 1);
}

class Softmax final : public Kernel {
 public:
  Softmax(Context& context, const Piece& piece, bool log)
      : context_(context),
        rows_(piece.inputs[0].dtype, piece.inputs[0].shape),
        log_(log),
        buffers_(context, 0, 2 * rows_.n()) {}
  Status run(std::span<void* const> in, std::span<void* const> out, void* scratch) override {
    const RowOps& ops = row_ops();
    const size_t n = rows_.n();
    parallel_for(buffers_.threads(context_), rows_.count, rows_.grain(), [&](int64_t begin, int64_t end) {
      if (rows_.length <= kShortRow)
        return each_row_block(begin, end,
                              [&](int64_t first, size_t count) { run_block(in[0], out[0], first, count); });
      float* const buffer = buffers_.mine(scratch);
      for (int64_t r = begin; r < end; ++r) {
        const float* x = rows_.read(in[0], r, buffer);
        float* y = rows_.target(out[0], r, buffer + n);
        const float max = ops.max(x, n);
        if (log_) {
          ops.shift(x, n, max, std::log(ops.exp_sum(x, n, max, nullptr)), y);
        } else {
          const float sum = ops.exp_sum(x, n, max, y);
          ops.scale(y, n, 1 / sum, y);
        }
        rows_.write(out[0], r, y);
      }
    });
    return Status::ok();
  }
  size_t scratch_bytes() const override { return buffers_.scratch_bytes(); }
  std::string_view name() const override { return log_ ? "cpu:log_softmax" : "cpu:softmax"; }

 private:
  void run_block(const void* in, void* out, int64_t first, size_t count) const {
    const RowOps& ops = row_ops();
    const size_t n = rows_.n();
    RowBlock x, e;
    BlockColumn max, sum;
    x.read(rows_, in, first, count);
    ops.columns_max(x.at, n, max.at);
    e = x;
    ops.columns_exp_sum(e.at, n, max.at, sum.at);
    if (log_) ops.columns_log(sum.at, sum.at);
    for (size_t j = 0; j < n; ++j)
      for (size_t r = 0, at = j * kColumnBlock; r < kColumnBlock; ++r, ++at)
        e.at[at] = log_ ? (x.at[at] - max.at[r]) - sum.at[r] : e.at[at] * (1 / sum.at[r]);
    e.write(rows_, out, first, count);
  }

  Context& context_;
  Rows rows_;
  bool log_;
  ThreadBuffers buffers_;
};

class SoftmaxGrad final : public Kernel {
 public:
  SoftmaxGrad(Context& context, const Piece& piece, bool log)
      : context_(context),
        rows_(piece.inputs[0].dtype, piece.inputs[0].shape),
        log_(log),
        buffers_(context, 0, 3 * rows_.n()) {}
  Status run(std::span<void* const> in, std::span<void* const> out, void* scratch) override {
    const RowOps& ops = row_ops();
    const size_t n = rows_.n();
    parallel_for(buffers_.threads(context_), rows_.count, rows_.grain(), [&](int64_t begin, int64_t end) {
      if (rows_.length <= kShortRow)
        return each_row_block(begin, end,
                              [&](int64_t first, size_t count) { run_block(in, out[0], first, count); });
      float* const buffer = buffers_.mine(scratch);
      for (int64_t r = begin; r < end; ++r) {
        const float* y = rows_.read(in[0], r, buffer);
        const float* dy = rows_.read(in[1], r, buffer + n);
        float* dx = rows_.target(out[0], r, buffer + 2 * n);
        if (log_)
          ops.log_softmax_grad(y, dy, n, ops.sum(dy, n), dx);
        else
          ops.softmax_grad(y, dy, n, ops.dot(y, dy, n), dx);
        rows_.write(out[0], r, dx);
      }
    });
    return Status::ok();
  }
  size_t scratch_bytes() const override { return buffers_.scratch_bytes(); }
  std::string_view name() const override { return log_ ? "cpu:log_softmax_grad" : "cpu:softmax_grad"; }

 private:
  void run_block(std::span<void* const> in, void* out, int64_t first, size_t count) const {
    const RowOps& ops = row_ops();
    const size_t n = rows_.n();
    RowBlock y, dy;
    BlockColumn zero{}, sum;
    y.read(rows_, in[0], first, count);
    dy.read(rows_, in[1], first, count);
    if (log_) {
      ops.columns_sum(dy.at, n, sum.at);
      ops.columns_exp_sum(y.at, n, zero.at, zero.at);
    } else {
      ops.columns_dot(y.at, dy.at, n, sum.at);
    }
    for (size_t j = 0; j < n; ++j)
      for (size_t r = 0, at = j * kColumnBlock; r < kColumnBlock; ++r, ++at)
        dy.at[at] = log_ ? dy.at[at] - y.at[at] * sum.at[r] : y.at[at] * (dy.at[at] - sum.at[r]);
    dy.write(rows_, out, first, count);
  }

  Context& context_;
  Rows rows_;
  bool log_;
  ThreadBuffers buffers_;
};

template <class K, bool kLog>
std::unique_ptr<Kernel> make_softmax(Context& context, const Piece& piece) {
  if (!is_row_type(piece.inputs[0].dtype) || !over_last_axis(piece) || !inputs_contiguous(piece))
    return nullptr;
  return std::make_unique<K>(context, piece, kLog);
}

}  // namespace

std::span<const KernelEntry> softmax_kernels() {
  static constexpr KernelEntry entries[] = {
      {"softmax/1", make_softmax<Softmax, false>, all_contiguous},
      {"log_softmax/1", make_softmax<Softmax, true>, all_contiguous},
      {"softmax_grad/1", make_softmax<SoftmaxGrad, false>, all_contiguous},
      {"log_softmax_grad/1", make_softmax<SoftmaxGrad, true>, all_contiguous},
  };
  return entries;
}

}  // namespace tenon::cpu
