// A first loss in C++: squared error that saturates, l = scale log(1 + (prediction - target)^2 / scale).
#include "tenon_plugin.hpp"

struct HelloLoss {
  double scale;

  explicit HelloLoss(tn::Setup& s) : scale(s.real("scale", 1, "error at which it flattens").above(0)) {
    s.input("prediction", "[B, ..]");
    s.input("target", "[B, ..]");
  }

  void build(tn::Build& b) const {
    const tn::Tensor error = b["prediction"] - b["target"];
    b.loss(mean(log1p(square(error) / scale)) * scale);
    b.metric("largest_error", max(abs(error)));
  }
};

TN_PLUGIN("Example", "1.0", tn::loss<HelloLoss>("hello_cpp", "Squared error that saturates (Cauchy loss)"))
