// Stochastic gradient descent with momentum, as PyTorch's SGD.
//
//   g = grad + weight_decay p
//   m = momentum m + (1 - dampening) g        (first step: m = g)
//   p = p - lr (g + momentum m if nesterov, else m)
//
// Sutskever et al. 2013, "On the importance of initialization and momentum in deep learning".
#include "tenon_plugin.hpp"

namespace {

class Sgd {
 public:
  static constexpr bool elementwise = true;

  explicit Sgd(tn::Setup& s)
      : momentum_(s.real("momentum", 0, "share of the last update that is kept").at_least(0).below(1)),
        dampening_(s.real("dampening", 0, "damping of the gradient in the momentum").at_least(0).at_most(1)),
        weight_decay_(s.real("weight_decay", 0, "L2 penalty, added to the gradient").at_least(0)),
        nesterov_(s.flag("nesterov", false, "look-ahead momentum")) {
    s.real("lr", 1e-3, "learning rate").at_least(0).finite();
    if (nesterov_ && (momentum_ == 0 || dampening_ != 0))
      throw tn::Error("nesterov needs momentum > 0 and dampening = 0");
  }

  void init(tn::Init& i) const {
    if (momentum_ > 0) i.per_param("momentum");
  }

  void step(tn::Step& s) const {
    // A number, not a branch: the first step has the same structure as the others.
    const double fresh = s.count() == 1 ? 1 : 1 - dampening_;
    for (tn::Param p : s) {
      tn::Tensor g = p.grad();
      if (weight_decay_ > 0) g = g + p.value() * weight_decay_;
      if (momentum_ > 0) {
        const tn::Tensor m = p["momentum"] * momentum_ + g * fresh;
        p["momentum"] = m;
        g = nesterov_ ? g + m * momentum_ : m;
      }
      p.update(p.value() - g * s.lr());
    }
  }

 private:
  double momentum_, dampening_, weight_decay_;
  bool nesterov_;
};

}  // namespace

TN_PLUGIN("Tenon", "1.0",
          tn::optimizer<Sgd>("sgd", "Stochastic gradient descent with momentum",
                             "Sutskever et al. 2013, ICML"))
