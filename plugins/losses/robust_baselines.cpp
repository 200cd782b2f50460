// Losses that are robust to wrong labels: the baselines of the label distributionally robust losses.
//
//   Zhu, Ying, Yang 2023, arXiv 2112.14869, and the papers named below
//
// p = softmax(logits), p_y the probability of the label, d_k = f_k - f_y + margin [k != y], e_y the one-hot label:
//
//   gce             (1 - p_y^q) / q                                       Zhang & Sabuncu 2018, arXiv 1805.07836
//   truncated_gce   v (1 - p_y^q) / q, v = [p_y > 0.5] per sample         the same, section 3.3
//   sce             (1 - b)(-log p_y) + b 4 (1 - p_y)                     Wang et al. 2019, arXiv 1908.06112
//   crammer_singer  max_k max(d_k, 0)
//   weston_watkins  mean_k max(d_k, 0)
//   mae             2 (1 - p_y)                                           Ghosh et al. 2017, arXiv 1712.09482
//   mse_prob        sum_k (e_y - p)_k^2
//   js              -(w KL(e_y, m) + (1-w) KL(p, m)) / ((1-w) log(1-w))   Englesson & Azizpour 2021, arXiv 2105.04522
//                   m = w e_y + (1-w) p
//   nce_rce         a NCE + (10 - a) RCE                                  Ma et al. 2020, arXiv 2006.13554
//   nce_agce        a NCE + (10 - a) ((4^1.5 - (3 + p_y)^1.5) / 1.5)      Zhou et al. 2021, arXiv 2106.03110
//   nce_aul         a NCE + (10 - a) (((6 - p_y)^1.5 - 5^1.5) / 1.5)
//                   NCE = log p_y / sum_k log p_k, RCE = -sum_k p_k log clamp(e_y, 1e-4)
//   rll             -log(a + p_y) + sum_{k != y} log(a + p_k) / (K - 1)   Patel & Sastry 2021, arXiv 2010.13016
//
// truncated_gce keeps v for each training sample. In the first half of the epochs v is 1; afterwards it is renewed every
// tenth epoch, from the probabilities that the samples have as they come by. In evaluation v is 1.
#include <cmath>

#include "tenon_plugin.hpp"

namespace {

using tn::Tensor;

class RobustBaseline {
 public:
  explicit RobustBaseline(tn::Setup& s)
      : kind_(s.text("kind", "gce", "which loss",
                     {"gce", "truncated_gce", "sce", "crammer_singer", "weston_watkins", "mae", "mse_prob", "js", "nce_rce", "nce_agce",
                      "nce_aul", "rll"})),
        q_(s.real("q", 0.7, "of gce and truncated_gce").above(0).at_most(1)),
        b_(s.real("b", 0.5, "of sce: share of the reverse term").at_least(0).at_most(1)),
        margin_(s.real("margin", 1, "of crammer_singer and weston_watkins").at_least(0).finite()),
        w_(s.real("w", 0.5, "of js: share of the label").above(0).below(1)),
        a_(s.real("a", 5, "of the nce pairs: weight of NCE, in 0..10; of rll: the offset").above(0).at_most(10)),
        reduction_(s) {
    s.input("logits", "[B, K] class scores").rank(2);
    s.input("labels", "[B] class numbers", tn::integer).rank(1);
    s.input("sample_ids", "[B] number of each sample in its data set; for truncated_gce", tn::integer).optional().rank(1);
  }

  void init(tn::Init& i) const {
    if (kind_ == "truncated_gce") i.table("v", {}, 1);
  }

  void build(tn::Build& b) const {
    const Tensor f = b["logits"], y = tn::as_index(b["labels"]);
    if (f.dim(1) < 2) throw tn::Error("the logits have " + std::to_string(f.dim(1)) + " classes; at least 2 are needed");
    b.check(all((b["labels"] >= 0.0) & (b["labels"] < static_cast<double>(f.dim(1)))), "a label is not the number of a class");
    reduction_.emit(b, kind_ == "truncated_gce" ? truncated(b, f, y) : loss(f, y));
  }

 private:
  Tensor loss(Tensor f, Tensor y) const {
    if (kind_ == "crammer_singer" || kind_ == "weston_watkins") {
      const Tensor right = tn::one_hot(y, f.dim(1), f.dtype());
      const Tensor d = relu(f - unsqueeze(tn::pick(f, y), -1) + (1 - right) * margin_);
      return kind_ == "crammer_singer" ? max(d, -1) : mean(d, -1);
    }
    const Tensor log_p = log_softmax(f), p = exp(log_p), log_py = tn::pick(log_p, y), py = exp(log_py);
    if (kind_ == "gce") return gce(log_py);
    if (kind_ == "sce") return log_py * (b_ - 1) + (1 - py) * (4 * b_);
    if (kind_ == "mae") return (1 - py) * 2.0;
    const Tensor right = tn::one_hot(y, f.dim(1), f.dtype());
    if (kind_ == "mse_prob") return sum(square(right - p), -1);
    if (kind_ == "js") {
      const Tensor log_m = log(maximum(right * w_ + p * (1 - w_), 1e-7));
      const Tensor of_label = -tn::pick(log_m, y), of_p = sum(p * (log_p - log_m), -1);
      return (of_label * w_ + of_p * (1 - w_)) / (-(1 - w_) * std::log(1 - w_));
    }
    if (kind_ == "rll") {
      const Tensor others = sum(log(p + a_), -1) - log(py + a_);
      return others / static_cast<double>(f.dim(1) - 1) - log(py + a_);
    }
    const Tensor nce = log_py / sum(log_p, -1) * a_;
    if (kind_ == "nce_rce") return nce + sum(p * (1 - right), -1) * ((10 - a_) * -std::log(1e-4));
    if (kind_ == "nce_agce") return nce + (std::pow(4.0, 1.5) - pow(py + 3.0, 1.5)) * ((10 - a_) / 1.5);
    return nce + (pow(6.0 - py, 1.5) - std::pow(5.0, 1.5)) * ((10 - a_) / 1.5);
  }
  // (1 - p_y^q) / q, exact where p_y is close to 1.
  Tensor gce(Tensor log_py) const { return -expm1(log_py * q_) / q_; }

  Tensor truncated(const tn::Build& b, Tensor f, Tensor y) const {
    const Tensor log_py = tn::pick(log_softmax(f), y);
    if (!b.train()) return gce(log_py);
    if (!b.has("sample_ids")) throw tn::Error("truncated_gce needs the role sample_ids");
    const Tensor ids = tn::as_index(b["sample_ids"]), old = gather(b.state("v"), ids);
    const int64_t epochs = b.total_steps() > 0 && b.step_number() > 0 && b.epoch() > 0
                               ? b.total_steps() * b.epoch() / b.step_number()
                               : 0;  // about how many there will be
    const int64_t since = b.epoch() - epochs / 2;
    if (epochs > 1 && since >= 0 && since % 10 == 0) {
      const Tensor now = cast_like(log_py > std::log(0.5), old);
      b.state("v") = tn::scatter_add(b.state("v"), ids, now - old);
    }
    return gce(log_py) * stop_gradient(cast_like(old, f));
  }

  std::string kind_;
  double q_, b_, margin_, w_, a_;
  tn::Reduction reduction_;
};

}  // namespace

TN_PLUGIN("Tenon", "1.0",
          tn::loss<RobustBaseline>("robust_baselines", "Losses robust to wrong labels: gce, sce, mae, js, nce pairs, margins",
                                   "Zhu, Ying & Yang 2023, arXiv 2112.14869"))
