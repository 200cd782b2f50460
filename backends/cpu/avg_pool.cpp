// Average pooling and its derivative on oneDNN; f32 and bf16.
#include "backends/cpu/dnnl_call.h"

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

  Problem(const Attrs& attrs, DType t, const Shape& x_shape, const Shape& y_shape)
      : x(dnnl_desc(Layout(TensorType{t, x_shape}))), y(dnnl_desc(Layout(TensorType{t, y_shape}))) {
    const auto k = attrs.ints("kernel"), s = attrs.ints("stride"), p = attrs.ints("padding");
    kernel = {k[0], k[1]};
    stride = s.empty() ? kernel : memory::dims{s[0], s[1]};
    if (!p.empty()) padding = {p[0], p[1]};
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
  return dnnl_type(piece.inputs[0].dtype) && inputs_contiguous(piece) && piece.inputs[0].numel() > 0;
}

std::unique_ptr<Kernel> make_avg_pool(Context& context, const Piece& piece) {
  if (!usable(piece)) return nullptr;
  const Layout& x = piece.inputs[0];
  const Problem p(piece.nodes[0].attrs, x.dtype, x.shape, piece.output_type(0).shape);
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
  const Problem p(piece.nodes[0].attrs, dy.dtype, piece.output_type(0).shape, dy.shape);
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

}  // namespace

std::span<const KernelEntry> avg_pool_kernels() {
  static constexpr KernelEntry entries[] = {
      {"avg_pool2d/1", make_avg_pool, all_contiguous},
      {"avg_pool2d_grad/1", make_avg_pool_grad, all_contiguous},
  };
  return entries;
}

}  // namespace tenon::cpu
