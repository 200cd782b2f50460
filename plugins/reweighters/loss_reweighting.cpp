// Weights of the samples of a batch from their losses.
//
//   Sow, Woisetschlaeger, Bulusu, Wang, Jacobsen, Liang 2025, "Dynamic Loss-Based Sample Reweighting for Improved Large
//   Language Model Pretraining", ICLR 2025, arXiv 2502.06733
//
// Losses l_i >= 0 of the B samples of the global batch, temperature r, half range delta. The weights solve
// max over w in the simplex of  sum_i w_i f_i - r KL(w, uniform):
//
//   w_i = exp(f_i / r) / sum_j exp(f_j / r),   f_i = f(h_i),   h_i = delta (2 (l_i - min l) / (max l - min l) - 1)
//
//   linupper   f = min(h + delta, delta)     plays down the lower half of the range; the paper's main method
//   quadratic  f = 1 - h^2 / delta^2         favours the middle
//   extremes   f = |h|                       favours both ends; a negative control
//   upper      f = (h + delta) / 2           linear over the whole range
//   kl_dro     f = l, not normalised         KL-regularised distributionally robust optimisation
//   uniform    w_i = 1/B
//
// Losses that differ by less than min_range give exactly 1/B. The first burn_in steps are uniform, since losses of an
// untrained model say nothing; or r falls linearly from r_start, at step burn_in, over r_steps steps.
//
// normalize: sample  the loss is sum_i w_i l_i
//            token   the loss is B sum_i w_i (n_i / sum_j n_j) l_i, n_i the number of tokens of sample i that count: with
//                    w_i = 1/B the mean over tokens
//
// kl_dro with tracking = eta < 1 (Sow, Lin, Wang, Liang 2024, arXiv 2308.00311) divides by a running mean u of exp(l/r)
// instead of the batch's own:  u <- (1 - eta) u + eta mean exp(l/r), the first batch sets u,  c_i = exp(l_i / r) / (B u);
// sum_i c_i is not 1. log u is what is kept.
#include <cmath>

#include "tenon_plugin.hpp"

namespace {

using tn::Tensor;

// The losses of a batch, and how weights become the factors of these losses.
class Samples {
 public:
  explicit Samples(tn::Setup& s)
      : per_token_(s.text("normalize", "sample", "form of the loss; token counts longer samples more", {"sample", "token"})
                       .current == "token"),
        ignore_(s.integer("ignore_index", -100, "labels with this value count as no token")) {
    s.input("losses", "[B] loss of each sample").rank(1);
    s.input("labels", "[B, ..] class numbers; those that are not ignored are counted", tn::anything).optional();
    s.input("counts", "[B] number of tokens of each sample, in place of labels", tn::anything).optional().rank(1);
  }

  static Tensor losses(const tn::Build& b) {
    const Tensor l = b["losses"];
    if (l.numel() == 0) throw tn::Error("the batch is empty");
    b.check(is_finite(l), "a loss is NaN or infinite");
    return l;
  }
  static Tensor uniform(Tensor l) { return full_like(l, 1 / static_cast<double>(l.numel())); }

  // factors: null, the weights.
  void emit(const tn::Build& b, Tensor weights, Tensor factors = {}) const {
    b.emit("weights", weights);
    b.metric("largest_weight", max(weights));
    const Tensor n = counts(b, weights);
    if (n) b.check(n > 0.0, "a sample has no token that counts");
    if (per_token_ && !n) throw tn::Error("normalize: token needs the role 'counts', or 'labels' with class numbers");
    if (per_token_) factors = (factors ? factors : weights) * n * (static_cast<double>(weights.numel()) / sum(n));
    if (factors) b.emit("coefficients", factors);
  }

 private:
  // n [B]; null when there is nothing to count.
  Tensor counts(const tn::Build& b, Tensor like) const {
    Tensor n = b["counts"];
    if (!n) {
      n = b["labels"];
      if (!n || is_real(n)) return {};
      n = cast_like(not_equal(n, static_cast<double>(ignore_)), like);
      while (n && n.rank() > 1) n = sum(n, -1);
    }
    if (n.rank() != 1 || n.dim(0) != like.dim(0))
      throw tn::Error("there are " + std::to_string(like.dim(0)) + " losses and token counts of shape " + text(n.shape()));
    return cast_like(n, like);
  }
  static bool is_real(Tensor t) { return t.dtype() == TN_F32 || t.dtype() == TN_F64 || t.dtype() == TN_BF16; }

  bool per_token_;
  int64_t ignore_;
};

// r, and from which step on it counts.
class Temperature {
 public:
  Temperature(tn::Setup& s, double r)
      : r_(s.real("r", r, "temperature; the smaller, the farther the weights are from uniform").above(0).finite()),
        burn_in_(s.integer("burn_in", 0, "first steps with uniform weights").at_least(0)),
        falls_(s.text("r_schedule", "none", "linear: from r_start to r over r_steps steps", {"none", "linear"}).current ==
               "linear"),
        start_(s.real("r_start", 10, "of the linear schedule").above(0).finite()),
        steps_(s.integer("r_steps", 1000, "of the linear schedule").at_least(1)) {}

  bool counts(const tn::Ctx& c) const { return c.train() && c.step_number() >= burn_in_; }
  double now(const tn::Ctx& c) const {
    if (!falls_) return r_;
    const double part = static_cast<double>(c.step_number() - burn_in_) / static_cast<double>(steps_);
    return start_ + (r_ - start_) * std::fmin(1, part);
  }

 private:
  double r_;
  int64_t burn_in_;
  bool falls_;
  double start_;
  int64_t steps_;
};

struct LinUpper {
  static constexpr double r = 0.4;
  static Tensor f(Tensor h, double delta) { return minimum(h + delta, delta); }
};
struct Quadratic {
  static constexpr double r = 1;
  static Tensor f(Tensor h, double delta) { return 1 - square(h / delta); }
};
struct Extremes {
  static constexpr double r = 0.4;
  static Tensor f(Tensor h, double) { return abs(h); }
};
struct Upper {
  static constexpr double r = 0.4;
  static Tensor f(Tensor h, double delta) { return (h + delta) * 0.5; }
};

template <class Strategy>
class Normalised {
 public:
  explicit Normalised(tn::Setup& s)
      : temperature_(s, Strategy::r),
        delta_(s.real("delta", 1, "half range of the normalised losses").above(0).finite()),
        min_range_(s.real("min_range", 1e-6, "losses that differ by less have uniform weights").at_least(0).finite()),
        samples_(s) {}

  void build(tn::Build& b) const {
    const Tensor l = Samples::losses(b);
    samples_.emit(b, temperature_.counts(b) ? weights(l, temperature_.now(b)) : Samples::uniform(l));
  }

 private:
  Tensor weights(Tensor l, double r) const {
    const Tensor low = min(l), range = max(l) - low, flat = (range < min_range_) | equal(range, 0.0);
    const Tensor h = ((l - low) * 2.0 / where(flat, 1.0, range) - 1.0) * delta_;
    return where(flat, Samples::uniform(l), softmax(Strategy::f(h, delta_) / r));
  }

  Temperature temperature_;
  double delta_, min_range_;
  Samples samples_;
};

class KlDro {
 public:
  explicit KlDro(tn::Setup& s)
      : temperature_(s, 0.4),
        tracking_(s.real("tracking", 1, "eta: part of the running normaliser that the batch renews; 1: the batch's own")
                      .above(0)
                      .at_most(1)),
        samples_(s) {}

  void init(tn::Init& i) const {
    i.state("largest_weight");  // of the epoch so far
    if (tracking_ < 1) i.state("log_u", {}, -HUGE_VAL, TN_F64);
  }

  void on_epoch(tn::Ctx& c) const {
    if (c.epoch() == 0) return;
    if (value(c.state("largest_weight")) > 0.99)
      c.raw->host->log(c.raw->host, TN_LOG_WARNING,
                       "kl_dro: in the last epoch one sample had more than 0.99 of a batch's weight; r is too small for these losses");
    c.state("largest_weight") = c.constant(0);
  }

  void build(tn::Build& b) const {
    const Tensor l = Samples::losses(b);
    if (!temperature_.counts(b)) return samples_.emit(b, Samples::uniform(l));
    const double r = temperature_.now(b);
    const Tensor w = softmax(l / r), log_mean = logsumexp(l / r) - std::log(static_cast<double>(l.numel()));
    b.emit("objective", log_mean * r);
    b.state("largest_weight") = maximum(static_cast<Tensor>(b.state("largest_weight")), cast(max(w), TN_F32));
    if (tracking_ == 1) return samples_.emit(b, w);
    const Tensor old = b.state("log_u"), batch = cast_like(log_mean, old);
    const Tensor known = where(is_finite(old), old, batch), top = maximum(known, batch);
    const Tensor log_u = top + log(exp(known - top) * (1 - tracking_) + exp(batch - top) * tracking_);
    b.state("log_u") = log_u;
    b.emit("log_u", log_u);
    samples_.emit(b, w, exp(l / r - cast_like(log_u, l)) / static_cast<double>(l.numel()));
  }

 private:
  Temperature temperature_;
  double tracking_;
  Samples samples_;
};

class Uniform {
 public:
  explicit Uniform(tn::Setup& s) : samples_(s) {}
  void build(tn::Build& b) const { samples_.emit(b, Samples::uniform(Samples::losses(b))); }

 private:
  Samples samples_;
};

constexpr const char* kPaper = "Sow et al. 2025, arXiv 2502.06733";

}  // namespace

TN_PLUGIN("Tenon", "1.0",
          tn::reweighter<Normalised<LinUpper>>("linupper", "Plays down the samples whose losses are in the lower half of the range", kPaper),
          tn::reweighter<Normalised<Quadratic>>("quadratic", "Favours samples with losses in the middle of the range", kPaper),
          tn::reweighter<Normalised<Extremes>>("extremes", "Favours samples with losses at both ends of the range", kPaper),
          tn::reweighter<Normalised<Upper>>("upper", "Weights that grow with the loss over the whole range", kPaper),
          tn::reweighter<KlDro>("kl_dro", "Weights softmax(loss / r), with the batch's normaliser or a running one", kPaper),
          tn::reweighter<Uniform>("uniform", "Weights that are all alike", kPaper))
