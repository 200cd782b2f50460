// Adam and AdamW, which differ in where the weight decay goes: into the gradient (L2), or straight off the
// parameter.
//
//   Adam:  g = grad + weight_decay p          AdamW:  p = p - lr weight_decay p
//   m = beta1 m + (1 - beta1) g
//   v = beta2 v + (1 - beta2) g^2             amsgrad: v is replaced below by the largest v so far
//   p = p - lr / (1 - beta1^t) m / (sqrt(v / (1 - beta2^t)) + eps)
//
// Kingma & Ba 2015, arXiv 1412.6980, algorithm 1; Loshchilov & Hutter 2019, arXiv 1711.05101, algorithm 2;
// Reddi et al. 2018, "On the Convergence of Adam and Beyond" (amsgrad). As PyTorch's Adam and AdamW.
#pragma once

#include <cmath>

#include "tenon_plugin.hpp"

template <bool decoupled>
class Adam {
 public:
  static constexpr bool elementwise = true;

  explicit Adam(tn::Setup& s)
      : beta1_(s.real("beta1", 0.9, "decay of the mean of gradients").at_least(0).below(1)),
        beta2_(s.real("beta2", 0.999, "decay of the mean of squared gradients").at_least(0).below(1)),
        eps_(s.real("eps", 1e-8, "added to the root").at_least(0)),
        weight_decay_(
            s.real("weight_decay", decoupled ? 1e-2 : 0,
                   decoupled ? "taken off the parameter, times lr" : "L2 penalty, added to the gradient")
                .at_least(0)),
        amsgrad_(s.flag("amsgrad", false, "never let the second moment shrink")) {
    s.real("lr", 1e-3, "learning rate").at_least(0).finite();
  }

  void init(tn::Init& i) const {
    i.per_param("m");
    i.per_param("v");
    if (amsgrad_) i.per_param("v_max");
  }

  void step(tn::Step& s) const {
    const double t = static_cast<double>(s.count());
    const double rate = s.lr() / (1 - std::pow(beta1_, t)),
                 root_scale = 1 / std::sqrt(1 - std::pow(beta2_, t));
    for (tn::Param p : s) {
      tn::Tensor x = p.value(), g = p.grad();
      if (weight_decay_ > 0) {
        if (decoupled)
          x = x * (1 - s.lr() * weight_decay_);
        else
          g = g + x * weight_decay_;
      }
      const tn::Tensor m = p["m"] * beta1_ + g * (1 - beta1_);
      tn::Tensor v = p["v"] * beta2_ + square(g) * (1 - beta2_);
      p["m"] = m;
      p["v"] = v;
      if (amsgrad_) p["v_max"] = v = maximum(p["v_max"], v);
      p.update(x - m / (sqrt(v) * root_scale + eps_) * rate);
    }
  }

 private:
  double beta1_, beta2_, eps_, weight_decay_;
  bool amsgrad_;
};
