// Average pooling and its derivative on oneDNN; f32 and bf16. oneDNN's vectors run over channels: where there
// are few, windows side by side are added up here, row by row.
#include "backends/cpu/dnnl_call.h"
#include "backends/cpu/parallel.h"
#include "core/tensor/channels_last.h"

namespace tenon::cpu {
namespace {

using dnnl::memory;

// Descriptions of x, y and of the forward primitive that the derivative asks for.
struct Problem {
  memory::desc x, y;
  memory::dims kernel, stride, padding{0, 0};
  static inline const memory::dims kDense{0, 0};  // oneDNN counts the gaps of a dilation
  // Zeros of the padding count in the divisor, as in avg_pool2d/1.
  static constexpr dnnl::algorithm kAlgorithm = dnnl::algorithm::pooling_avg_include_padding;

  Problem(const Attrs& attrs, DType t, const Shape& x_shape, const Shape& y_shape, bool last)
      : x(image(t, x_shape, last)), y(image(t, y_shape, last)) {
    const auto k = attrs.ints("kernel"), s = attrs.ints("stride"), p = attrs.ints("padding");
    kernel = {k[0], k[1]};
    stride = s.empty() ? kernel : memory::dims{s[0], s[1]};
    if (!p.empty()) padding = {p[0], p[1]};
  }
  static memory::desc image(DType t, const Shape& s, bool last) {
    return dnnl_desc({t, s, last ? channels_last_strides(s) : s.strides()});
  }
  dnnl::pooling_forward::primitive_desc forward(Context& context) const {
    return {dnnl_state(context).engine,
            dnnl::prop_kind::forward_training,
            kAlgorithm,
            x,
            y,
            stride,
            kernel,
            kDense,
            padding,
            padding,
            dnnl_attributes()};
  }
};

bool usable(const Piece& piece) {
  return dnnl_type(piece.inputs[0].dtype) && piece.inputs[0].numel() > 0 &&
         (inputs_contiguous(piece) || all_channels_last(piece));
}

class SideBySide final : public Kernel {
 public:
  static constexpr int64_t kChannels = 16;  // from here on oneDNN's vectors are full
  SideBySide(Context& context, const Shape& x, const Shape& y, int64_t kh, int64_t kw)
      : context_(context), rows_(y[0] * y[1] * y[2]), per_plane_(y[2]), h_(x[2]), w_(x[3]), ow_(y[3]), kh_(kh), kw_(kw) {}

  Status run(std::span<void* const> in, std::span<void* const> out, void*) override {
    const auto* x = static_cast<const float*>(in[0]);
    auto* y = static_cast<float*>(out[0]);
    const float share = 1.0f / static_cast<float>(kh_ * kw_);
    const int64_t grain = std::max<int64_t>(1, kMovedGrain / (kh_ * w_));
    parallel_for(context_.threads, rows_, grain, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const float* first = x + (row / per_plane_ * h_ + row % per_plane_ * kh_) * w_;
        float* to = y + row * ow_;
        for (int64_t j = 0; j < ow_; ++j) {
          float sum = 0;
          for (int64_t r = 0; r < kh_; ++r)
            for (int64_t k = 0; k < kw_; ++k) sum += first[r * w_ + j * kw_ + k];
          to[j] = sum * share;
        }
      }
    });
    return Status::ok();
  }
  std::string_view name() const override { return "cpu:avg_pool2d"; }

 private:
  Context& context_;
  int64_t rows_, per_plane_, h_, w_, ow_, kh_, kw_;  // rows_: of all outputs
};

std::unique_ptr<Kernel> make_avg_pool(Context& context, const Piece& piece) {
  if (!usable(piece)) return nullptr;
  const Layout& x = piece.inputs[0];
  const Shape& y = piece.output_type(0).shape;
  const Problem p(piece.nodes[0].attrs, x.dtype, x.shape, y, all_channels_last(piece));
  if (x.dtype == DType::f32 && x.shape[1] < SideBySide::kChannels && p.kernel == p.stride &&
      p.padding == memory::dims{0, 0})
    return std::make_unique<SideBySide>(context, x.shape, y, p.kernel[0], p.kernel[1]);
  return decline_on_error([&]() -> std::unique_ptr<Kernel> {
    const auto pd = p.forward(context);
    if (is_reference(pd.impl_info_str())) return nullptr;
    auto kernel = std::make_unique<DnnlKernel>(context, "onednn:avg_pool2d", piece, dnnl::pooling_forward(pd),
                                               pd.scratchpad_desc());
    kernel->input(0, DNNL_ARG_SRC, p.x);
    kernel->output(0, DNNL_ARG_DST, p.y);
    return kernel;
  });
}

// dy -> dx
std::unique_ptr<Kernel> make_avg_pool_grad(Context& context, const Piece& piece) {
  if (!usable(piece)) return nullptr;
  const Layout& dy = piece.inputs[0];
  const Problem p(piece.nodes[0].attrs, dy.dtype, piece.output_type(0).shape, dy.shape,
                  all_channels_last(piece));
  return decline_on_error([&]() -> std::unique_ptr<Kernel> {
    const dnnl::pooling_backward::primitive_desc pd(dnnl_state(context).engine, Problem::kAlgorithm, p.x, p.y,
                                                    p.stride, p.kernel, Problem::kDense, p.padding, p.padding,
                                                    p.forward(context), dnnl_attributes());
    if (is_reference(pd.impl_info_str())) return nullptr;
    auto kernel = std::make_unique<DnnlKernel>(context, "onednn:avg_pool2d_grad", piece,
                                               dnnl::pooling_backward(pd), pd.scratchpad_desc());
    kernel->input(0, DNNL_ARG_DIFF_DST, p.y);
    kernel->output(0, DNNL_ARG_DIFF_SRC, p.x);
    return kernel;
  });
}

ChannelsLast layout_of(Context& context, const Piece& piece) {
  const bool dnnl = piece.inputs[0].shape[1] >= SideBySide::kChannels && make_avg_pool(context, piece);
  return dnnl ? ChannelsLast::keeps : ChannelsLast::never;
}

// Where windows overlap, oneDNN adds their gradients up in an order that depends on the layout.
ChannelsLast layout_of_grad(Context& context, const Piece& piece) {
  if (!usable(piece)) return ChannelsLast::never;
  const TensorType& x = piece.output_type(0);
  const Problem p(piece.nodes[0].attrs, x.dtype, x.shape, piece.inputs[0].shape, false);
  const bool apart = p.kernel[0] <= p.stride[0] && p.kernel[1] <= p.stride[1];
  return apart && make_avg_pool_grad(context, piece) ? ChannelsLast::keeps : ChannelsLast::never;
}

}  // namespace

std::span<const KernelEntry> avg_pool_kernels() {
  static constexpr KernelEntry entries[] = {
      {"avg_pool2d/1", make_avg_pool, all_contiguous, layout_of},
      {"avg_pool2d_grad/1", make_avg_pool_grad, all_contiguous, layout_of_grad},
  };
  return entries;
}

}  // namespace tenon::cpu
