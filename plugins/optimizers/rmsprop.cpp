// RMSprop, as PyTorch's.
//
//   g = grad + weight_decay p
//   v = alpha v + (1 - alpha) g^2
//   centered:  a = alpha a + (1 - alpha) g,  d = sqrt(v - a^2) + eps;   otherwise d = sqrt(v) + eps
//   momentum:  b = momentum b + g / d,  p = p - lr b;                   otherwise p = p - lr g / d
//
// Tieleman & Hinton 2012, lecture 6.5; centered: Graves 2013, arXiv 1308.0850, section 4.2.
#include "tenon_plugin.hpp"

namespace {

class RmsProp {
 public:
  static constexpr bool elementwise = true;

  explicit RmsProp(tn::Setup& s)
      : alpha_(s.real("alpha", 0.99, "decay of the mean of squared gradients").at_least(0).below(1)),
        eps_(s.real("eps", 1e-8, "added to the root").at_least(0)),
        momentum_(s.real("momentum", 0, "share of the last update that is kept").at_least(0).below(1)),
        weight_decay_(s.real("weight_decay", 0, "L2 penalty, added to the gradient").at_least(0)),
        centered_(
            s.flag("centered", false, "divide by the standard deviation instead of the root mean square")) {
    s.real("lr", 1e-2, "learning rate").at_least(0).finite();
  }

  void init(tn::Init& i) const {
    i.per_param("v");
    if (centered_) i.per_param("a");
    if (momentum_ > 0) i.per_param("momentum");
  }

  void step(tn::Step& s) const {
    for (tn::Param p : s) {
      tn::Tensor g = p.grad();
      if (weight_decay_ > 0) g = g + p.value() * weight_decay_;
      tn::Tensor v = p["v"] * alpha_ + square(g) * (1 - alpha_);
      p["v"] = v;
      if (centered_) {
        const tn::Tensor a = p["a"] * alpha_ + g * (1 - alpha_);
        p["a"] = a;
        v = relu(v - square(a));  // rounding must not make a variance negative
      }
      tn::Tensor update = g / (sqrt(v) + eps_);
      if (momentum_ > 0) p["momentum"] = update = p["momentum"] * momentum_ + update;
      p.update(p.value() - update * s.lr());
    }
  }

 private:
  double alpha_, eps_, momentum_, weight_decay_;
  bool centered_;
};

}  // namespace

TN_PLUGIN("Tenon", "1.0", tn::optimizer<RmsProp>("rmsprop", "RMSprop", "Tieleman & Hinton 2012, lecture 6.5"))
