// Focal loss: cross-entropy in which well classified samples count less.
//
//   l = -alpha_t (1 - p_t)^gamma log p_t
//
// p_t: probability of the right class (softmax of logits [B, C]; sigmoid of logits [B] or [B, 1], labels 0 or
// 1). alpha: none; for two classes one value, alpha for positives and 1 - alpha for negatives; for C classes
// C values. 1 - p_t is computed in logarithms, from the other classes, so that nothing is lost when p_t is
// close to 1 and every derivative stays finite. Lin et al. 2017, "Focal Loss for Dense Object Detection", eq.
// 4 and 5.
#include "tenon_plugin.hpp"

namespace {

class Focal {
 public:
  explicit Focal(tn::Setup& s)
      : gamma_(s.real("gamma", 2, "focusing strength; 0 is cross-entropy").at_least(0).finite()),
        alpha_(s.reals("alpha", "class balance: one value for two classes, C values for C")
                   .at_least(0)
                   .finite()),
        reduction_(s) {
    s.input("logits", "[B, C] class scores, or [B] or [B, 1] for two classes").rank(1).rank(2);
    s.input("labels", "[B] class numbers", tn::anything);
  }

  void build(tn::Build& b) const {
    const tn::Tensor x = b["logits"], labels = b["labels"];
    const bool binary = x.rank() < 2 || x.dim(-1) == 1;
    const int64_t n_alpha = static_cast<int64_t>(alpha_.size()), wanted = binary ? 1 : x.dim(-1);
    if (n_alpha != 0 && n_alpha != wanted)
      throw tn::Error("alpha has " + std::to_string(n_alpha) + " values; these logits want " +
                      std::to_string(wanted));
    binary ? build_binary(b, x, labels) : build_multi_class(b, x, tn::as_index(labels));
  }

 private:
  void build_binary(tn::Build& b, tn::Tensor x, tn::Tensor labels) const {
    const tn::Tensor y = tn::match(labels, x), positive = y > 0.5;
    const tn::Tensor z = where(positive, x, -x);  // p_t = sigmoid(z)
    tn::Tensor l = focus(softplus(-z), -softplus(z));
    if (!alpha_.empty()) l = l * where(positive, full_like(x, alpha_[0]), 1 - alpha_[0]);
    reduction_.emit(b, l);
  }
  void build_multi_class(tn::Build& b, tn::Tensor x, tn::Tensor labels) const {
    const tn::Tensor log_p = log_softmax(x);
    const tn::Tensor others = where(one_hot(labels, x.dim(-1), x.dtype()) > 0.5, -1e30, log_p);
    tn::Tensor l = focus(-pick(log_p, labels), logsumexp(others, -1));
    if (!alpha_.empty()) l = l * gather(b.from_host(alpha_.data(), {x.dim(-1)}, x.dtype()), labels);
    reduction_.emit(b, l);
  }
  // nll: -log p_t, log_rest: log(1 - p_t).
  tn::Tensor focus(tn::Tensor nll, tn::Tensor log_rest) const {
    return gamma_ == 0 ? nll : nll * exp(log_rest * gamma_);
  }
  double gamma_;
  std::vector<double> alpha_;
  tn::Reduction reduction_;
};

}  // namespace

TN_PLUGIN("Tenon", "1.0",
          tn::loss<Focal>("focal", "Cross-entropy in which easy samples count less",
                          "Lin et al. 2017, arXiv 1708.02002"))
