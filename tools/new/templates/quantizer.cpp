// my_plugin: on which grid the values come to lie, in a sentence.
//
//   Authors Year, "Title", arXiv 0000.00000, equation (1)
//
// tensor x of one place of the model, trained step s, n bits
//
//   y = s clamp(round(x / s), -2^(n-1), 2^(n-1) - 1)      backward as if round were the identity
//
// This is an example that works: replace the formula, the options and what is trained by yours.
#include <cmath>

#include "tenon_plugin.hpp"

namespace {

using tn::Tensor;

class MyPlugin {
 public:
  explicit MyPlugin(tn::Setup& s) : levels_(std::exp2(static_cast<double>(s.integer("bits", 8, "n").at_least(2).at_most(16)) - 1)) {
    s.input("x", "[B, C] weights or activations, of any shape");
  }

  // One instance serves one place, which `site` describes. The first x decides where the step starts.
  void init(tn::Init& i, const tn_site&) const {
    const Tensor x = i["x"];
    const double largest = x.numel() > 0 ? value(max(abs(x))) : 1;
    i.trainable("step", {}, largest > 0 ? largest / levels_ : 1, x.dtype());
  }

  void build(tn::Build& b, const tn_site&) const {
    const Tensor x = b["x"], step = b.state("step");
    b.emit("y", clamp(round_ste(x / step), -levels_, levels_ - 1) * step);
  }

 private:
  double levels_;
};

}  // namespace

TN_PLUGIN("Me", "1.0", tn::quantizer<MyPlugin>("my_plugin", "Whole multiples of a trained step", "Authors Year, arXiv 0000.00000"))
