// Max pooling, f32: on row-major planes, planes split over threads, or on images that lie channels-last.
// oneDNN's would drop NaN, and its derivative wants the forward pass's workspace.
#include <cmath>

#include "backends/cpu/channel_ops.h"
#include "backends/cpu/rows.h"

namespace tenon::cpu {
namespace {

struct Windows {
  int64_t batch, channels, planes, h, w, oh, ow, kh, kw, stride_h, stride_w, top = 0, left = 0;

  Windows(const Attrs& attrs, const Shape& x, const Shape& y)
      : batch(x[0]), channels(x[1]), planes(x[0] * x[1]), h(x[2]), w(x[3]), oh(y[2]), ow(y[3]) {
    const auto kernel = attrs.ints("kernel"), padding = attrs.ints("padding");
    const auto stride = attrs.ints("stride").empty() ? kernel : attrs.ints("stride");
    kh = kernel[0], kw = kernel[1], stride_h = stride[0], stride_w = stride[1];
    if (!padding.empty()) top = padding[0], left = padding[1];
  }
  // Calls f(output element, first row, last, first column, last) for each window of a plane, without the
  // padding.
  template <class F>
  void for_each(F&& f) const {
    for (int64_t i = 0; i < oh; ++i)
      for (int64_t j = 0; j < ow; ++j) {
        const int64_t r = i * stride_h - top, c = j * stride_w - left;
        f(i * ow + j, std::max<int64_t>(r, 0), std::min(r + kh, h), std::max<int64_t>(c, 0),
          std::min(c + kw, w));
      }
  }
  // The usual case: windows side by side, which vectors compute.
  bool two_by_two() const {
    return kh == 2 && kw == 2 && stride_h == 2 && stride_w == 2 && top == 0 && left == 0;
  }
  int64_t grain() const { return std::max<int64_t>(1, 8192 / std::max<int64_t>(1, h * w)); }
};

// The first maximum of a window, row-major; NaN is larger than any number.
inline int64_t best_of(const float* x, int64_t w, int64_t r0, int64_t r1, int64_t c0, int64_t c1) {
  int64_t best = r0 * w + c0;
  float value = x[best];
  for (int64_t r = r0; r < r1; ++r)
    for (int64_t c = c0; c < c1; ++c) {
      const float v = x[r * w + c];
      const bool better = !(v <= value) && value == value;
      value = better ? v : value;
      best = better ? r * w + c : best;
    }
  return best;
}

enum class Mode { max, max_grad };

class Pool final : public Kernel {
 public:
  Pool(Context& context, const Windows& windows, Mode mode) : context_(context), p_(windows), mode_(mode) {}

  Status run(std::span<void* const> in, std::span<void* const> out, void*) override {
    const int64_t x_plane = p_.h * p_.w, y_plane = p_.oh * p_.ow;
    parallel_for(context_.threads, p_.planes, p_.grain(), [&](int64_t begin, int64_t end) {
      for (int64_t p = begin; p < end; ++p) {
        const float* first = static_cast<const float*>(in[0]);
        if (mode_ == Mode::max) {
          const float* x = first + p * x_plane;
          float* y = static_cast<float*>(out[0]) + p * y_plane;
          if (p_.two_by_two()) {
            for (int64_t i = 0; i < p_.oh; ++i)
              row_ops().max_windows(x + 2 * i * p_.w, x + (2 * i + 1) * p_.w, static_cast<size_t>(p_.ow),
                                    y + i * p_.ow);
            continue;
          }
          p_.for_each([&](int64_t at, int64_t r0, int64_t r1, int64_t c0, int64_t c1) {
            y[at] = x[best_of(x, p_.w, r0, r1, c0, c1)];
          });
        } else {
          const float* x = first + p * x_plane;
          const float* dy = static_cast<const float*>(in[1]) + p * y_plane;
          float* dx = static_cast<float*>(out[0]) + p * x_plane;
          std::fill_n(dx, x_plane, 0.0f);
          if (p_.two_by_two()) {
            for (int64_t i = 0; i < p_.oh; ++i) {
              const int64_t r0 = 2 * i * p_.w, r1 = r0 + p_.w;
              row_ops().max_windows_grad(x + r0, x + r1, dy + i * p_.ow, static_cast<size_t>(p_.ow), dx + r0,
                                         dx + r1);
            }
            continue;
          }
          p_.for_each([&](int64_t at, int64_t r0, int64_t r1, int64_t c0, int64_t c1) {
            dx[best_of(x, p_.w, r0, r1, c0, c1)] += dy[at];
          });
        }
      }
    });
    return Status::ok();
  }
  std::string_view name() const override {
    return mode_ == Mode::max ? "cpu:max_pool2d" : "cpu:max_pool2d_grad";
  }

 private:
  Context& context_;
  Windows p_;
  Mode mode_;
};

class PoolChannelsLast final : public Kernel {
 public:
  PoolChannelsLast(Context& context, const Windows& windows, Mode mode)
      : context_(context), p_(windows), mode_(mode) {}

  Status run(std::span<void* const> in, std::span<void* const> out, void*) override {
    const int64_t c = p_.channels, x_image = p_.h * p_.w * c, y_image = p_.oh * p_.ow * c;
    const auto* const x = static_cast<const float*>(in[0]);
    const int64_t grain = std::max<int64_t>(1, kMovedGrain / x_image);
    const bool covers = p_.two_by_two() && 2 * p_.oh == p_.h && 2 * p_.ow == p_.w;  // all of dx gets written
    parallel_for(context_.threads, p_.batch, grain, [&](int64_t begin, int64_t end) {
      const ChannelOps& ops = channel_ops();
      std::vector<ptrdiff_t> at;  // places of a window
      for (int64_t b = begin; b < end; ++b) {
        float* const dx = static_cast<float*>(out[0]) + b * x_image;
        if (mode_ == Mode::max_grad && !covers) std::fill_n(dx, x_image, 0.0f);
        p_.for_each([&](int64_t i, int64_t r0, int64_t r1, int64_t c0, int64_t c1) {
          at.clear();
          for (int64_t r = r0; r < r1; ++r)
            for (int64_t k = c0; k < c1; ++k) at.push_back((r * p_.w + k) * c);
          const float* const image = x + b * x_image;
          const auto n = static_cast<size_t>(c);
          if (mode_ == Mode::max) {
            ops.max_of(image, at.data(), at.size(), n, static_cast<float*>(out[0]) + b * y_image + i * c);
          } else {
            const float* const dy = static_cast<const float*>(in[1]) + b * y_image + i * c;
            ops.max_of_grad(image, at.data(), at.size(), n, dy, !p_.two_by_two(), dx);
          }
        });
      }
    });
    return Status::ok();
  }
  std::string_view name() const override {
    return mode_ == Mode::max ? "cpu:max_pool2d nhwc" : "cpu:max_pool2d_grad nhwc";
  }

 private:
  Context& context_;
  Windows p_;
  Mode mode_;
};

template <Mode kMode>
std::unique_ptr<Kernel> make(Context& context, const Piece& piece) {
  const Layout& first = piece.inputs[0];
  const TensorType& out = piece.output_type(0);
  if (first.dtype != DType::f32 || first.numel() == 0) return nullptr;
  const Shape& y = kMode == Mode::max_grad ? piece.inputs[1].shape : out.shape;
  const Windows windows(piece.nodes[0].attrs, first.shape, y);
  if (all_channels_last(piece)) return std::make_unique<PoolChannelsLast>(context, windows, kMode);
  return inputs_contiguous(piece) ? std::make_unique<Pool>(context, windows, kMode) : nullptr;
}

ChannelsLast layout_of(Context&, const Piece& piece) {
  return piece.inputs[0].dtype == DType::f32 && piece.inputs[0].numel() > 0 ? ChannelsLast::keeps
                                                                            : ChannelsLast::never;
}

}  // namespace

std::span<const KernelEntry> max_pool_kernels() {
  static constexpr KernelEntry entries[] = {
      {"max_pool2d/1", make<Mode::max>, all_contiguous, layout_of},
      {"max_pool2d_grad/1", make<Mode::max_grad>, all_contiguous, layout_of},
  };
  return entries;
}

}  // namespace tenon::cpu
