// The fallback: an op's plain kernel on views made from the piece's layouts.
#include "backends/cpu/kernels.h"
#include "backends/cpu/parallel.h"

namespace tenon::cpu {
namespace {

// For kernels of plugins, which know nothing of these threads.
void in_pieces(int threads, int64_t n, int64_t grain, void (*body)(void*, int64_t, int64_t), void* user) {
  parallel_for(threads, n, grain, [&](int64_t begin, int64_t end) { body(user, begin, end); });
}

class PlainPieceKernel final : public Kernel {
 public:
  PlainPieceKernel(const Context& context, const Piece& piece)
      : context_(context),
        name_("plain:" + std::string(piece.nodes[0].op.substr(0, piece.nodes[0].op.rfind('/')))),
        plain_(piece.nodes[0].plain),
        attrs_(piece.nodes[0].attrs),
        places_(piece) {
    const PieceNode& node = piece.nodes[0];
    for (const int i : node.inputs) {
      from_.push_back(static_cast<size_t>(i));
      in_.emplace_back(piece.inputs[static_cast<size_t>(i)], nullptr);
    }
    for (const TensorType& type : node.outputs) out_.emplace_back(Layout(type), nullptr);
  }

  Status run(std::span<void* const> in, std::span<void* const> out, void* scratch) override {
    for (size_t i = 0; i < in_.size(); ++i) in_[i].data = in[from_[i]];
    for (size_t o = 0; o < out_.size(); ++o) out_[o].data = places_.address(o, out, scratch);
    return plain_({in_, out_, attrs_.get(), context_.threads, in_pieces});
  }
  size_t scratch_bytes() const override { return places_.scratch_bytes(); }
  std::string_view name() const override { return name_; }

 private:
  const Context& context_;
  std::string name_;
  PlainKernel plain_;
  OwnedAttrs attrs_;
  std::vector<View> in_, out_;
  std::vector<size_t> from_;
  OutputPlaces places_;
};

}  // namespace

std::unique_ptr<Kernel> make_plain_kernel(const Context& context, const Piece& piece) {
  return std::make_unique<PlainPieceKernel>(context, piece);
}

}  // namespace tenon::cpu
