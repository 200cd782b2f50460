// Comp-sum losses, a family with softmax cross-entropy in its middle, and their smooth adversarial form.
//
//   Mao, Mohri, Zhong 2023, "Cross-Entropy Loss Functions: Theoretical Analysis and Applications", ICML 2023,
//   arXiv 2304.07288
//
// h(x) in R^n: logits, y: the class, D(x) = the n - 1 numbers h(x, y) - h(x, y') for y' != y, p: softmax of h
// / rho at y, u = sum over y' != y of exp((h(x, y') - h(x, y)) / rho) = 1/p - 1.
//
// comp_sum              l = Phi(u),  Phi(u) = ((1 + u)^(1 - tau) - 1) / (1 - tau),  log(1 + u) at tau = 1
//                       tau = 0: sum-exponential 1/p - 1;  1: cross-entropy;  in (1, 2): generalised
//                       cross-entropy (1 - p^q)/q, q = tau - 1;  2: mean absolute error 1 - p.  Computed from
//                       log(1 + u) alone.
// smooth_adv_comp_sum   comp_sum at x + nu sqrt(|D(x') - D(x)|^2 + eps), x' the perturbed input; x' is chosen
// to make that
//                       distance large. With nu >= sqrt(n - 1)/rho it bounds the adversarial rho-margin loss
//                       from above.
// trades                cross-entropy at x + beta KL(softmax h(x), softmax h(x')), the baseline of Zhang et
// al. 2019,
//                       arXiv 1901.08573
//
// nu and beta may grow linearly from 0 over a first part of the run (`warmup`): from the start, a large one
// trains a network to be constant.
//
// The probe `transform` is T of the consistency bound: (zero-one regret b) <= T^-1(regret of l), with e = 2 -
// tau and c(b) = (((1 + b)^(1/e) + (1 - b)^(1/e)) / 2)^e,
//
//   T(b) = 2^(1 - tau) (1 - c) / (1 - tau)                       0 <= tau < 1
//        = (1 + b)/2 log(1 + b) + (1 - b)/2 log(1 - b)           tau = 1
//        = (c - 1) / ((tau - 1) n^(tau - 1))                     1 < tau < 2
//        = b / ((tau - 1) n^(tau - 1))                           tau >= 2
#include <cmath>

#include "tenon_plugin.hpp"

namespace {

using tn::Tensor;

constexpr double kNearOne = 1e-12;  // |1 - tau| below which tau counts as 1

// What depends on the clean input alone.
class CleanLoss {
 public:
  explicit CleanLoss(tn::Setup& s)
      : tau_(s.real("tau", 1, "member of the family; 1 is cross-entropy, 2 mean absolute error")
                 .at_least(0)
                 .finite()),
        rho_(s.real("rho", 1, "divides all margins").above(0).finite()) {}

  Tensor operator()(Tensor logits, Tensor labels) const {  // [B]
    const Tensor log_1_u = tn::cross_entropy(logits / rho_, labels);
    return std::abs(1 - tau_) < kNearOne ? log_1_u : expm1(log_1_u * (1 - tau_)) / (1 - tau_);
  }

 private:
  double tau_, rho_;
};

void declare_clean(tn::Setup& s) {
  s.input("logits", "[B, n] class scores").rank(2);
  s.input("labels", "[B] class numbers", tn::integer).rank(1);
}

class CompSum {
 public:
  struct Transform {
    static constexpr const char* name = "transform";
    int64_t classes;
    explicit Transform(tn::Setup& s) : classes(s.integer("classes", 2, "n").at_least(2)) {
      s.input("beta", "[b] zero-one regrets in [0, 1]").rank(1);
      s.input("tau", "[t]").rank(1);
    }
    void run(tn::Build& b) const {  // T [t, b]
      const Tensor beta = unsqueeze(b["beta"], 0), tau = unsqueeze(cast_like(b["tau"], b["beta"]), 1);
      b.check(all((beta >= 0.0) & (beta <= 1.0)), "beta is outside [0, 1]");
      b.check(all(tau >= 0.0), "tau is negative");
      const Tensor at_one = abs(tau - 1) < kNearOne, q = where(at_one, 1.0, tau - 1);
      // log c, from the ratio of the two powers, which is at most 1.
      const Tensor e = where(tau < 2.0, 2 - tau, 1.0), ratio = pow((1 - beta) / (1 + beta), reciprocal(e));
      const Tensor log_c = log1p(beta) + e * (log1p(ratio) - std::log(2.0));
      const Tensor by_n = q * pow(full_like(q, static_cast<double>(classes)), q);
      const Tensor below = expm1(log_c) * pow(full_like(q, 2), -q) / q, between = expm1(log_c) / by_n;
      const Tensor rest = where(beta < 1.0, 1 - beta, 1.0);  // 0 log 0 = 0
      const Tensor logistic = (1 + beta) * 0.5 * log1p(beta) + (1 - beta) * 0.5 * log(rest);
      b.emit("T", where(at_one, logistic, where(tau < 1.0, below, where(tau < 2.0, between, beta / by_n))));
    }
  };
  using Probes = tn::List<Transform>;

  explicit CompSum(tn::Setup& s) : loss_(s), reduction_(s) { declare_clean(s); }

  void build(tn::Build& b) const {
    const Tensor h = b["logits"];
    reduction_.emit(b, loss_(h, tn::class_numbers(b, b["labels"], h.dim(1))));
  }

 private:
  CleanLoss loss_;
  tn::Reduction reduction_;
};

// A weight that grows linearly over the first part of the run.
class Growing {
 public:
  Growing(tn::Setup& s, const char* name, double value, const char* help)
      : value_(s.real(name, value, help).at_least(0).finite()),
        warmup_(s.real("warmup", 0, "part of the run over which it grows from 0").at_least(0).at_most(1)) {}
  double now(const tn::Ctx& c) const {
    const double steps = warmup_ * static_cast<double>(c.total_steps());
    return c.train() && steps > 0 ? value_ * std::fmin(1, static_cast<double>(c.step_number()) / steps)
                                  : value_;
  }

 private:
  double value_, warmup_;
};

// The logits of both inputs.
struct Both {
  Tensor clean, perturbed, labels;
  static void declare(tn::Setup& s) {
    declare_clean(s);
    s.input("logits_adv",
            "[B, n] class scores of the perturbed input; in evaluation, without them the clean loss alone")
        .optional()
        .rank(2);
  }
  explicit Both(const tn::Build& b) : clean(b["logits"]) {
    labels = tn::class_numbers(b, b["labels"], clean.dim(1));
    if (const Tensor given = b["logits_adv"]) perturbed = cast_like(given, clean);
    if (!perturbed && b.train())
      throw tn::Error("the role 'logits_adv' is not bound: training needs an attack on the input");
    if (!perturbed) return;
    if (clean.dim(0) != perturbed.dim(0) || clean.dim(1) != perturbed.dim(1))
      throw tn::Error("logits are " + text(clean.shape()) + ", logits_adv " + text(perturbed.shape()) +
                      "; they must have one shape");
  }
};

class SmoothAdversarial {
 public:
  explicit SmoothAdversarial(tn::Setup& s)
      : loss_(s),
        nu_(s, "nu", 0.1, "weight of the distance between clean and perturbed margins"),
        eps_(s.real("eps", 1e-12, "inside the square root").above(0).finite()),
        reduction_(s) {
    Both::declare(s);
  }

  void build(tn::Build& b) const {
    const Both h(b);
    const Tensor clean = loss_(h.clean, h.labels);
    if (!h.perturbed) return reduction_.emit(b, clean);
    const Tensor moved = h.perturbed - h.clean, v = unsqueeze(tn::pick(moved, h.labels), 1) - moved;
    const Tensor distance = sqrt(sum(square(v), -1) + eps_);
    b.metric("distance", mean(distance));
    reduction_.emit(b, clean + distance * nu_.now(b));
  }

 private:
  CleanLoss loss_;
  Growing nu_;
  double eps_;
  tn::Reduction reduction_;
};

class Trades {
 public:
  explicit Trades(tn::Setup& s)
      : beta_(s, "beta", 6, "weight of the divergence between clean and perturbed predictions"),
        reduction_(s) {
    Both::declare(s);
  }

  void build(tn::Build& b) const {
    const Both h(b);
    const Tensor clean = tn::cross_entropy(h.clean, h.labels);
    if (!h.perturbed) return reduction_.emit(b, clean);
    const Tensor log_p = log_softmax(h.clean);
    const Tensor divergence = sum(exp(log_p) * (log_p - log_softmax(h.perturbed)), -1);
    b.metric("divergence", mean(divergence));
    reduction_.emit(b, clean + divergence * beta_.now(b));
  }

 private:
  Growing beta_;
  tn::Reduction reduction_;
};

constexpr const char* kPaper = "Mao, Mohri & Zhong 2023, arXiv 2304.07288";

}  // namespace

TN_PLUGIN("Tenon", "1.0",
          tn::loss<CompSum>("comp_sum", "From sum-exponential over cross-entropy to mean absolute error",
                            kPaper),
          tn::loss<SmoothAdversarial>("smooth_adv_comp_sum",
                                      "Comp-sum loss and how far a perturbation moves the margins", kPaper),
          tn::loss<Trades>("trades", "Cross-entropy and how far a perturbation moves the prediction",
                           "Zhang et al. 2019, arXiv 1901.08573"))
