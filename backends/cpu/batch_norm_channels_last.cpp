// batch_norm and its derivative on images that lie channels-last: sums of each image first, then of the
// batch, with the bits of the row loops of batch_norm.cpp.
#include <cmath>

#include "backends/cpu/batch_norm.h"
#include "backends/cpu/channel_ops.h"
#include "backends/cpu/parallel.h"

namespace tenon::cpu {
namespace {

// [B, places, C], cut into blocks of channels where they are folded.
struct Images {
  int64_t batch, places, channels, blocks;

  explicit Images(const Shape& x)
      : batch(x[0]),
        places(x.numel() / (x[0] * x[1])),
        channels(x[1]),
        blocks((channels + kBlock - 1) / kBlock) {}

  // Calls f(offset of the first element, that of the block in [B, C], channels of the block) for all blocks
  // of all images.
  template <class F>
  void each_block(int threads, F&& f) const {
    const int64_t grain = std::max<int64_t>(1, kMathGrain / (places * std::min(channels, kBlock)));
    parallel_for(threads, batch * blocks, grain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t image = i / blocks, first = i % blocks * kBlock;
        f(image * places * channels + first, image * channels + first,
          static_cast<size_t>(std::min(kBlock, channels - first)));
      }
    });
  }
  // Calls f(offset of the first element, number of places) for parts of all places of the batch.
  template <class F>
  void each_part(int threads, F&& f) const {
    const int64_t grain = std::max<int64_t>(1, kMovedGrain / channels);
    parallel_for(threads, batch * places, grain,
                 [&](int64_t begin, int64_t end) { f(begin * channels, static_cast<size_t>(end - begin)); });
  }
  float count() const { return static_cast<float>(batch * places); }

 private:
  static constexpr auto kBlock = static_cast<int64_t>(kChannelBlock);
};

// Two sums of each image and channel and three numbers of each channel, behind the outputs that nobody wants.
struct Scratch {
  float *sums, *others, *numbers[3];
  static size_t floats(const Images& x) { return static_cast<size_t>((2 * x.batch + 3) * x.channels); }
  Scratch(void* scratch, size_t offset, const Images& x)
      : sums(reinterpret_cast<float*>(static_cast<std::byte*>(scratch) + align64(offset))),
        others(sums + x.batch * x.channels) {
    for (int i = 0; i < 3; ++i) numbers[i] = others + (x.batch + i) * x.channels;
  }
};

class Base : public Kernel {
 public:
  Base(Context& context, const Piece& piece)
      : context_(context),
        images_(piece.inputs[0].shape),
        eps_(static_cast<float>(piece.nodes[0].attrs.f("eps"))),
        places_(piece) {}
  size_t scratch_bytes() const override {
    return align64(places_.scratch_bytes()) + Scratch::floats(images_) * sizeof(float);
  }

 protected:
  Context& context_;
  Images images_;
  float eps_;
  OutputPlaces places_;
};

// X: the type of x and dx.
template <class X>
const ChannelNormOps<X>& norm_ops() {
  if constexpr (std::is_same_v<X, bf16>)
    return channel_ops().norm_bf16;
  else
    return channel_ops().norm;
}

template <class X>
class BatchNorm final : public Base {
 public:
  using Base::Base;
  Status run(std::span<void* const> in, std::span<void* const> out, void* scratch) override {
    const ChannelNormOps<X>& ops = norm_ops<X>();
    const auto* const x = static_cast<const X*>(in[0]);
    const auto input = [&](size_t i) { return static_cast<const float*>(in[i]); };
    const auto output = [&](size_t i) { return static_cast<float*>(places_.address(i, out, scratch)); };
    const Scratch s(scratch, places_.scratch_bytes(), images_);
    const auto n = static_cast<size_t>(images_.places), channels = static_cast<size_t>(images_.channels);
    images_.each_block(context_.threads, [&](int64_t at, int64_t c, size_t width) {
      ops.moments(x + at, n, channels, width, s.sums + c, s.others + c);
    });
    float* const mean = output(1);
    float* const scale = s.numbers[0];
    for (int64_t c = 0; c < images_.channels; ++c) {
      const Moments m =
          join_moments(s.sums + c, s.others + c, images_.batch, images_.channels, static_cast<float>(n));
      mean[c] = m.mean;
      output(2)[c] = m.var;
      scale[c] = input(1)[c] / std::sqrt(m.var + eps_);
    }
    images_.each_part(context_.threads, [&](int64_t at, size_t part) {
      ops.center_scale(x + at, part, channels, mean, scale, input(2), output(0) + at);
    });
    return Status::ok();
  }
  std::string_view name() const override { return "cpu:batch_norm nhwc"; }
};

// x, gamma, mean, var, dy -> dx, dgamma, dbeta
template <class X>
class BatchNormGrad final : public Base {
 public:
  using Base::Base;
  Status run(std::span<void* const> in, std::span<void* const> out, void* scratch) override {
    const ChannelNormOps<X>& ops = norm_ops<X>();
    const auto* const x = static_cast<const X*>(in[0]);
    const auto input = [&](size_t i) { return static_cast<const float*>(in[i]); };
    const auto output = [&](size_t i) { return static_cast<float*>(places_.address(i, out, scratch)); };
    const Scratch s(scratch, places_.scratch_bytes(), images_);
    const auto n = static_cast<size_t>(images_.places), channels = static_cast<size_t>(images_.channels);
    auto* const dx = static_cast<X*>(places_.address(0, out, scratch));
    const float* const mean = input(2);
    images_.each_block(context_.threads, [&](int64_t at, int64_t c, size_t width) {
      const float* const block_mean = mean + c % images_.channels;
      ops.dots(x + at, input(4) + at, n, channels, width, block_mean, s.sums + c, s.others + c);
    });
    for (int64_t c = 0; c < images_.channels; ++c) {
      const float r = 1 / std::sqrt(input(3)[c] + eps_);
      float sum_dy = 0, sum_dy_h = 0;
      for (int64_t b = 0; b < images_.batch; ++b) {
        sum_dy += s.sums[b * images_.channels + c];
        sum_dy_h += s.others[b * images_.channels + c] * r;
      }
      const float scale = input(1)[c] * r;
      const float mean_dy = sum_dy / images_.count(), mean_dy_h = sum_dy_h / images_.count();
      s.numbers[0][c] = scale;
      s.numbers[1][c] = -scale * r * mean_dy_h;
      s.numbers[2][c] = -scale * mean_dy;
      output(1)[c] = sum_dy_h;
      output(2)[c] = sum_dy;
    }
    images_.each_part(context_.threads, [&](int64_t at, size_t part) {
      ops.combine(x + at, input(4) + at, part, channels, s.numbers[0], s.numbers[1], mean,
                  s.numbers[2], dx + at);
    });
    return Status::ok();
  }
  std::string_view name() const override { return "cpu:batch_norm_grad nhwc"; }
};

}  // namespace

std::unique_ptr<Kernel> make_channels_last_batch_norm(Context& context, const Piece& piece) {
  if (piece.inputs[0].dtype == DType::bf16) return std::make_unique<BatchNorm<bf16>>(context, piece);
  return std::make_unique<BatchNorm<float>>(context, piece);
}
std::unique_ptr<Kernel> make_channels_last_batch_norm_grad(Context& context, const Piece& piece) {
  if (piece.inputs[0].dtype == DType::bf16) return std::make_unique<BatchNormGrad<bf16>>(context, piece);
  return std::make_unique<BatchNormGrad<float>>(context, piece);
}

}  // namespace tenon::cpu
