// Cross-entropy from integer labels.
//
//   l_i = -sum_c t_ic w_c log softmax(logits_i)_c,   t_i = (1 - s) onehot(y_i) + s / C
//   mean: sum_i l_i / sum_i w_{y_i}   (w = 1: the number of labels that count)
//
// s: label_smoothing, w: class_weights; samples with y_i = ignore_index count nowhere. As PyTorch's
// CrossEntropyLoss, except that a batch in which every label is ignored has loss 0 instead of NaN. Szegedy et
// al. 2016, "Rethinking the Inception Architecture", section 7 (label smoothing).
#include "tenon_plugin.hpp"

namespace {

class CrossEntropy {
 public:
  explicit CrossEntropy(tn::Setup& s)
      : smoothing_(
            s.real("label_smoothing", 0, "mass spread evenly over the classes").at_least(0).at_most(1)),
        class_weights_(s.reals("class_weights", "one weight per class; empty: all 1").at_least(0).finite()),
        ignore_(s.integer("ignore_index", -100, "labels with this value are left out")),
        reduction_(s) {
    s.input("logits", "[B, .., C] class scores");
    s.input("labels", "[B, ..] class numbers", tn::integer);
  }

  void build(tn::Build& b) const {
    const tn::Tensor logits = b["logits"], labels = b["labels"];
    const tn::Tensor counts = not_equal(labels, static_cast<double>(ignore_));
    if (class_weights_.empty())
      return reduction_.emit(b, cross_entropy(logits, labels, smoothing_, ignore_),
                             cast_like(counts, logits));

    const int64_t n_classes = logits.dim(-1), n_weights = static_cast<int64_t>(class_weights_.size());
    if (n_weights != n_classes)
      throw tn::Error("class_weights has " + std::to_string(n_weights) + " values for " +
                      std::to_string(n_classes) + " classes");
    const tn::Tensor w = b.from_host(class_weights_.data(), {n_weights}, logits.dtype());
    const tn::Tensor safe = where(counts, labels, 0);
    const tn::Tensor log_p = log_softmax(logits);
    const tn::Tensor w_label = gather(w, safe) * cast_like(counts, logits);
    tn::Tensor l = -pick(log_p, safe) * w_label;
    if (smoothing_ > 0) {
      const tn::Tensor spread = -mean(log_p * w, -1) * cast_like(counts, logits);
      l = l * (1 - smoothing_) + spread * smoothing_;
    }
    reduction_.emit(b, l, w_label);
  }

 private:
  double smoothing_;
  std::vector<double> class_weights_;
  int64_t ignore_;
  tn::Reduction reduction_;
};

}  // namespace

TN_PLUGIN("Tenon", "1.0",
          tn::loss<CrossEntropy>("cross_entropy", "Cross-entropy of class scores and integer labels"))
