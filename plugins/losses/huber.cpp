// Huber loss: quadratic near zero, linear beyond delta, with d = |prediction - target|.
//
//   l = d^2 / 2               if d <= delta
//       delta (d - delta / 2)  otherwise
//
// As PyTorch's HuberLoss.
// Huber 1964, "Robust Estimation of a Location Parameter".
#include "tenon_plugin.hpp"

namespace {

class Huber {
 public:
  explicit Huber(tn::Setup& s)
      : delta_(s.real("delta", 1, "where the loss turns linear").above(0).finite()), reduction_(s) {
    s.input("prediction", "[B, ..]");
    s.input("target", "of the prediction's shape", tn::anything);
  }

  void build(tn::Build& b) const {
    const tn::Tensor x = b["prediction"], e = x - tn::match(b["target"], x), d = abs(e);
    reduction_.emit(b, where(d <= delta_, square(e) * 0.5, (d - 0.5 * delta_) * delta_));
  }

 private:
  double delta_;
  tn::Reduction reduction_;
};

}  // namespace

TN_PLUGIN("Tenon", "1.0",
          tn::loss<Huber>("huber", "Huber loss: squared near zero, linear beyond delta",
                          "Huber 1964, Ann. Math. Statist. 35"))
