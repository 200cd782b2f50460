// Mean squared error: l = (prediction - target)^2, averaged over all elements. As PyTorch's MSELoss.
#include "tenon_plugin.hpp"

namespace {

class Mse {
 public:
  explicit Mse(tn::Setup& s) : reduction_(s) {
    s.input("prediction", "[B, ..]");
    s.input("target", "of the prediction's shape", tn::anything);
  }

  void build(tn::Build& b) const {
    const tn::Tensor x = b["prediction"], y = tn::match(b["target"], x);
    reduction_.emit(b, square(x - y));
  }

 private:
  tn::Reduction reduction_;
};

}  // namespace

TN_PLUGIN("Tenon", "1.0", tn::loss<Mse>("mse", "Mean squared error"))
