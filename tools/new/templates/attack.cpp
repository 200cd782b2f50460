// my_plugin: which perturbed input it looks for, in a sentence.
//
//   Authors Year, "Title", arXiv 0000.00000, equation (1)
//
// input x, its loss l(x), size e
//
//   x_adv = x + e sign(dl / dx)      one signed step of gradient ascent
//
// This is an example that works: replace the formula and the options by yours.
#include "tenon_plugin.hpp"

namespace {

using tn::Tensor;

class MyPlugin {
 public:
  explicit MyPlugin(tn::Setup& s) : size_(s.real("size", 0.1, "e, in the units of the input").at_least(0).finite()) {
    s.input("input", "[B, ..]");
  }

  // `target` is the recipe's loss as a function of the model's input; it may be called as often as you like.
  void build(tn::Build& b, const tn::Target& target) const {
    const Tensor x = b["input"];
    const Tensor slope = grad(sum(target(x).per_sample), x);
    b.emit("x_adv", x + sign(slope) * size_);
  }

 private:
  double size_;
};

}  // namespace

TN_PLUGIN("Me", "1.0", tn::attack<MyPlugin>("my_plugin", "One signed step of gradient ascent", "Authors Year, arXiv 0000.00000"))
