// Multi-similarity loss and the pair losses that it unifies, for embeddings of a labelled batch.
//
//   Wang, Han, Huang, Dong, Scott 2019, "Multi-Similarity Loss with General Pair Weighting for Deep Metric
//   Learning", CVPR 2019, arXiv 1904.06627
//
// f_i: embeddings (rows, of length 1), y_i: labels, S_ij = f_i . f_j, m rows in the batch,
// P_i = {j != i: y_j = y_i} the positives of anchor i, N_i = {j: y_j != y_i} its negatives.
//
// General pair weighting (section 3.1): with w_ij = |dL/dS_ij| held constant,
//   F = sum_i (sum_{N_i} w_ij S_ij - sum_{P_i} w_ij S_ij)
// has the gradient of L, so that a loss is described by its weights. The signed matrix dL/dS is emitted as
// pair_weights.
//
// multi_similarity   mined sets (equations 10, 11; constants)  N'_i = {j in N_i: S_ij > min_{P_i} S_ik -
// epsilon}
//                                                              P'_i = {j in P_i: S_ij < max_{N_i} S_ik +
//                                                              epsilon}
//                    L = mean_i [ log(1 + sum_{P'_i} e^{-alpha (S_ik - lambda)}) / alpha
//                               + log(1 + sum_{N'_i} e^{beta (S_ik - lambda)}) / beta ]            (equation
//                               15)
//                    An anchor with P'_i or N'_i empty counts as 0.
// contrastive_pair   sum_{P_i} (1 - S_ij) + sum_{N_i} max(0, S_ij - lambda), averaged over anchors, or
// (pair_mean) each
//                    sum over its own pairs: all positives, negatives above lambda. The paper has no 1: value
//                    only.
// triplet_cosine     max(0, S_in - S_ip + margin) over p in P_i, n in N_i; mean over the triplets above 0, or
// the anchors lifted_structure   mean_i max(0, log sum_{P_i} e^{lambda - S_ik} + log sum_{N_i} e^{S_ik})
// n_pair             log(1 + sum_{N_i} e^{scale (S_in - S_ip)}), mean over the pairs (i, p in P_i) with N_i
// not empty binomial_deviance  mean_i [ mean_{P_i} log(1 + e^{alpha (lambda - S_ij)}) + mean_{N_i} log(1 +
// e^{beta (S_ij - lambda)}) ] gpw                F with the weights of one of these (option `of`); that loss
// is what is shown
//
// An empty sum or mean is 0: a batch of one class, or of all different ones, has loss 0 and gradient 0. The
// least m is 2.
#include "tenon_plugin.hpp"

namespace {

using tn::Tensor;

// A batch as its similarities [m, m], with the masks of positive and negative pairs.
struct Pairs {
  Tensor s, positive, negative;

  int64_t size() const { return s.dim(0); }
  // Far below any exponent: what is not in a set adds nothing to its log-sum-exp, and gets no gradient.
  double lowest() const { return s.dtype() == TN_F64 ? -1e300 : -1e30; }
  Tensor sum_over(Tensor mask, Tensor x) const { return sum(where(mask, x, 0.0), -1); }
  Tensor logsumexp_over(Tensor mask, Tensor x) const { return logsumexp(where(mask, x, lowest()), -1); }
  Tensor count(Tensor mask) const { return sum(cast(mask, s.dtype()), -1); }
};

// What all have: inputs, normalisation, and which pairs are one row with itself.
class Batch {
 public:
  explicit Batch(tn::Setup& s)
      : normalize_(s.flag("normalize", true, "scale rows to length 1; false expects that they are")),
        by_similarity_(static_cast<std::string>(s.text(
                           "self_exclusion", "index",
                           "no positives: a row itself; or (similarity) pairs of a class with S >= 1 - 1e-5",
                           {"index", "similarity"})) == "similarity") {
    s.input("embeddings", "[m, d] one row a sample").rank(2);
    s.input("labels", "[m] class numbers", tn::integer).rank(1);
  }

  Pairs pairs(const tn::Build& b) const {
    Tensor f = b["embeddings"], y = b["labels"];
    const int64_t m = f.dim(0);
    if (y.dim(0) != m)
      throw tn::Error("there are " + std::to_string(m) + " embeddings, but " + std::to_string(y.dim(0)) +
                      " labels");
    if (m < 2) throw tn::Error("the batch has " + std::to_string(m) + " rows; pairs need at least 2");
    b.check(all(is_finite(f)), "an embedding is not finite");
    if (f.dtype() == TN_BF16) f = cast(f, TN_F32);  // pairs are counted in this type
    if (normalize_) f = f * rsqrt(maximum(sum(square(f), -1, true), 1e-24));
    const Tensor s = matmul(f, f, false, true), row = b.arange(m);
    const Tensor same = equal(unsqueeze(y, 1), unsqueeze(y, 0));
    const Tensor other =
        by_similarity_ ? stop_gradient(s) < 1 - 1e-5 : not_equal(unsqueeze(row, 1), unsqueeze(row, 0));
    return {s, same & other, logical_not(same)};
  }

 private:
  bool normalize_, by_similarity_;
};

// Each rule gives [m], whose mean is the loss.

struct MultiSimilarity {
  double alpha, beta, lambda, epsilon;
  bool mining;
  explicit MultiSimilarity(tn::Setup& s)
      : alpha(s.real("alpha", 2, "scale of positives").above(0).finite()),
        beta(s.real("beta", 50, "scale of negatives").above(0).finite()),
        lambda(s.real("lambda", 0.5, "similarity threshold").finite()),
        epsilon(s.real("epsilon", 0.1, "margin of the mining").at_least(0).finite()),
        mining(s.flag("mining", true, "false: all pairs")) {}
  MultiSimilarity(double a, double b, double l, double e, bool m)
      : alpha(a), beta(b), lambda(l), epsilon(e), mining(m) {}

  Tensor operator()(const Pairs& p) const {
    Tensor positive = p.positive, negative = p.negative;
    if (mining) {
      const Tensor s = stop_gradient(p.s), nearest = max(where(p.negative, s, p.lowest()), -1, true),
                   farthest = min(where(p.positive, s, -p.lowest()), -1, true);
      positive = positive & (s - epsilon < nearest);
      negative = negative & (s + epsilon > farthest);
    }
    const Tensor pull = softplus(p.logsumexp_over(positive, (p.s - lambda) * -alpha)) / alpha;
    const Tensor push = softplus(p.logsumexp_over(negative, (p.s - lambda) * beta)) / beta;
    return where(any(positive, -1) & any(negative, -1), pull + push, 0.0);
  }
};

struct Contrastive {
  double lambda;
  bool pair_mean;
  explicit Contrastive(tn::Setup& s)
      : lambda(s.real("lambda", 0.5, "similarity above which negatives count").finite()),
        pair_mean(static_cast<std::string>(s.text("reduction", "anchor_mean", "over what is averaged",
                                                  {"anchor_mean", "pair_mean"})) == "pair_mean") {}
  Contrastive(double l, bool p) : lambda(l), pair_mean(p) {}

  Tensor operator()(const Pairs& p) const {
    const Tensor pull = p.sum_over(p.positive, 1 - p.s), push = p.sum_over(p.negative, relu(p.s - lambda));
    if (!pair_mean) return pull + push;
    const double m = static_cast<double>(p.size());
    const Tensor active = p.negative & (p.s > lambda);
    return pull * m / maximum(sum(p.count(p.positive)), 1.0) + push * m / maximum(sum(p.count(active)), 1.0);
  }
};

struct Triplet {
  double margin;
  bool active_mean;
  explicit Triplet(tn::Setup& s)
      : margin(s.real("margin", 0.1, "by which positives are to be nearer").at_least(0).finite()),
        active_mean(static_cast<std::string>(s.text("reduction", "active_mean", "over what is averaged",
                                                    {"active_mean", "anchor_mean"})) == "active_mean") {}
  Triplet(double m, bool a) : margin(m), active_mean(a) {}

  // Piecewise linear: S_ij times the number of triplets above 0 that it is in. One sort of an anchor's row
  // counts them all, where the triplets themselves would be m^3: S_in and S_ip - margin together, negatives
  // first where equal.
  Tensor operator()(const Pairs& p) const {
    const Tensor s = stop_gradient(p.s), none = -p.lowest() * ones_like(s);
    const Tensor order =
        tn::argsort(tn::concat({where(p.negative, s, none), where(p.positive, s - margin, none)}, 1));
    const Tensor place = tn::argsort(order);
    const auto before = [&](Tensor kind) {
      return take_along_axis(cumsum(take_along_axis(kind, order)), place);
    };
    const Tensor is_n = cast(p.negative, s.dtype()), is_p = cast(p.positive, s.dtype()),
                 zeros = zeros_like(s);
    const int64_t m = p.size();
    const Tensor below = tn::narrow(before(tn::concat({zeros, is_p}, 1)), 1, 0, m);  // of S_in: positives
    const Tensor above =
        sum(is_n, -1, true) - tn::narrow(before(tn::concat({is_n, zeros}, 1)), 1, m, m);  // negatives
    const Tensor rows = sum(is_n * below * p.s - is_p * above * (p.s - margin), -1);
    return active_mean ? rows * static_cast<double>(m) / maximum(sum(is_n * below), 1.0) : rows;
  }
};

struct Lifted {
  double lambda;
  explicit Lifted(tn::Setup& s)
      : lambda(s.real("lambda", 1, "similarity that positives are to have").finite()) {}
  explicit Lifted(double l) : lambda(l) {}

  Tensor operator()(const Pairs& p) const {
    return relu(p.logsumexp_over(p.positive, lambda - p.s) + p.logsumexp_over(p.negative, p.s));
  }
};

struct NPair {
  double scale;
  explicit NPair(tn::Setup& s)
      : scale(s.real("scale", 10, "of similarities in the exponent").above(0).finite()) {}
  explicit NPair(double s) : scale(s) {}

  Tensor operator()(const Pairs& p) const {
    const Tensor z = p.s * scale, pairs = p.positive & any(p.negative, -1, true);
    const Tensor losses = softplus(unsqueeze(p.logsumexp_over(p.negative, z), 1) - z);
    return p.sum_over(pairs, losses) * static_cast<double>(p.size()) / maximum(sum(p.count(pairs)), 1.0);
  }
};

struct BinomialDeviance {
  double alpha, beta, lambda;
  explicit BinomialDeviance(tn::Setup& s)
      : alpha(s.real("alpha", 2, "scale of positives").above(0).finite()),
        beta(s.real("beta", 50, "scale of negatives").above(0).finite()),
        lambda(s.real("lambda", 0.5, "similarity threshold").finite()) {}
  BinomialDeviance(double a, double b, double l) : alpha(a), beta(b), lambda(l) {}

  Tensor operator()(const Pairs& p) const {
    const auto mean_over = [&](Tensor mask, Tensor x) {
      return p.sum_over(mask, x) / maximum(p.count(mask), 1.0);
    };
    return mean_over(p.positive, softplus((lambda - p.s) * alpha)) +
           mean_over(p.negative, softplus((p.s - lambda) * beta));
  }
};

template <class Rule>
class PairLoss {
 public:
  static constexpr uint32_t caps = TN_CAP_WHOLE_BATCH;

  explicit PairLoss(tn::Setup& s) : rule_(s), batch_(s) {}

  void build(tn::Build& b) const {
    const Pairs p = batch_.pairs(b);
    const Tensor rows = rule_(p), loss = mean(rows);
    b.loss(loss);
    b.per_sample(rows);
    b.emit("pair_weights", grad(loss, p.s));
  }

 private:
  Rule rule_;
  Batch batch_;
};

class Gpw {
 public:
  static constexpr uint32_t caps = TN_CAP_WHOLE_BATCH | TN_CAP_FIRST_ORDER;
  static constexpr const char* first_order_reason = "the weights of the pairs are constants in the surrogate";

  explicit Gpw(tn::Setup& s)
      : of_(s.text("of", "multi_similarity", "the loss whose weights are used",
                   {"multi_similarity", "contrastive_pair", "triplet_cosine", "lifted_structure", "n_pair",
                    "binomial_deviance"})),
        alpha_(s.real("alpha", 2, "multi_similarity, binomial_deviance").above(0).finite()),
        beta_(s.real("beta", 50, "multi_similarity, binomial_deviance").above(0).finite()),
        lambda_(s.real("lambda", 0.5, "all but triplet_cosine and n_pair").finite()),
        epsilon_(s.real("epsilon", 0.1, "multi_similarity").at_least(0).finite()),
        mining_(s.flag("mining", true, "multi_similarity")),
        margin_(s.real("margin", 0.1, "triplet_cosine").at_least(0).finite()),
        scale_(s.real("scale", 10, "n_pair").above(0).finite()),
        reduction_(s.text("reduction", "default", "contrastive_pair, triplet_cosine; default: theirs",
                          {"default", "anchor_mean", "pair_mean", "active_mean"})),
        batch_(s) {
    if ((reduction_ == "pair_mean" && of_ != "contrastive_pair") ||
        (reduction_ == "active_mean" && of_ != "triplet_cosine"))
      throw tn::Error("reduction " + reduction_ + " is not one of " + of_);
  }

  void build(tn::Build& b) const {
    const Pairs p = batch_.pairs(b);
    const Tensor loss = mean(rows(p)), weights = stop_gradient(grad(loss, p.s));
    b.loss(sum(weights * p.s));
    b.report(loss);
    b.emit("pair_weights", weights);
  }

 private:
  Tensor rows(const Pairs& p) const {
    if (of_ == "multi_similarity") return MultiSimilarity(alpha_, beta_, lambda_, epsilon_, mining_)(p);
    if (of_ == "contrastive_pair") return Contrastive(lambda_, reduction_ == "pair_mean")(p);
    if (of_ == "triplet_cosine") return Triplet(margin_, reduction_ != "anchor_mean")(p);
    if (of_ == "lifted_structure") return Lifted(lambda_)(p);
    if (of_ == "n_pair") return NPair(scale_)(p);
    return BinomialDeviance(alpha_, beta_, lambda_)(p);
  }

  std::string of_;
  double alpha_, beta_, lambda_, epsilon_;
  bool mining_;
  double margin_, scale_;
  std::string reduction_;
  Batch batch_;
};

constexpr const char* kPaper = "Wang et al. 2019, arXiv 1904.06627";

}  // namespace

TN_PLUGIN("Tenon", "1.0",
          tn::loss<PairLoss<MultiSimilarity>>("multi_similarity",
                                              "Mined pairs, weighted by all their similarities", kPaper),
          tn::loss<PairLoss<Contrastive>>("contrastive_pair",
                                          "Pulls positives, pushes negatives above a similarity", kPaper),
          tn::loss<PairLoss<Triplet>>("triplet_cosine",
                                      "Positives are to be nearer than negatives by a margin", kPaper),
          tn::loss<PairLoss<Lifted>>("lifted_structure", "Hardest pairs of an anchor, softly", kPaper),
          tn::loss<PairLoss<NPair>>("n_pair", "Each positive against all negatives of its anchor", kPaper),
          tn::loss<PairLoss<BinomialDeviance>>("binomial_deviance", "Each pair by its own similarity alone",
                                               kPaper),
          tn::loss<Gpw>("gpw", "General pair weighting: similarities times the weights of a pair loss",
                        kPaper))
