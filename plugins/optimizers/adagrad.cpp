// Adagrad, as PyTorch's.
//
//   g = grad + weight_decay p
//   h = h + g^2                                           (h starts at initial_accumulator)
//   p = p - lr / (1 + (t - 1) lr_decay) g / (sqrt(h) + eps)
//
// Duchi, Hazan & Singer 2011, JMLR 12, figure 1 with diagonal matrices.
#include "tenon_plugin.hpp"

namespace {

class Adagrad {
 public:
  static constexpr bool elementwise = true;

  explicit Adagrad(tn::Setup& s)
      : eps_(s.real("eps", 1e-10, "added to the root").at_least(0)),
        initial_(
            s.real("initial_accumulator", 0, "start of the sum of squared gradients").at_least(0).finite()),
        weight_decay_(s.real("weight_decay", 0, "L2 penalty, added to the gradient").at_least(0)),
        lr_decay_(s.real("lr_decay", 0, "the rate falls as 1 / (1 + lr_decay steps)").at_least(0)) {
    s.real("lr", 1e-2, "learning rate").at_least(0).finite();
  }

  void init(tn::Init& i) const { i.per_param("h", initial_); }

  void step(tn::Step& s) const {
    const double rate = s.lr() / (1 + static_cast<double>(s.count() - 1) * lr_decay_);
    for (tn::Param p : s) {
      tn::Tensor g = p.grad();
      if (weight_decay_ > 0) g = g + p.value() * weight_decay_;
      const tn::Tensor h = p["h"] + square(g);
      p["h"] = h;
      p.update(p.value() - g / (sqrt(h) + eps_) * rate);
    }
  }

 private:
  double eps_, initial_, weight_decay_, lr_decay_;
};

}  // namespace

TN_PLUGIN("Tenon", "1.0", tn::optimizer<Adagrad>("adagrad", "Adagrad", "Duchi et al. 2011, JMLR 12"))
