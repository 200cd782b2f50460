// my_plugin: what it measures, in a sentence.
//
//   Authors Year, "Title", arXiv 0000.00000, equation (1)
//
// prediction p and target t, [B, ..]; error e = p - t; scale s > 0
//
//   loss = mean of s log(1 + e^2 / s)      squared error that flattens at errors of about sqrt(s)
//
// This is an example that works: replace the formula, the options and the inputs by yours.
#include "tenon_plugin.hpp"

namespace {

using tn::Tensor;

class MyPlugin {
 public:
  // Declares options (each yields its value) and inputs. It runs when the plugin is described, and for each instance.
  // Begin the help of an input with its shape: people read it, and `tenon validate` makes inputs of it.
  explicit MyPlugin(tn::Setup& s) : scale_(s.real("scale", 1, "squared error at which it flattens").above(0).finite()) {
    s.input("prediction", "[B, ..]");
    s.input("target", "[B, ..]");
  }

  // Appends the loss to the graph of a step. Derivatives, fusion and devices are the host's work.
  void build(tn::Build& b) const {
    const Tensor error = b["prediction"] - b["target"];
    if (error.rank() == 0) throw tn::Error("the prediction must have a row for each sample");  // an error in a sentence
    b.metric("largest_error", max(abs(error)));                                                // logged beside the loss
    b.loss(mean(log1p(square(error) / scale_)) * scale_);
  }

 private:
  double scale_;
};

}  // namespace

TN_PLUGIN("Me", "1.0", tn::loss<MyPlugin>("my_plugin", "Squared error that flattens", "Authors Year, arXiv 0000.00000"))
