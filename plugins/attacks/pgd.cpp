// Projected gradient attacks: steps up an objective of the model's output inside a ball around the input.
//
//   Madry et al. 2018, "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018, arXiv 1706.06083
//   Goodfellow, Shlens & Szegedy 2015, "Explaining and Harnessing Adversarial Examples", ICLR 2015, arXiv 1412.6572
//
// x: input, y: label, B: the ball of radius epsilon around x in the norm, C: the box [clip_min, clip_max], h: logits.
//
//   pgd         x' = start;  steps times: x' <- clip_C( clip_B( x' + step_size g ) )
//               g = sign(dL/dx') for linf, dL/dx' of length 1 in each sample for l2
//   pgd_worst   pgd on margin and pgd on ce; of each sample the one with the larger margin, so that it is classified
//               correctly there only if it is under both attacks
//   fgsm        x' = clip_C(x + epsilon sign(dL/dx)); with random_start a step of 1.25 epsilon from x + U(-epsilon, epsilon),
//               projected onto B (Wong, Rice & Kolter 2020, arXiv 2001.03994)
//
// start: uniform in B (l2: a random direction and a length up to epsilon), clipped to C; gauss: x + 0.001 normal; none: x;
// given: the role `start`.
//
//   objective L
//   ce                 cross-entropy
//   kl                 KL(softmax h(x), softmax h(x')), h(x) held (TRADES, arXiv 1901.08573)
//   margin             max over k != y of h_k - h_y
//   cw                 -max(h_y - max over k != y of h_k + 50, 0) (Carlini & Wagner 2017, arXiv 1608.04644)
//   margin_diff_norm   |D(x') - D(x)|, D = the differences h_y - h_k, D(x) held (Mao, Mohri & Zhong 2023, arXiv 2304.07288);
//                      its gradient at x is 0, and so is that of kl: they want a start elsewhere
//   loss               the recipe's loss
//
// kappa [B]: at how many of the steps the input before the step was classified correctly.
#include <optional>

#include "tenon_plugin.hpp"

namespace {

using tn::Tensor;

// Per sample: [B] -> [B, 1, ..] beside x.
Tensor beside(Tensor per_sample, Tensor x) {
  tn::Dims shape = x.shape();
  for (uint32_t i = 1; i < shape.n; ++i) shape.at[i] = 1;
  return reshape(per_sample, shape);
}

Tensor clip(Tensor x, Tensor low, Tensor high) { return maximum(minimum(x, high), low); }

void declare_input(tn::Setup& s) {
  s.input("input", "[B, ..] x");
  s.input("labels", "[B] class numbers; not for kl and loss", tn::anything).optional();
}

// L as a function of x', for a sample each.
class Objective {
 public:
  explicit Objective(std::string which) : which_(std::move(which)) {}
  explicit Objective(tn::Setup& s)
      : which_(s.text("objective", "ce", "what the perturbation makes large", {"ce", "kl", "margin", "cw", "margin_diff_norm", "loss"})) {}

  // What the objective compares with: h(x), held; null where it looks at x' alone.
  Tensor reference(const tn::Target& target, Tensor x) const {
    return which_ == "kl" || which_ == "margin_diff_norm" ? stop_gradient(target(x).output) : Tensor{};
  }
  struct At {
    Tensor value, correct;  // [B]; correct null without labels that are class numbers
  };
  At operator()(const tn::Build& b, const tn::Target& target, Tensor x, Tensor clean) const {
    const auto [per_sample, h] = target(x);
    if (which_ == "loss") return {per_sample, {}};
    if (h.rank() != 2) throw tn::Error("objective " + which_ + " wants outputs [B, classes], the model gives " + text(h.shape()));
    if (which_ == "kl") {
      const Tensor log_p = log_softmax(clean);
      return {sum(exp(log_p) * (log_p - log_softmax(h)), -1), {}};
    }
    const Tensor given = b["labels"];
    if (!given) throw tn::Error("objective " + which_ + " wants labels");
    const Tensor y = tn::as_index(given), right = tn::pick(h, y), is_right = tn::one_hot(y, h.dim(1), h.dtype());
    const Tensor margin = max(where(is_right > 0.0, h.dtype() == TN_F64 ? -1e300 : -1e30, h), -1) - right;
    const Tensor correct = equal(argmax(h), cast(y, TN_I64));
    if (which_ == "ce") return {tn::cross_entropy(h, y), correct};
    if (which_ == "margin") return {margin, correct};
    if (which_ == "cw") return {-relu(50 - margin), correct};
    const Tensor moved = h - clean;
    return {sqrt(sum(square(unsqueeze(tn::pick(moved, y), 1) - moved), -1) + 1e-12), correct};
  }

 private:
  std::string which_;
};

struct Box {
  double low, high;
  explicit Box(tn::Setup& s) : low(s.real("clip_min", 0, "least value of an input")), high(s.real("clip_max", 1, "largest value of an input")) {
    if (!(low < high)) throw tn::Error("clip_min must be less than clip_max");
  }
  Tensor operator()(Tensor x) const { return clip(x, scalar_like(x, low), scalar_like(x, high)); }
};

Tensor uniform_linf(Tensor x, Tensor key, double epsilon) { return x + (tn::random_uniform(key, x.shape(), x.dtype()) * 2 - 1) * epsilon; }

// Projected steps up an objective.
class Ascent {
 public:
  explicit Ascent(tn::Setup& s)
      : epsilon_(s.real("epsilon", 8.0 / 255, "radius of the ball").above(0).finite()),
        steps_(s.integer("steps", 10, "number of steps").at_least(1)),
        step_size_(s.optional_real("step_size", "default: 2.5 epsilon / steps").above(0).finite()),
        l2_(static_cast<std::string>(s.text("norm", "linf", "of the ball", {"linf", "l2"})) == "l2"),
        start_(s.text("start", "uniform", "where the first step begins", {"uniform", "gauss", "none", "given"})),
        box_(s) {
    declare_input(s);
    s.input("start", "[B, ..] the first x', with start: given").optional();
  }

  struct End {
    Tensor x_adv, kappa;  // kappa null where nothing is known to be correct
  };
  End operator()(const tn::Build& b, const tn::Target& target, const Objective& objective, Tensor key) const {
    const Tensor x = stop_gradient(b["input"]), clean = objective.reference(target, x);
    const double size = step_size_.value_or(2.5 * epsilon_ / static_cast<double>(steps_));
    End end{stop_gradient(begin(b, x, key)), {}};
    for (int64_t i = 0; i < steps_; ++i) {
      const Objective::At now = objective(b, target, end.x_adv, clean);
      if (now.correct) {
        const Tensor one = cast(now.correct, TN_I64);
        end.kappa = end.kappa ? end.kappa + one : one;
      }
      const Tensor g = grad(sum(now.value), end.x_adv);
      end.x_adv = stop_gradient(box_(project(x, end.x_adv + (l2_ ? unit(g) : sign(g)) * size)));
    }
    return end;
  }

 private:
  Tensor begin(const tn::Build& b, Tensor x, Tensor key) const {
    if (start_ == "given") {
      const Tensor given = b["start"];
      if (!given) throw tn::Error("start is given, but the role 'start' is not bound");
      if (text(given.shape()) != text(x.shape())) throw tn::Error("the role 'start' is " + text(given.shape()) + ", the input " + text(x.shape()));
      return cast_like(given, x);
    }
    if (start_ == "none") return x;
    if (start_ == "gauss") return x + tn::random_normal(key, x.shape(), x.dtype()) * 0.001;
    if (!l2_) return box_(uniform_linf(x, key, epsilon_));
    const Tensor direction = unit(tn::random_normal(tn::fold_in(key, 0), x.shape(), x.dtype()));
    return box_(x + direction * beside(tn::random_uniform(tn::fold_in(key, 1), {x.dim(0)}, x.dtype()), x) * epsilon_);
  }
  static Tensor length(Tensor d) {
    tn::Dims axes;
    for (int i = 1; i < d.rank(); ++i) axes.at[axes.n++] = i;
    return axes.n > 0 ? sqrt(sum(square(d), axes, true)) : abs(d);
  }
  static Tensor unit(Tensor g) { return g / maximum(length(g), g.dtype() == TN_F64 ? 1e-300 : 1e-30); }
  Tensor project(Tensor x, Tensor at) const {
    if (!l2_) return clip(at, x - epsilon_, x + epsilon_);
    const Tensor d = at - x;
    return x + d * minimum(epsilon_ / maximum(length(d), 1e-12), 1.0);
  }

  double epsilon_;
  int64_t steps_;
  std::optional<double> step_size_;
  bool l2_;
  std::string start_;
  Box box_;
};

class Pgd {
 public:
  static constexpr uint32_t caps = TN_CAP_STOCHASTIC;

  explicit Pgd(tn::Setup& s) : ascent_(s), objective_(s) {}

  void build(tn::Build& b, const tn::Target& target) const {
    const Ascent::End end = ascent_(b, target, objective_, b.key());
    b.emit("x_adv", end.x_adv);
    if (end.kappa) b.emit("kappa", end.kappa);
  }

 private:
  Ascent ascent_;
  Objective objective_;
};

class PgdWorst {
 public:
  static constexpr uint32_t caps = TN_CAP_STOCHASTIC;

  explicit PgdWorst(tn::Setup& s) : ascent_(s) {}

  void build(tn::Build& b, const tn::Target& target) const {
    const Objective margin("margin"), ce("ce");
    const Tensor first = ascent_(b, target, margin, tn::fold_in(b.key(), 0)).x_adv, second = ascent_(b, target, ce, tn::fold_in(b.key(), 1)).x_adv;
    const Tensor is_first = greater_equal(margin(b, target, first, {}).value, margin(b, target, second, {}).value);
    b.emit("x_adv", where(beside(is_first, first), first, second));
  }

 private:
  Ascent ascent_;
};

class Fgsm {
 public:
  static constexpr uint32_t caps = TN_CAP_STOCHASTIC;

  explicit Fgsm(tn::Setup& s)
      : epsilon_(s.real("epsilon", 8.0 / 255, "size of the perturbation").above(0).finite()),
        random_start_(s.flag("random_start", false, "step from a random place in the ball")),
        objective_(s),
        box_(s) {
    declare_input(s);
  }

  void build(tn::Build& b, const tn::Target& target) const {
    const Tensor x = stop_gradient(b["input"]), at = random_start_ ? stop_gradient(uniform_linf(x, b.key(), epsilon_)) : x;
    const Tensor g = grad(sum(objective_(b, target, at, objective_.reference(target, x)).value), at);
    const Tensor moved = at + sign(g) * (random_start_ ? 1.25 * epsilon_ : epsilon_);
    b.emit("x_adv", stop_gradient(box_(clip(moved, x - epsilon_, x + epsilon_))));
  }

 private:
  double epsilon_;
  bool random_start_;
  Objective objective_;
  Box box_;
};

constexpr const char* kMadry = "Madry et al. 2018, arXiv 1706.06083";

}  // namespace

TN_PLUGIN("Tenon", "1.0",
          tn::attack<Pgd>("pgd", "Projected gradient steps in a ball around the input", kMadry),
          tn::attack<PgdWorst>("pgd_worst", "Of each sample the worse of two projected gradient attacks", kMadry),
          tn::attack<Fgsm>("fgsm", "One signed gradient step", "Goodfellow et al. 2015, arXiv 1412.6572"))
