// Mean absolute error: l = |prediction - target|, averaged over all elements. As PyTorch's L1Loss.
#include "tenon_plugin.hpp"

namespace {

class Mae {
 public:
  explicit Mae(tn::Setup& s) : reduction_(s) {
    s.input("prediction", "[B, ..]");
    s.input("target", "of the prediction's shape", tn::anything);
  }

  void build(tn::Build& b) const {
    const tn::Tensor x = b["prediction"], y = tn::match(b["target"], x);
    reduction_.emit(b, abs(x - y));
  }

 private:
  tn::Reduction reduction_;
};

}  // namespace

TN_PLUGIN("Tenon", "1.0", tn::loss<Mae>("mae", "Mean absolute error"))
