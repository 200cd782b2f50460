// my_plugin: what the weights of the samples are for, in a sentence.
//
//   Authors Year, "Title", arXiv 0000.00000, equation (1)
//
// losses l_i of a batch of B samples, temperature r > 0
//
//   w_i = exp(l_i / r) / sum_j exp(l_j / r)      the step minimises sum_i w_i l_i; the weights are constants
//
// This is an example that works: replace the formula, the options and the inputs by yours.
#include "tenon_plugin.hpp"

namespace {

using tn::Tensor;

class MyPlugin {
 public:
  // Declares options (each yields its value) and inputs; `labels` or `sample_ids` could be others.
  explicit MyPlugin(tn::Setup& s) : temperature_(s.real("temperature", 1, "r; large values are the mean").above(0).finite()) {
    s.input("losses", "[B] before reduction").rank(1);
  }

  void build(tn::Build& b) const {
    const Tensor w = softmax(b["losses"] / temperature_);
    b.emit("weights", w);
    b.metric("largest_weight", max(w));
  }

 private:
  double temperature_;
};

}  // namespace

TN_PLUGIN("Me", "1.0", tn::reweighter<MyPlugin>("my_plugin", "Weights that grow with the loss", "Authors Year, arXiv 0000.00000"))
