// batch_norm and its derivative on [B, C, ..] with long channels: each channel is a few passes over its runs.
#include "backends/cpu/batch_norm.h"

#include <cmath>

#include "backends/cpu/rows.h"

namespace tenon::cpu {
namespace {

// [B, C, R] with rows of length R; channel c has rows c, C + c, 2C + c, .. What has x's shape has x's type or
// that of the rest.
struct Channels {
  Rows x, rest;
  int64_t batch, channels;
  explicit Channels(const Piece& piece) : Channels(piece.inputs[0], piece.inputs[1].dtype) {}
  Channels(const Layout& x_layout, DType rest_type)
      : x(x_layout.dtype, {x_layout.shape[0] * x_layout.shape[1], run_of(x_layout.shape)}),
        rest(x),
        batch(x_layout.shape[0]),
        channels(x_layout.shape[1]) {
    rest.dtype = rest_type;
  }
  static int64_t run_of(const Shape& s) {
    int64_t run = 1;
    for (int i = 2; i < s.rank(); ++i) run *= s[i];
    return run;
  }
  size_t n() const { return x.n(); }
  float count() const { return static_cast<float>(batch * x.length); }
  int64_t row(int64_t b, int64_t c) const { return b * channels + c; }
  int64_t grain() const { return std::max<int64_t>(1, kMathGrain / std::max<int64_t>(1, batch * x.length)); }
};

class BatchNorm final : public Kernel {
 public:
  BatchNorm(Context& context, const Piece& piece)
      : context_(context),
        c_(piece),
        eps_(static_cast<float>(piece.nodes[0].attrs.f("eps"))),
        places_(piece),
        buffers_(context, places_.scratch_bytes(), 2 * (c_.n() + static_cast<size_t>(c_.batch))) {}

  Status run(std::span<void* const> in, std::span<void* const> out, void* scratch) override {
    const RowOps& ops = row_ops();
    const Rows &rows = c_.x, &rest = c_.rest;
    const size_t n = c_.n();
    void* const y_base = places_.address(0, out, scratch);
    parallel_for(buffers_.threads(context_), c_.channels, c_.grain(), [&](int64_t begin, int64_t end) {
      float *const buffer = buffers_.mine(scratch), *const sums = buffer + 2 * n,
                   *const squares = sums + c_.batch;
      const auto length = static_cast<float>(n);
      for (int64_t c = begin; c < end; ++c) {
        for (int64_t b = 0; b < c_.batch; ++b) {
          const float* x = rows.read(in[0], c_.row(b, c), buffer);
          sums[b] = ops.sum(x, n);
          squares[b] = ops.sum_square_diff(x, n, sums[b] / length);
        }
        const auto [mean, var] = join_moments(sums, squares, c_.batch, 1, length);
        const float scale = read_element(rest.dtype, in[1], c) / std::sqrt(var + eps_);
        const float beta = read_element(rest.dtype, in[2], c);
        for (int64_t b = 0; b < c_.batch; ++b) {
          const int64_t r = c_.row(b, c);
          float* y = rest.target(y_base, r, buffer + n);
          ops.center_scale(rows.read(in[0], r, buffer), n, mean, scale, beta, y);
          rest.write(y_base, r, y);
        }
        write_element(rest.dtype, places_.address(1, out, scratch), c, mean);
        write_element(rest.dtype, places_.address(2, out, scratch), c, var);
      }
    });
    return Status::ok();
  }
  size_t scratch_bytes() const override { return buffers_.scratch_bytes(); }
  std::string_view name() const override { return "cpu:batch_norm"; }

 private:
  Context& context_;
  Channels c_;
  float eps_;
  OutputPlaces places_;
  ThreadBuffers buffers_;
};

// x, gamma, mean, var, dy -> dx, dgamma, dbeta with dx = gamma r (dy - mean(dy) - h mean(dy h)), h = (x -
// mean) r
class BatchNormGrad final : public Kernel {
 public:
  BatchNormGrad(Context& context, const Piece& piece)
      : context_(context),
        c_(piece),
        eps_(static_cast<float>(piece.nodes[0].attrs.f("eps"))),
        places_(piece),
        buffers_(context, places_.scratch_bytes(), 3 * c_.n()) {}

  Status run(std::span<void* const> in, std::span<void* const> out, void* scratch) override {
    const RowOps& ops = row_ops();
    const Rows &rows = c_.x, &rest = c_.rest;
    const size_t n = c_.n();
    void* const dx_base = places_.address(0, out, scratch);
    parallel_for(buffers_.threads(context_), c_.channels, c_.grain(), [&](int64_t begin, int64_t end) {
      float* const buffer = buffers_.mine(scratch);
      for (int64_t c = begin; c < end; ++c) {
        const float mean = read_element(rest.dtype, in[2], c);
        const float r = 1 / std::sqrt(read_element(rest.dtype, in[3], c) + eps_);
        float sum_dy = 0, sum_dy_h = 0;
        for (int64_t b = 0; b < c_.batch; ++b) {
          const float* x = rows.read(in[0], c_.row(b, c), buffer);
          const float* dy = rest.read(in[4], c_.row(b, c), buffer + n);
          sum_dy += ops.sum(dy, n);
          sum_dy_h += ops.dot_centered(x, dy, n, mean) * r;
        }
        const float scale = read_element(rest.dtype, in[1], c) * r;
        const float mean_dy = sum_dy / c_.count(), mean_dy_h = sum_dy_h / c_.count();
        for (int64_t b = 0; b < c_.batch; ++b) {
          const int64_t row = c_.row(b, c);
          const float* x = rows.read(in[0], row, buffer);
          const float* dy = rest.read(in[4], row, buffer + n);
          float* dx = rows.target(dx_base, row, buffer + 2 * n);
          ops.combine(x, dy, n, scale, -scale * r * mean_dy_h, mean, -scale * mean_dy, dx);
          rows.write(dx_base, row, dx);
        }
        write_element(rest.dtype, places_.address(1, out, scratch), c, sum_dy_h);
        write_element(rest.dtype, places_.address(2, out, scratch), c, sum_dy);
      }
    });
    return Status::ok();
  }
  size_t scratch_bytes() const override { return buffers_.scratch_bytes(); }
  std::string_view name() const override { return "cpu:batch_norm_grad"; }

 private:
  Context& context_;
  Channels c_;
  float eps_;
  OutputPlaces places_;
  ThreadBuffers buffers_;
};

bool is_long(const Shape& x) { return x.numel() > 0 && Channels::run_of(x) >= 4; }

// Whether all but x is f32, and x is f32 or bf16.
bool in_f32(const Piece& piece) {
  return is_row_type(piece.inputs[0].dtype) && piece.inputs[1].dtype == DType::f32;
}

template <class K>
std::unique_ptr<Kernel> make(Context& context, const Piece& piece) {
  const Layout& x = piece.inputs[0];
  constexpr bool kForward = std::is_same_v<K, BatchNorm>;
  if (all_channels_last(piece) && in_f32(piece))
    return kForward ? make_channels_last_batch_norm(context, piece)
                    : make_channels_last_batch_norm_grad(context, piece);
  if (!is_row_type(x.dtype) || !inputs_contiguous(piece) || x.numel() == 0) return nullptr;
  if (is_long(x.shape)) return std::make_unique<K>(context, piece);
  if (x.dtype != DType::f32) return nullptr;
  return kForward ? make_short_batch_norm(context, piece) : make_short_batch_norm_grad(context, piece);
}

ChannelsLast layout_of(Context&, const Piece& piece) {
  return in_f32(piece) && is_long(piece.inputs[0].shape) ? ChannelsLast::keeps : ChannelsLast::never;
}

}  // namespace

std::span<const KernelEntry> batch_norm_kernels() {
  static constexpr KernelEntry entries[] = {
      {"batch_norm/1", make<BatchNorm>, all_contiguous, layout_of, is_long},
      {"batch_norm_grad/1", make<BatchNormGrad>, all_contiguous, layout_of, is_long},
  };
  return entries;
}

}  // namespace tenon::cpu
