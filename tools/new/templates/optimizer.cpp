// my_plugin: how it steps, in a sentence.
//
//   Authors Year, "Title", arXiv 0000.00000, algorithm 1
//
// parameter w, gradient g, momentum m, rate a, decay b
//
//   m <- b m + g
//   w <- w - a m
//
// This is an example that works: replace the formula, the options and the slots by yours.
#include "tenon_plugin.hpp"

namespace {

using tn::Tensor;

class MyPlugin {
 public:
  // Every optimizer has a real option "lr"; with the recipe's schedule it arrives as step.lr().
  explicit MyPlugin(tn::Setup& s) : momentum_(s.real("momentum", 0.9, "b").at_least(0).below(1)) {
    s.real("lr", 0.01, "step size a").at_least(0).finite();
  }

  // Each element of a parameter depends on that element of gradient and slots only: the host may join all parameters.
  static constexpr bool elementwise = true;

  // What is kept from step to step: a tensor for each parameter, zero at first. The host saves and restores it.
  void init(tn::Init& i) const { i.per_param("m"); }

  void step(tn::Step& step) const {
    for (tn::Param p : step) {
      const Tensor m = p["m"] * momentum_ + p.grad();
      p["m"] = m;
      p.update(p.value() - m * step.lr());
    }
  }

 private:
  double momentum_;
};

}  // namespace

TN_PLUGIN("Me", "1.0", tn::optimizer<MyPlugin>("my_plugin", "Gradient descent with momentum", "Authors Year, arXiv 0000.00000"))
