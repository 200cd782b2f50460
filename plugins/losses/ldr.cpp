// Label distributionally robust losses: the label weights of a margin loss are chosen by an adversary.
//
//   Zhu, Ying, Yang 2023, "Label Distributionally Robust Losses for Multi-class Classification: Consistency, Robustness
//   and Adaptivity", ICML 2023, arXiv 2112.14869
//
// Logits f in R^K (or their normalised form u), label y, margins c_k = margin for k != y and c_y = 0,
// d_k = f_k - f_y + c_k, Delta the simplex of R^K.
//
// ldr      psi = max over p in Delta, p_k <= 1/r of  p.d - lambda KL(p, 1/K)           lambda: temperature, r: top_k
//          r = 1:      lambda log( (1/K) sum_k exp(d_k / lambda) )                     cross-entropy - log K at lambda 1
//          lambda = 0: mean of the r largest d_k                                       r = 1: Crammer-Singer
//          lambda = inf: mean_k d_k
//          r > 1:      the j largest d get p = 1/r, the rest share m = 1 - j/r in proportion to exp(d/lambda); the smallest
//                      j for which no share exceeds 1/r. With LSE over the rest of d/lambda,
//                      psi = sum_top d / r - lambda (j/r) log(K/r) + m lambda (LSE - log(K m))
//
// aldr_kl  the temperature is chosen too, for each training sample, pulled to lambda0:
//          psi = max over lambda, p of  p.d - lambda KL(p, 1/K) - (alpha log K / 2 lambda0) (lambda - lambda0)^2
//          q = (softmax(u / lambda_i) + p_eps), normalised;  lambda_i <- lambda0 - lambda0 KL(q, 1/K) / (alpha log K)
//          loss_i = lambda_i log mean_k exp(d_k / lambda_i) - (alpha log K / 2 lambda0) (lambda_i - lambda0)^2
//          No gradient passes through lambda_i. In evaluation every sample starts at lambda0, and nothing is stored.
//          Where it is known which labels are wrong, lambda_auc says how well the lambda_i of all samples tell: the
//          probability that of a wrong and a right label the wrong one has the larger lambda.
//
// normalize: softplus_mean  u = softplus(f) / mean softplus(f);  l1_mean  u = f / mean |f|
#include <cmath>

#include "tenon_plugin.hpp"

namespace {

using tn::Tensor;

// What both have: logits, labels, margins and normalisation.
class Margins {
 public:
  Margins(tn::Setup& s, double margin, const char* normalize)
      : margin_(s.real("margin", margin, "c: added to the scores of the wrong classes").at_least(0).finite()),
        normalize_(s.text("normalize", normalize, "of the logits", {"none", "softplus_mean", "l1_mean"})) {
    s.input("logits", "[B, K] class scores").rank(2);
    s.input("labels", "[B] class numbers", tn::integer).rank(1);
  }
  Tensor scores(const tn::Build& b) const {  // u
    const Tensor f = b["logits"], y = b["labels"];
    if (f.dim(1) < 2) throw tn::Error("the logits have " + std::to_string(f.dim(1)) + " classes; at least 2 are needed");
    b.check(all((y >= 0.0) & (y < static_cast<double>(f.dim(1)))), "a label is not the number of a class");
    if (normalize_ == "none") return f;
    const Tensor v = normalize_ == "softplus_mean" ? softplus(f) : f;
    return v / maximum(mean(abs(v), -1, true), 1e-12);
  }
  // u + c
  Tensor with_margin(const tn::Build& b, Tensor u) const {
    const Tensor right = tn::one_hot(tn::as_index(b["labels"]), u.dim(1), u.dtype());
    return u + (1 - right) * margin_;
  }
  // d
  Tensor gaps(const tn::Build& b, Tensor u) const { return with_margin(b, u) - unsqueeze(tn::pick(u, tn::as_index(b["labels"])), -1); }

 private:
  double margin_;
  std::string normalize_;
};

class Ldr {
 public:
  explicit Ldr(tn::Setup& s)
      : lambda_(s.real("lambda", 1, "temperature; inf is the mean").at_least(0)),
        top_k_(s.integer("top_k", 1, "r: no label weight exceeds 1/r").at_least(1)),
        margins_(s, 0, "none"),
        reduction_(s) {}

  void build(tn::Build& b) const {
    const Tensor d = margins_.gaps(b, margins_.scores(b));
    if (top_k_ > d.dim(1))
      throw tn::Error("top_k is " + std::to_string(top_k_) + "; it must be at most the " + std::to_string(d.dim(1)) + " classes");
    reduction_.emit(b, loss(b, d));
  }

 private:
  Tensor loss(const tn::Build& b, Tensor d) const {
    if (std::isinf(lambda_)) return mean(d, -1);
    if (lambda_ == 0) return sum(tn::top_k(d, top_k_)[0], -1) / static_cast<double>(top_k_);
    if (top_k_ == 1) return (logsumexp(d / lambda_, -1) - std::log(static_cast<double>(d.dim(1)))) * lambda_;
    return capped(b, d);
  }

  Tensor capped(const tn::Build& b, Tensor d) const {
    const int64_t classes = d.dim(1);
    const double r = static_cast<double>(top_k_), k = static_cast<double>(classes);
    // place: of each d among the row's, from the largest on, ties by index.
    const Tensor order = tn::argsort(d, -1, true), place = tn::argsort(order, -1);
    const Tensor sorted = stop_gradient(take_along_axis(d, order)) / lambda_;  // [B, K]
    // For each number j of capped labels: the largest share among the others, 1 - j/r of the softmax of the rest.
    const Tensor j = reshape(b.arange(top_k_, d.dtype()), {1, top_k_, 1}), at = reshape(b.arange(classes, d.dtype()), {1, 1, classes});
    const Tensor rest = where(at >= j, unsqueeze(sorted, 1), lowest(d));  // [B, r, K]
    const Tensor share = (1 - j / r) * exp(max(rest, -1, true) - logsumexp(rest, -1, true));
    // The smallest j that keeps within the cap; r when none does.
    const Tensor capped_count = sum(cumprod(cast(squeeze(share, -1) > 1 / r + 1e-12, d.dtype()), -1), -1, true);  // [B, 1]
    const Tensor top = cast(place, d.dtype()) < capped_count;
    const Tensor m = 1 - squeeze(capped_count, -1) / r;
    const Tensor lse = logsumexp(where(top, lowest(d), d / lambda_), -1);
    const Tensor shared = where(m > 0.5 / r, m * (lse - log(maximum(m, 0.5 / r) * k)), 0.0);
    return sum(where(top, d, 0.0), -1) / r + (shared - (1 - m) * std::log(k / r)) * lambda_;
  }
  static double lowest(Tensor d) { return d.dtype() == TN_F64 ? -1e300 : -1e30; }

  double lambda_;
  int64_t top_k_;
  Margins margins_;
  tn::Reduction reduction_;
};

class AldrKl {
 public:
  explicit AldrKl(tn::Setup& s)
      : lambda0_(s.real("lambda0", 10, "prior temperature").above(0).finite()),
        alpha_(s.real("alpha", 2, "pull towards lambda0").above(1).finite()),
        margins_(s, 0.1, "l1_mean"),
        margin_in_p_(s.flag("margin_in_p", false, "the temperature's q sees the margins (exact form)")),
        p_eps_(s.real("p_eps", 1e-5, "added to q before it is normalised").at_least(0).finite()),
        num_samples_(s.integer("num_samples", 0, "rows of the state; 0: as many as the data set has").at_least(0)),
        reduction_(s) {
    s.input("sample_ids", "[B] number of each sample in its data set", tn::integer).rank(1);
    s.input("wrong", "[B] 1 where the label is known to be wrong, else 0; for lambda_auc").optional().constant().rank(1);
  }

  void init(tn::Init& i) const {
    const tn_dtype t = i["logits"].dtype() == TN_F64 ? TN_F64 : TN_F32;
    if (num_samples_ > 0) i.state("lambda", {num_samples_}, lambda0_, t);
    else i.table("lambda", {}, lambda0_, t);
    if (!i.has("wrong")) return;
    if (num_samples_ > 0) i.state("wrong", {num_samples_}, 0, t);
    else i.table("wrong", {}, 0, t);
  }

  void build(tn::Build& b) const {
    const Tensor u = margins_.scores(b), d = margins_.gaps(b, u);
    const Tensor old = b.train() ? cast_like(gather(b.state("lambda"), ids(b)), u) : full_like(b_first(u), lambda0_);
    const double log_k = std::log(static_cast<double>(u.dim(1)));
    const Tensor z = stop_gradient(margin_in_p_ ? margins_.with_margin(b, u) : u);
    Tensor q = softmax(z / unsqueeze(old, -1)) + p_eps_;
    q = q / sum(q, -1, true);
    const Tensor kl = sum(where(q > 0.0, q * log(maximum(q, u.dtype() == TN_F64 ? 1e-300 : 1e-38)), 0.0), -1) + log_k;
    const Tensor lambda = stop_gradient(lambda0_ - kl * (lambda0_ / (alpha_ * log_k)));
    if (b.train()) {
      const Tensor id = ids(b), table = b.state("lambda");
      b.check(all((id >= 0.0) & (id < static_cast<double>(table.dim(0)))), "a sample id is outside the state of aldr_kl");
      store(b, "lambda", lambda);
      if (b.has("wrong")) {
        store(b, "wrong", b["wrong"]);
        b.metric("lambda_auc", auc(b, b.state("lambda"), b.state("wrong")));
      }
    }
    const Tensor robust = (logsumexp(d / unsqueeze(lambda, -1), -1) - log_k) * lambda;
    b.metric("lambda_mean", mean(lambda));
    reduction_.emit(b, robust - square(lambda - lambda0_) * (alpha_ * log_k / (2 * lambda0_)));
  }

 private:
  static Tensor b_first(Tensor u) { return squeeze(tn::narrow(u, 1, 0, 1), 1); }
  Tensor ids(const tn::Build& b) const { return tn::as_index(b["sample_ids"]); }

  // slot[ids] = values; of a sample that is there more than once, the last.
  void store(const tn::Build& b, const char* slot, Tensor values) const {
    const Tensor table = b.state(slot), id = ids(b);
    const int64_t n = id.dim(0);
    const Tensor place = b.arange(n), same = equal(unsqueeze(id, 1), unsqueeze(id, 0));
    const Tensor later = any(same & (unsqueeze(place, 0) > unsqueeze(place, 1)), 1);
    const Tensor change = cast_like(values, table) - gather(table, id);
    b.state(slot) = tn::scatter_add(table, id, where(later, 0.0, change));
  }

  // Of the ranks of the marked ones among all scores; 0.5 when all are marked, or none.
  static Tensor auc(const tn::Build& b, Tensor scores, Tensor marks) {
    const int64_t n = scores.dim(0);
    const Tensor m = cast(gather(marks, tn::argsort(scores)), TN_F64);  // in ascending order of the scores
    const Tensor ones = sum(m), pairs = ones * (static_cast<double>(n) - ones);
    return where(pairs > 0.0, (sum(b.arange(n, TN_F64) * m) - ones * (ones - 1) / 2) / maximum(pairs, 1.0), 0.5);
  }

  double lambda0_, alpha_;
  Margins margins_;
  bool margin_in_p_;
  double p_eps_;
  int64_t num_samples_;
  tn::Reduction reduction_;
};

}  // namespace

TN_PLUGIN("Tenon", "1.0",
          tn::loss<Ldr>("ldr", "Label distributionally robust loss: KL, max-margin, mean and capped top-k",
                        "Zhu, Ying & Yang 2023, arXiv 2112.14869"),
          tn::loss<AldrKl>("aldr_kl", "LDR-KL with a temperature of its own for each training sample",
                           "Zhu, Ying & Yang 2023, arXiv 2112.14869"))
