// The fallback: an op's plain kernel on views made from the piece's layouts.
#include <cassert>

#include "backends/cpu/kernels.h"

namespace tenon::cpu {
namespace {

class PlainPieceKernel final : public Kernel {
 public:
  explicit PlainPieceKernel(const Piece& piece)
      : name_("plain:" + std::string(piece.nodes.back().op.substr(0, piece.nodes.back().op.rfind('/')))) {
    for (size_t n = 0; n < piece.nodes.size(); ++n) {
      const PieceNode& node = piece.nodes[n];
      Step& step = steps_.emplace_back(node.plain, OwnedAttrs(node.attrs));
      for (const int in : node.inputs) {
        if (in >= 0)
          step.in.emplace_back(piece.inputs[static_cast<size_t>(in)], nullptr);
        else
          step.in.emplace_back(Layout(piece.nodes[static_cast<size_t>(~in)].outputs[0]), nullptr);
        step.from.push_back(in);
      }
      for (size_t o = 0; o < node.outputs.size(); ++o) {
        step.out.emplace_back(Layout(node.outputs[o]), nullptr);
        step.to.push_back(output_of(piece, n, o));
        if (step.to.back() < 0) {
          step.to.back() = ~static_cast<int64_t>(scratch_);
          scratch_ += (step.out.back().size_bytes() + 63) & ~size_t{63};
        }
      }
    }
  }

  Status run(std::span<void* const> in, std::span<void* const> out, void* scratch) override {
    for (Step& step : steps_) {
      for (size_t i = 0; i < step.in.size(); ++i)
        step.in[i].data = step.from[i] >= 0 ? in[static_cast<size_t>(step.from[i])]
                                            : steps_[static_cast<size_t>(~step.from[i])].out[0].data;
      for (size_t o = 0; o < step.out.size(); ++o)
        step.out[o].data = step.to[o] >= 0 ? out[static_cast<size_t>(step.to[o])]
                                           : static_cast<std::byte*>(scratch) + ~step.to[o];
      TN_RETURN_IF_ERROR(step.plain({step.in, step.out, step.attrs.get()}));
    }
    return Status::ok();
  }
  size_t scratch_bytes() const override { return scratch_; }
  std::string_view name() const override { return name_; }

 private:
  struct Step {
    Step(PlainKernel p, OwnedAttrs a) : plain(p), attrs(std::move(a)) {}
    PlainKernel plain;
    OwnedAttrs attrs;
    std::vector<View> in, out;
    std::vector<int> from;    // as PieceNode::inputs
    std::vector<int64_t> to;  // output of the piece, or ~offset in scratch
  };

  // Which of the piece's outputs output o of node n is, or -1. Inner results that are wanted outside more
  // than once don't occur: a value is one output.
  static int64_t output_of(const Piece& piece, size_t n, size_t o) {
    for (size_t k = 0; k < piece.outputs.size(); ++k)
      if (piece.outputs[k].node == static_cast<int>(n) && piece.outputs[k].index == static_cast<int>(o))
        return static_cast<int64_t>(k);
    return -1;
  }

  std::string name_;
  std::vector<Step> steps_;
  size_t scratch_ = 0;
};

}  // namespace

std::unique_ptr<Kernel> make_plain_kernel(const Piece& piece) {
  return std::make_unique<PlainPieceKernel>(piece);
}

}  // namespace tenon::cpu
