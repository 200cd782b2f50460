// A piece that can't run as one kernel: its nodes' own kernels in order. The results are those of separate
// pieces.
#include <algorithm>
#include <cstring>

#include "backends/cpu/kernels.h"

namespace tenon::cpu {
namespace {

// Where an operand or result lies at run time.
struct Place {
  bool input = false;
  size_t at = 0;  // index of an input, or byte offset in scratch
};

class SequenceKernel final : public Kernel {
 public:
  static Result<std::unique_ptr<Kernel>> make(Backend& backend, const Piece& piece) {
    auto kernel = std::make_unique<SequenceKernel>();
    std::vector<std::vector<Place>> results;  // of each node
    for (size_t n = 0; n < piece.nodes.size(); ++n) {
      const PieceNode& node = piece.nodes[n];
      Piece single;
      Step step;
      for (const int i : node.inputs) {
        if (i >= 0) {
          single.inputs.push_back(piece.inputs[static_cast<size_t>(i)]);
          step.in.push_back({true, static_cast<size_t>(i)});
        } else {
          single.inputs.emplace_back(piece.nodes[static_cast<size_t>(~i)].outputs[0]);
          step.in.push_back(results[static_cast<size_t>(~i)][0]);
        }
      }
      single.nodes.push_back(node);
      for (size_t i = 0; i < node.inputs.size(); ++i) single.nodes[0].inputs[i] = static_cast<int>(i);
      for (size_t o = 0; o < node.outputs.size(); ++o) {
        single.outputs.push_back({0, static_cast<int>(o)});
        step.out.push_back({false, kernel->values_});
        kernel->values_ += align64(Layout(node.outputs[o]).size_bytes());
      }
      TN_ASSIGN(step.kernel, backend.compile(single));
      results.push_back(step.out);
      kernel->inner_ = std::max(kernel->inner_, step.kernel->scratch_bytes());
      kernel->steps_.push_back(std::move(step));
    }
    // An output may share its memory with an input that a later node reads: all are written at the end.
    for (size_t k = 0; k < piece.outputs.size(); ++k)
      kernel->results_.push_back(
          {results[static_cast<size_t>(piece.outputs[k].node)][static_cast<size_t>(piece.outputs[k].index)]
               .at,
           Layout(piece.output_type(k)).size_bytes()});
    kernel->name_ = "sequence:" + std::string(piece.nodes.back().op);
    return std::unique_ptr<Kernel>(std::move(kernel));
  }

  Status run(std::span<void* const> in, std::span<void* const> out, void* scratch) override {
    std::byte* const base = static_cast<std::byte*>(scratch);
    const auto address = [&](const Place& p) -> void* { return p.input ? in[p.at] : base + p.at; };
    for (Step& step : steps_) {
      in_.clear();
      out_.clear();
      for (const Place& p : step.in) in_.push_back(address(p));
      for (const Place& p : step.out) out_.push_back(address(p));
      TN_RETURN_IF_ERROR(step.kernel->run(in_, out_, base + values_));
    }
    for (size_t k = 0; k < results_.size(); ++k)
      if (results_[k].bytes) std::memcpy(out[k], base + results_[k].at, results_[k].bytes);
    return Status::ok();
  }
  size_t scratch_bytes() const override { return values_ + inner_; }
  std::string_view name() const override { return name_; }

 private:
  struct Step {
    std::unique_ptr<Kernel> kernel;
    std::vector<Place> in, out;
  };
  struct Copy {
    size_t at, bytes;
  };
  std::string name_;
  std::vector<Step> steps_;
  std::vector<Copy> results_;
  std::vector<void*> in_, out_;    // addresses of the step at hand
  size_t values_ = 0, inner_ = 0;  // scratch for inner results, and for the kernels themselves
};

}  // namespace

Result<std::unique_ptr<Kernel>> make_sequence_kernel(Backend& backend, const Piece& piece) {
  return SequenceKernel::make(backend, piece);
}

}  // namespace tenon::cpu
