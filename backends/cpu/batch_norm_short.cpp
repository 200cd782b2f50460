// batch_norm and its derivative on oneDNN, for channels whose runs are too short for row loops, as [B, C];
// f32.
#include "backends/cpu/batch_norm.h"

#include "backends/cpu/dnnl_call.h"

namespace tenon::cpu {
namespace {

using dnnl::memory;

const auto kFlags = dnnl::normalization_flags::use_scale | dnnl::normalization_flags::use_shift;

// x as [B, C] or [B, C, R], and a vector of C.
struct Problem {
  memory::desc x, c;
  float eps;

  explicit Problem(const Piece& piece)
      : x(row_major(piece.inputs[0].shape)),
        c({piece.inputs[0].shape[1]}, memory::data_type::f32, memory::format_tag::a),
        eps(static_cast<float>(piece.nodes[0].attrs.f("eps"))) {}
  static memory::desc row_major(const Shape& s) {
    const int64_t run = s.numel() / (s[0] * s[1]);
    if (run == 1) return {{s[0], s[1]}, memory::data_type::f32, memory::format_tag::nc};
    return {{s[0], s[1], run}, memory::data_type::f32, memory::format_tag::ncw};
  }
  dnnl::batch_normalization_forward::primitive_desc forward(Context& context) const {
    return {dnnl_state(context).engine, dnnl::prop_kind::forward_training, x, x, eps, kFlags,
            dnnl_attributes()};
  }
};

}  // namespace

std::unique_ptr<Kernel> make_short_batch_norm(Context& context, const Piece& piece) {
  const Problem p(piece);
  return decline_on_error([&]() -> std::unique_ptr<Kernel> {
    const auto pd = p.forward(context);
    auto kernel = std::make_unique<DnnlKernel>(context, "onednn:batch_norm", piece,
                                               dnnl::batch_normalization_forward(pd), pd.scratchpad_desc());
    kernel->input(0, DNNL_ARG_SRC, p.x);
    kernel->input(1, DNNL_ARG_SCALE, p.c);
    kernel->input(2, DNNL_ARG_SHIFT, p.c);
    kernel->output(0, DNNL_ARG_DST, p.x);
    kernel->output(1, DNNL_ARG_MEAN, p.c);
    kernel->output(2, DNNL_ARG_VARIANCE, p.c);
    return kernel;
  });
}

// x, gamma, mean, var, dy -> dx, dgamma, dbeta
std::unique_ptr<Kernel> make_short_batch_norm_grad(Context& context, const Piece& piece) {
  const Problem p(piece);
  return decline_on_error([&]() -> std::unique_ptr<Kernel> {
    const dnnl::batch_normalization_backward::primitive_desc pd(
        dnnl_state(context).engine, dnnl::prop_kind::backward, p.x, p.x, p.x, p.eps, kFlags,
        p.forward(context), dnnl_attributes());
    auto kernel = std::make_unique<DnnlKernel>(context, "onednn:batch_norm_grad", piece,
                                               dnnl::batch_normalization_backward(pd), pd.scratchpad_desc());
    kernel->input(0, DNNL_ARG_SRC, p.x);
    kernel->input(1, DNNL_ARG_SCALE, p.c);
    kernel->input(2, DNNL_ARG_MEAN, p.c);
    kernel->input(3, DNNL_ARG_VARIANCE, p.c);
    kernel->input(4, DNNL_ARG_DIFF_DST, p.x);
    kernel->output(0, DNNL_ARG_DIFF_SRC, p.x);
    kernel->output(1, DNNL_ARG_DIFF_SCALE, p.c);
    kernel->output(2, DNNL_ARG_DIFF_SHIFT, p.c);
    return kernel;
  });
}

}  // namespace tenon::cpu
