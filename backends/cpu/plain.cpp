// The fallback: an op's plain kernel on views made from the piece's layouts.
#include "backends/cpu/kernels.h"

namespace tenon::cpu {
namespace {

class PlainPieceKernel final : public Kernel {
 public:
  explicit PlainPieceKernel(const Piece& piece)
      : name_("plain:" + std::string(piece.nodes[0].op.substr(0, piece.nodes[0].op.rfind('/')))),
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
    return plain_({in_, out_, attrs_.get()});
  }
  size_t scratch_bytes() const override { return places_.scratch_bytes(); }
  std::string_view name() const override { return name_; }

 private:
  std::string name_;
  PlainKernel plain_;
  OwnedAttrs attrs_;
  std::vector<View> in_, out_;
  std::vector<size_t> from_;
  OutputPlaces places_;
};

}  // namespace

std::unique_ptr<Kernel> make_plain_kernel(const Piece& piece) {
  return std::make_unique<PlainPieceKernel>(piece);
}

}  // namespace tenon::cpu
