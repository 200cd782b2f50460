// AnyLoss: a metric of binary classification as a loss.
//
//   Han, Moniz, Chawla 2024, "AnyLoss: Transforming Classification Metrics into Loss Functions", arXiv 2405.14745
//
// Scores z_i (or probabilities p_i = sigmoid(z_i)), labels y_i in {0, 1}, weights w_i (1). The probability is amplified
// towards 0 or 1 and fills a soft confusion matrix of the whole batch:
//
//   yh_i = A(p_i) = sigmoid(L (p_i - t))                                       amplified probability
//   TP = sum w y yh    FN = sum w y (1 - yh)    FP = sum w (1 - y) yh    TN = sum w (1 - y)(1 - yh)
//   loss = 1 - M(TP, FN, FP, TN)
//
// with P = TP + FN, N = TN + FP, TPR = TP/P, TNR = TN/N, b = beta^2:
//
//   accuracy (TP+TN)/(P+N)             f_beta (1+b) TP / ((1+b) TP + b FN + FP)     g_mean sqrt(TPR TNR)
//   balanced_accuracy (TPR+TNR)/2      precision TP/(TP+FP)    recall TPR           specificity TNR
//   npv TN/(TN+FN)                     jaccard TP/(TP+FP+FN)   informedness TPR+TNR-1
//   mcc (TP TN - FP FN)/sqrt((TP+FP)(TP+FN)(TN+FP)(TN+FN))
//   kappa 2 (TP TN - FN FP)/((TP+FP)(FP+TN) + (TP+FN)(FN+TN))
//   linear_fractional (num . v)/(den . v), v = (TP, FN, FP, TN, 1)
//
// 1 - yh is computed as sigmoid(-L (p - t)), and a ratio n/d with d <= eps is n/eps with a constant denominator, so that
// one-class batches and scores of any size give finite values and gradients.
#include "tenon_plugin.hpp"

namespace {

using tn::Tensor;

struct Confusion {
  Tensor tp, fn, fp, tn;
};

class AnyLoss {
 public:
  static constexpr uint32_t caps = TN_CAP_WHOLE_BATCH;

  explicit AnyLoss(tn::Setup& s)
      : metric_(s.text("metric", "f_beta", "what is maximised",
                       {"accuracy", "f_beta", "g_mean", "balanced_accuracy", "precision", "recall", "specificity", "npv",
                        "jaccard", "informedness", "mcc", "kappa", "linear_fractional"})),
        beta_(s.real("beta", 1, "of f_beta: how much more recall counts than precision").above(0).finite()),
        steepness_(s.real("L", 73, "steepness of the amplification").above(0).finite()),
        threshold_(s.real("threshold", 0.5, "t: centre of the amplification, and decision threshold").above(0).below(1)),
        from_logits_(s.flag("from_logits", true, "true: the input is scores; false: probs")),
        num_(s.reals("num", "of linear_fractional: weights of TP, FN, FP, TN, 1").finite()),
        den_(s.reals("den", "of linear_fractional: weights of TP, FN, FP, TN, 1").finite()),
        eps_(s.real("eps", 1e-12, "smallest denominator").above(0).finite()),
        on_single_class_(s.text("on_single_class", "eps", "a batch of one class where the metric needs both",
                                {"eps", "error"})) {
    s.input("scores", "[B] or [B, 1] scores z, with from_logits").optional().rank(1).rank(2);
    s.input("probs", "[B] or [B, 1] probabilities, without from_logits").optional().rank(1).rank(2);
    s.input("labels", "[B] 0 or 1", tn::anything);
    s.input("weights", "[B] weights of the samples").optional();
    const bool fractional = metric_ == "linear_fractional";
    if (fractional && (num_.size() != 5 || den_.size() != 5))
      throw tn::Error("linear_fractional needs num and den of 5 numbers each");
    if (!fractional && !(num_.empty() && den_.empty()))
      throw tn::Error("num and den are for linear_fractional, the metric is " + metric_);
  }

  void build(tn::Build& b) const {
    const Tensor given = b[from_logits_ ? "scores" : "probs"];
    if (!given) throw tn::Error(from_logits_ ? "the role 'scores' is not bound" : "the role 'probs' is not bound");
    if (given.rank() == 2 && given.dim(1) != 1)
      throw tn::Error("the input has " + std::to_string(given.dim(1)) + " columns; AnyLoss is for two classes and wants one");
    if (given.numel() == 0) throw tn::Error("the batch is empty");
    const Tensor y = tn::match(b["labels"], given);
    const Tensor p = from_logits_ ? sigmoid(given) : given;
    const Tensor u = (p - threshold_) * steepness_;
    const Tensor positive = sigmoid(u), negative = sigmoid(-u);
    Tensor w = b["weights"];
    w = w ? tn::match(w, given) : ones_like(given);
    const Tensor wy = w * y, wn = w * (1 - y);
    const Confusion c{sum(wy * positive), sum(wy * negative), sum(wn * positive), sum(wn * negative)};
    const Tensor classes = tn::concat({unsqueeze(sum(wy), 0), unsqueeze(sum(wn), 0)});
    b.check(all(equal(y, 0.0) | equal(y, 1.0)), "a label is neither 0 nor 1");
    if (!from_logits_) b.check(all((p >= 0.0) & (p <= 1.0)), "a probability is outside [0, 1]");
    if (on_single_class_ == "error" && needs_both())
      b.check(min(classes) > 0.0, ("the batch holds one class only, and " + metric_ + " needs both").c_str());
    b.loss(1 - metric(c));
    std::vector<Tensor> cells;
    for (const Tensor& t : {c.tp, c.fn, c.fp, c.tn}) cells.push_back(unsqueeze(t, 0));
    b.emit("confusion", tn::concat(cells));
  }

 private:
  bool needs_both() const {
    return metric_ != "accuracy" && metric_ != "linear_fractional";
  }
  // n/d; d <= eps counts as the constant eps.
  Tensor ratio(Tensor n, Tensor d) const { return n / where(d > eps_, d, full_like(d, eps_)); }
  // sqrt(u); for u <= eps the constant sqrt(eps).
  Tensor root(Tensor u) const { return sqrt(where(u > eps_, u, full_like(u, eps_))); }

  Tensor metric(const Confusion& c) const {
    const Tensor all_positive = c.tp + c.fn, all_negative = c.tn + c.fp;
    const auto tpr = [&] { return ratio(c.tp, all_positive); };
    const auto tnr = [&] { return ratio(c.tn, all_negative); };
    if (metric_ == "accuracy") return ratio(c.tp + c.tn, all_positive + all_negative);
    if (metric_ == "f_beta") {
      const double k = beta_ * beta_;
      return ratio(c.tp * (1 + k), c.tp * (1 + k) + c.fn * k + c.fp);
    }
    if (metric_ == "g_mean") return root(tpr() * tnr());
    if (metric_ == "balanced_accuracy") return (tpr() + tnr()) * 0.5;
    if (metric_ == "precision") return ratio(c.tp, c.tp + c.fp);
    if (metric_ == "recall") return tpr();
    if (metric_ == "specificity") return tnr();
    if (metric_ == "npv") return ratio(c.tn, c.tn + c.fn);
    if (metric_ == "jaccard") return ratio(c.tp, c.tp + c.fp + c.fn);
    if (metric_ == "informedness") return tpr() + tnr() - 1;
    if (metric_ == "mcc")
      return (c.tp * c.tn - c.fp * c.fn) / root((c.tp + c.fp) * all_positive * all_negative * (c.tn + c.fn));
    if (metric_ == "kappa")
      return ratio((c.tp * c.tn - c.fn * c.fp) * 2, (c.tp + c.fp) * all_negative + all_positive * (c.fn + c.tn));
    const Tensor one = constant_like(c.tp, 1), v[] = {c.tp, c.fn, c.fp, c.tn, one};
    Tensor n = v[0] * num_[0], d = v[0] * den_[0];
    for (size_t i = 1; i < 5; ++i) {
      n = n + v[i] * num_[i];
      d = d + v[i] * den_[i];
    }
    return ratio(n, d);
  }

  std::string metric_;
  double beta_, steepness_, threshold_;
  bool from_logits_;
  std::vector<double> num_, den_;
  double eps_;
  std::string on_single_class_;
};

}  // namespace

TN_PLUGIN("Tenon", "1.0",
          tn::loss<AnyLoss>("any_loss", "1 - a soft metric of binary classification, over the whole batch",
                            "Han, Moniz & Chawla 2024, arXiv 2405.14745"))
