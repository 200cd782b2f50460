// conv2d and its two derivatives on oneDNN, which computes them channels-last: on these processors that is as
// fast as its own blocked layouts or faster, and to the rest of a graph it is a matter of strides. Row-major
// tensors are reordered on the way, so that the bits are the same.
#include <array>
#include <cstring>

#include "backends/cpu/dnnl_call.h"
#include "core/tensor/channels_last.h"

namespace tenon::cpu {
namespace {

using dnnl::memory;
using dnnl::prop_kind;

struct Geometry {
  memory::dims stride{1, 1}, dilation{0, 0}, low{0, 0}, high{0, 0};
  int64_t groups = 1;

  explicit Geometry(const Attrs& attrs) : groups(attrs.i("groups")) {
    const auto s = attrs.ints("stride"), d = attrs.ints("dilation"), p = attrs.ints("padding");
    if (!s.empty()) stride = {s[0], s[1]};
    if (!d.empty()) dilation = {d[0] - 1, d[1] - 1};  // oneDNN counts the gaps
    if (!p.empty()) low = {p[0], p[1]};
    if (!p.empty()) high = p.size() == 4 ? memory::dims{p[2], p[3]} : low;
  }
};

memory::dims dims_of(const Shape& s) { return {s.begin(), s.end()}; }

// [O, C/groups, kh, kw], or with groups [groups, O/groups, C/groups, kh, kw].
memory::dims weight_dims(const Shape& w, int64_t groups) {
  if (groups == 1) return dims_of(w);
  return {groups, w[0] / groups, w[1], w[2], w[3]};
}

memory::desc row_major(const memory::dims& dims, memory::data_type type) {
  memory::dims strides(dims.size(), 1);
  for (size_t i = dims.size() - 1; i > 0; --i) strides[i - 1] = strides[i] * dims[i];
  return {dims, type, strides};
}

memory::desc channels_last(const memory::dims& dims, memory::data_type type) {
  const Strides s = channels_last_strides(Shape(Dims(std::span(dims))));
  return {dims, type, memory::dims(s.begin(), s.end())};
}

// A convolution primitive with its three tensors; the last is the result.
class ConvKernel final : public Kernel {
 public:
  ConvKernel(Context& context, std::string_view name) : context_(context), name_(name) {}

  void set_primitive(dnnl::primitive primitive, const memory::desc& scratchpad) {
    call_ = DnnlCall(context_, std::move(primitive));
    scratchpad_argument_ = call_.add(DNNL_ARG_SCRATCHPAD, scratchpad);
    scratch_ = align64(scratchpad.get_size());
  }
  // The scratchpad of the primitive that was set, before each run; to be called before tensors are set.
  void zero_scratchpad() { zeroed_ = scratch_; }
  // `chosen`: as the primitive takes it; `given`: as it lies in memory.
  void set_tensor(size_t i, int dnnl_arg, const memory::desc& chosen, const memory::desc& given) {
    Tensor& t = tensors_[i];
    t.argument = call_.add(dnnl_arg, chosen);
    if (chosen == given) return;
    t.reordered = true;
    t.at = scratch_;
    scratch_ += align64(chosen.get_size());
    const dnnl::engine& engine = dnnl_state(context_).engine;
    const memory::desc &from = i == 2 ? chosen : given, &to = i == 2 ? given : chosen;
    t.reorder = DnnlCall(context_, dnnl::reorder(dnnl::reorder::primitive_desc(engine, from, engine, to)));
    t.reorder.add(DNNL_ARG_FROM, from);
    t.reorder.add(DNNL_ARG_TO, to);
  }

  Status run(std::span<void* const> in, std::span<void* const> out, void* scratch) override {
    std::byte* const base = static_cast<std::byte*>(scratch);
    call_.set(scratchpad_argument_, scratch);
    if (zeroed_ > 0) std::memset(scratch, 0, zeroed_);
    void* const addresses[3] = {in[0], in[1], out[0]};
    for (size_t i = 0; i < 3; ++i) {
      Tensor& t = tensors_[i];
      call_.set(t.argument, t.reordered ? base + t.at : addresses[i]);
      if (!t.reordered) continue;
      t.reorder.set(i == 2 ? 1 : 0, addresses[i]);
      t.reorder.set(i == 2 ? 0 : 1, base + t.at);
      if (i < 2) TN_RETURN_IF_ERROR(t.reorder.run());
    }
    TN_RETURN_IF_ERROR(call_.run());
    return tensors_[2].reordered ? tensors_[2].reorder.run() : Status::ok();
  }
  size_t scratch_bytes() const override { return scratch_; }
  std::string_view name() const override { return name_; }

 private:
  struct Tensor {
    size_t argument = 0, at = 0;
    bool reordered = false;
    DnnlCall reorder;
  };
  Context& context_;
  std::string_view name_;
  DnnlCall call_;
  std::array<Tensor, 3> tensors_;
  size_t scratchpad_argument_ = 0, scratch_ = 0, zeroed_ = 0;
};

// The problem as oneDNN describes it: shapes of x, w and y, whichever of them are inputs.
struct Problem {
  memory::dims x, w, y;
  memory::data_type type;
  Geometry g;

  memory::desc image(const memory::dims& d) const { return channels_last(d, type); }
  memory::desc weights() const { return {w, type, memory::format_tag::any}; }
  memory::desc given_weights(const Layout& l) const {
    Strides s = is_channels_last(l) ? l.strides : l.shape.strides();
    if (g.groups > 1) s.insert(0, s[0] * w[1]);
    return {w, type, memory::dims(s.begin(), s.end())};
  }
  // x or y as it lies in memory. Where both layouts are one, oneDNN need not know.
  memory::desc given_image(const memory::dims& d, bool last) const {
    return last || !has_channels_last(Shape(Dims(std::span(d)))) ? image(d) : row_major(d, type);
  }
  dnnl::convolution_forward::primitive_desc forward(Context& context, prop_kind kind,
                                                    const dnnl::primitive_attr& attr = {}) const {
    return {dnnl_state(context).engine,
            kind,
            dnnl::algorithm::convolution_direct,
            image(x),
            weights(),
            image(y),
            g.stride,
            g.dilation,
            g.low,
            g.high,
            attr};
  }
};

bool usable(const Piece& piece) {
  return dnnl_type(piece.inputs[0].dtype) && all_scattered(piece) == 0 && piece.inputs[0].numel() > 0 &&
         piece.inputs[1].numel() > 0 && Layout(piece.output_type(0)).numel() > 0;
}

std::unique_ptr<Kernel> make_conv(Context& context, const Piece& piece) {
  if (!usable(piece)) return nullptr;
  const Geometry g(piece.nodes[0].attrs);
  const Problem p{dims_of(piece.inputs[0].shape), weight_dims(piece.inputs[1].shape, g.groups),
                  dims_of(piece.output_type(0).shape), *dnnl_type(piece.inputs[0].dtype), g};
  return decline_on_error([&]() -> std::unique_ptr<Kernel> {
    const auto pd = p.forward(context, prop_kind::forward_training, dnnl_attributes());
    if (is_reference(pd.impl_info_str())) return nullptr;
    auto kernel = std::make_unique<ConvKernel>(context, "onednn:conv2d");
    kernel->set_primitive(dnnl::convolution_forward(pd), pd.scratchpad_desc());
    kernel->set_tensor(0, DNNL_ARG_SRC, pd.src_desc(), p.given_image(p.x, is_channels_last(piece.inputs[0])));
    kernel->set_tensor(1, DNNL_ARG_WEIGHTS, pd.weights_desc(), p.given_weights(piece.inputs[1]));
    kernel->set_tensor(2, DNNL_ARG_DST, pd.dst_desc(), p.given_image(p.y, piece.outputs[0].channels_last));
    return kernel;
  });
}

// w, dy -> dx
std::unique_ptr<Kernel> make_input_grad(Context& context, const Piece& piece) {
  if (!usable(piece)) return nullptr;
  const Geometry g(piece.nodes[0].attrs);
  const Problem p{dims_of(piece.output_type(0).shape), weight_dims(piece.inputs[0].shape, g.groups),
                  dims_of(piece.inputs[1].shape), *dnnl_type(piece.inputs[0].dtype), g};
  return decline_on_error([&]() -> std::unique_ptr<Kernel> {
    const dnnl::convolution_backward_data::primitive_desc pd(
        dnnl_state(context).engine, dnnl::algorithm::convolution_direct, p.image(p.x), p.weights(),
        p.image(p.y), g.stride, g.dilation, g.low, g.high, p.forward(context, prop_kind::forward_training),
        dnnl_attributes());
    if (is_reference(pd.impl_info_str())) return nullptr;
    auto kernel = std::make_unique<ConvKernel>(context, "onednn:conv2d_input_grad");
    kernel->set_primitive(dnnl::convolution_backward_data(pd), pd.scratchpad_desc());
    kernel->set_tensor(0, DNNL_ARG_WEIGHTS, pd.weights_desc(), p.given_weights(piece.inputs[0]));
    kernel->set_tensor(1, DNNL_ARG_DIFF_DST, pd.diff_dst_desc(),
                       p.given_image(p.y, is_channels_last(piece.inputs[1])));
    kernel->set_tensor(2, DNNL_ARG_DIFF_SRC, pd.diff_src_desc(),
                       p.given_image(p.x, piece.outputs[0].channels_last));
    return kernel;
  });
}

// x, dy -> dw
std::unique_ptr<Kernel> make_weight_grad(Context& context, const Piece& piece) {
  if (!usable(piece)) return nullptr;
  const Geometry g(piece.nodes[0].attrs);
  const Problem p{dims_of(piece.inputs[0].shape), weight_dims(piece.output_type(0).shape, g.groups),
                  dims_of(piece.inputs[1].shape), *dnnl_type(piece.inputs[0].dtype), g};
  return decline_on_error([&]() -> std::unique_ptr<Kernel> {
    // Channels-last, oneDNN 3.2 sums these wrongly for some small shapes.
    const bool blocked = p.w.back() == 1 && p.w[p.w.size() - 2] == 1 && g.stride != memory::dims{1, 1};
    const auto image = [&](const memory::dims& d) {
      return blocked ? memory::desc(d, p.type, memory::format_tag::any) : p.image(d);
    };
    const dnnl::convolution_backward_weights::primitive_desc pd(
        dnnl_state(context).engine, dnnl::algorithm::convolution_direct, image(p.x), p.weights(), image(p.y),
        g.stride, g.dilation, g.low, g.high, p.forward(context, prop_kind::forward_training),
        dnnl_attributes());
    if (is_reference(pd.impl_info_str())) return nullptr;
    auto kernel = std::make_unique<ConvKernel>(context, "onednn:conv2d_weight_grad");
    kernel->set_primitive(dnnl::convolution_backward_weights(pd), pd.scratchpad_desc());
    // oneDNN 3.2 reads scratch memory that it has not written where a kernel is 1x1.
    if (piece.output_type(0).shape[2] == 1 && piece.output_type(0).shape[3] == 1) kernel->zero_scratchpad();
    kernel->set_tensor(0, DNNL_ARG_SRC, pd.src_desc(), p.given_image(p.x, is_channels_last(piece.inputs[0])));
    kernel->set_tensor(1, DNNL_ARG_DIFF_DST, pd.diff_dst_desc(),
                       p.given_image(p.y, is_channels_last(piece.inputs[1])));
    kernel->set_tensor(2, DNNL_ARG_DIFF_WEIGHTS, pd.diff_weights_desc(),
                       p.given_weights(Layout(piece.output_type(0))));
    return kernel;
  });
}

// What oneDNN can compute it computes channels-last.
template <KernelFactory kMake, ChannelsLast kMode>
ChannelsLast layout_of(Context& context, const Piece& piece) {
  return kMake(context, piece) ? kMode : ChannelsLast::never;
}

}  // namespace

std::span<const KernelEntry> conv_kernels() {
  static constexpr KernelEntry entries[] = {
      {"conv2d/1", make_conv, all_scattered, layout_of<make_conv, ChannelsLast::prefers>},
      {"conv2d_input_grad/1", make_input_grad, all_scattered,
       layout_of<make_input_grad, ChannelsLast::prefers>},
      {"conv2d_weight_grad/1", make_weight_grad, all_scattered,
       layout_of<make_weight_grad, ChannelsLast::reads>},
  };
  return entries;
}

}  // namespace tenon::cpu
