// Binary cross-entropy on logits, for one or many independent yes/no labels.
//
//   l = -[p y log sigmoid(x) + (1 - y) log(1 - sigmoid(x))] = (1 - y) x + (1 + (p - 1) y) softplus(-x)
//
// p: pos_weight, per column or one for all. Labels may be soft (in [0, 1]). As PyTorch's BCEWithLogitsLoss.
#include "tenon_plugin.hpp"

namespace {

class BceWithLogits {
 public:
  explicit BceWithLogits(tn::Setup& s)
      : pos_weight_(
            s.reals("pos_weight", "weight of positives: one value, or one per column").at_least(0).finite()),
        reduction_(s) {
    s.input("logits", "[B] or [B, K] scores");
    s.input("labels", "0 or 1 for each score", tn::anything);
  }

  void build(tn::Build& b) const {
    const tn::Tensor x = b["logits"], y = tn::match(b["labels"], x);
    const int64_t n = static_cast<int64_t>(pos_weight_.size());
    if (n > 1 && n != x.dim(-1))
      throw tn::Error("pos_weight has " + std::to_string(n) + " values for " + std::to_string(x.dim(-1)) +
                      " columns");
    tn::Tensor positive = softplus(-x);
    if (n == 1) positive = positive * (1 + (pos_weight_[0] - 1) * y);
    if (n > 1) positive = positive * (1 + (b.from_host(pos_weight_.data(), {n}, x.dtype()) - 1) * y);
    reduction_.emit(b, (1 - y) * x + positive);
  }

 private:
  std::vector<double> pos_weight_;
  tn::Reduction reduction_;
};

}  // namespace

TN_PLUGIN("Tenon", "1.0", tn::loss<BceWithLogits>("bce_with_logits", "Binary cross-entropy on logits"))
