// The fallback: an op's plain kernel on views made from the piece's layouts.
#include "backends/cpu/kernels.h"

namespace tenon::cpu {
namespace {

class PlainPieceKernel final : public Kernel {
 public:
  explicit PlainPieceKernel(const Piece& piece)
      : name_("plain:" + std::string(piece.nodes[0].op.substr(0, piece.nodes[0].op.rfind('/')))),
        plain_(piece.nodes[0].plain),
        attrs_(piece.nodes[0].attrs) {
    const PieceNode& node = piece.nodes[0];
    for (const int i : node.inputs) {
      from_.push_back(static_cast<size_t>(i));
      in_.emplace_back(piece.inputs[static_cast<size_t>(i)], nullptr);
    }
    // Outputs that nobody wants still need a place to be written to.
    for (size_t o = 0; o < node.outputs.size(); ++o) {
      out_.emplace_back(Layout(node.outputs[o]), nullptr);
      Place& place = to_.emplace_back();
      for (size_t k = 0; k < piece.outputs.size(); ++k)
        if (piece.outputs[k].index == static_cast<int>(o)) place = {true, k};
      if (place.wanted) continue;
      place.at = scratch_;
      scratch_ += (out_.back().size_bytes() + 63) & ~size_t{63};
    }
  }

  Status run(std::span<void* const> in, std::span<void* const> out, void* scratch) override {
    for (size_t i = 0; i < in_.size(); ++i) in_[i].data = in[from_[i]];
    for (size_t o = 0; o < out_.size(); ++o)
      out_[o].data = to_[o].wanted ? out[to_[o].at] : static_cast<std::byte*>(scratch) + to_[o].at;
    return plain_({in_, out_, attrs_.get()});
  }
  size_t scratch_bytes() const override { return scratch_; }
  std::string_view name() const override { return name_; }

 private:
  struct Place {
    bool wanted = false;
    size_t at = 0;  // index of the piece's output, or offset in scratch
  };
  std::string name_;
  PlainKernel plain_;
  OwnedAttrs attrs_;
  std::vector<View> in_, out_;
  std::vector<size_t> from_;
  std::vector<Place> to_;
  size_t scratch_ = 0;
};

}  // namespace

std::unique_ptr<Kernel> make_plain_kernel(const Piece& piece) { return std::make_unique<PlainPieceKernel>(piece); }

}  // namespace tenon::cpu
