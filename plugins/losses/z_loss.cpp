// The spherical family of classification losses: the Z-loss, log-Taylor and log-spherical softmax, squared
// error; and an output layer whose training step does not cost more when there are more classes.
//
//   de Brebisson, Vincent 2016, "The Z-loss: a shift and scale invariant classification loss belonging to the
//   Spherical Family", arXiv 1604.08859 de Brebisson, Vincent 2016, "An Exploration of Softmax Alternatives
//   Belonging to the Spherical Loss Family", ICLR 2016, arXiv 1511.05042 Vincent, de Brebisson, Bouthillier
//   2015, "Efficient Exact Gradient Update for Training Deep Networks with Very Large Sparse Targets",
//   NeurIPS 2015, arXiv 1412.7091
//
// o in R^D: scores, c: target class. A loss is spherical if it depends on o through o_c, q = sum o_k^2 and s
// = sum o_k:
//
//   kind                    L
//   z_loss                  softplus(a (b - z)) / a,  z = (o_c - mu) / sigma,  mu = s/D,  sigma^2 = q/D -
//   mu^2 + eps log_taylor_softmax      log(D + s + q/2) - log(1 + o_c + o_c^2/2) log_spherical_softmax log(q
//   + D eps) - log(o_c^2 + eps) mse                     q - 2 o_c + 1, the squared error to the one-hot
//   target
//
// a: sharpness; b: target of z, in standard deviations; eps: 1e-12 (z_loss), 0.01 (log_spherical_softmax).
//
// spherical_loss (z_loss: with that kind) takes scores. The Z-loss does not change when a number is added to
// all scores, so it is computed from centred ones, where the variance does not cancel.
//
// factored_spherical_output takes the last hidden layer H [m, d] and owns the output weights W [D, d], o = W
// h, trained by plain SGD: W <- W - eta dL/dW, with eta the recipe's rate and its schedule unless
// `learning_rate` is given. With F_a, F_q, F_s the derivatives of L by o_c, q, s (each sample's times the
// weight of its loss), dL/do = F_a e_c + 2 F_q o + F_s 1 makes that step one of rank 2m + 1 on all of W and
// of m rows, and W is kept as
//
//   W = V U + 1 omega^T,   with Ui = U^-1,  Q = W^T W,  wbar = W^T 1
//
// 1  q = h.Qh,  s = h.wbar,  w_c = U^T V_c + omega,  o_c = w_c.h;   dL/dh = 2 F_q Q h + F_s wbar + F_a w_c
// 2  A = H^T diag(2 eta F_q),  M = I - A H,  u = eta H^T F_s,  t = eta H^T F_a,  P = sum eta F_a w_c h^T
// 3  Q <- M Q M - M wbar u^T - u (M wbar)^T + D u u^T - M P - (M P)^T + u t^T + t u^T + sum_k r_k r_k^T,
//    r_k = the sum of eta F_a h over the samples of class k
// 4  wbar <- M wbar - D u - t,   omega <- M omega - u,   U <- U - (U A) H,   Ui <- Ui + A (I - H A)^-1 (H Ui)
// 5  V_k <- V_k - r_k Ui (the new one)
//
// in O(m d^2 + m^2 d + m^3), whatever D. All but V is kept in f64. Before every stabilize_every-th step
// singular values of U outside [1/2, 2] are brought to 1, moving their part to V; if more than a third are,
// all of U goes to V. W stays the same.
#include <cmath>
#include <limits>

#include "tenon_plugin.hpp"

namespace {

using tn::Tensor;

// L and its options.
class Spherical {
 public:
  explicit Spherical(tn::Setup& s, const char* fixed_kind = nullptr)
      : kind_(fixed_kind ? std::string(fixed_kind)
                         : s.text("kind", "z_loss", "member of the family",
                                  {"z_loss", "log_taylor_softmax", "log_spherical_softmax", "mse"})),
        a_(s.real("a", 1, "of the Z-loss: sharpness").above(0).finite()),
        b_(s.real("b", 0, "of the Z-loss: target, in standard deviations").finite()) {
    const std::optional<double> eps =
        s.optional_real("eps", "added to squares; default: 1e-12, of log_spherical_softmax 0.01")
            .at_least(0)
            .finite();
    eps_ = eps.value_or(kind_ == "log_spherical_softmax" ? 0.01 : 1e-12);
    if (kind_ == "log_spherical_softmax" && eps_ == 0)
      throw tn::Error("eps is 0; log_spherical_softmax needs more");
  }

  bool shift_invariant() const { return kind_ == "z_loss"; }

  // L [m] of o_c, q and s [m], for D classes.
  Tensor operator()(Tensor target, Tensor q, Tensor s, int64_t classes) const {
    const double d = static_cast<double>(classes);
    if (kind_ == "z_loss") {
      const Tensor mu = s / d, sigma = sqrt(maximum(q / d - square(mu), 0.0) + eps_);
      return softplus((b_ - (target - mu) / sigma) * a_) / a_;
    }
    if (kind_ == "log_taylor_softmax") return log(s + q * 0.5 + d) - log(1 + target + square(target) * 0.5);
    if (kind_ == "log_spherical_softmax") return log(q + d * eps_) - log(square(target) + eps_);
    return q - target * 2 + 1;
  }

 private:
  std::string kind_;
  double a_, b_, eps_ = 0;
};

class SphericalLoss {
 public:
  explicit SphericalLoss(tn::Setup& s, const char* kind = nullptr) : loss_(s, kind), reduction_(s) {
    s.input("logits", "[B, D] class scores o").rank(2);
    s.input("labels", "[B] class numbers", tn::integer).rank(1);
  }

  void build(tn::Build& b) const {
    Tensor o = b["logits"];
    const Tensor labels = tn::class_numbers(b, b["labels"], o.dim(1));
    b.check(all(is_finite(o)), "a score is not finite");
    if (loss_.shift_invariant()) o = o - mean(o, -1, true);
    const Tensor s = loss_.shift_invariant() ? zeros_like(labels_like(o)) : sum(o, -1);
    reduction_.emit(b, loss_(tn::pick(o, labels), sum(square(o), -1), s, o.dim(1)));
  }

 private:
  static Tensor labels_like(Tensor o) { return squeeze(tn::narrow(o, 1, 0, 1), 1); }

  Spherical loss_;
  tn::Reduction reduction_;
};

struct ZLoss : SphericalLoss {
  explicit ZLoss(tn::Setup& s) : SphericalLoss(s, "z_loss") {}
};

// The slots: V [D, d]; U, Ui, Q [d, d]; omega, wbar [d].
struct Factors {
  Tensor v, u, ui, q, omega, wbar;

  static Factors get(const tn::Ctx& c) {
    return {c.state("V"), c.state("U"), c.state("Ui"), c.state("Q"), c.state("omega"), c.state("wbar")};
  }
  void set(const tn::Ctx& c) const {
    c.state("V") = v;
    c.state("U") = u;
    c.state("Ui") = ui;
    c.state("Q") = q;
    c.state("omega") = omega;
    c.state("wbar") = wbar;
  }
  int64_t classes() const { return v.dim(0); }
  Tensor weights() const { return matmul(cast(v, TN_F64), u) + omega; }  // W
};

Tensor identity(const tn::Ctx& c, int64_t n) { return tn::one_hot(c.arange(n), n, TN_F64); }
Tensor column(Tensor x) { return unsqueeze(x, 1); }
Tensor outer(Tensor a, Tensor b) { return column(a) * unsqueeze(b, 0); }

class FactoredOutput {
 public:
  static constexpr uint32_t caps =
      TN_CAP_WHOLE_BATCH | TN_CAP_STATEFUL | TN_CAP_OWN_UPDATES | TN_CAP_HOST_VALUES | TN_CAP_FIRST_ORDER;
  static constexpr const char* first_order_reason = "the output weights change as the gradient passes";

  explicit FactoredOutput(tn::Setup& s)
      : loss_(s),
        classes_(s.integer("classes", 0, "D, where W0 is not given").at_least(0)),
        rate_(s.optional_real("learning_rate", "eta; default: the recipe's, with its schedule")
                  .above(0)
                  .finite()),
        stabilize_every_(
            s.integer("stabilize_every", 100, "steps between stabilisations; 0: never").at_least(0)),
        reduction_(s) {
    s.input("embeddings", "[B, d] last hidden layer H").rank(2);
    s.input("labels", "[B] class numbers", tn::integer).rank(1);
    s.input("W0", "[D, d] initial output weights; default: uniform within 1/sqrt(d)")
        .optional()
        .constant()
        .rank(2);
  }

  void init(tn::Init& i) const {
    const Tensor h = i["embeddings"];
    const int64_t d = h.dim(1);
    Tensor w = i["W0"];
    if (!w) {
      if (classes_ < 2) throw tn::Error("the number of classes is needed: give `classes` or bind W0");
      w = (random_uniform(tn::fold_in(i.key(), 0), {classes_, d}) * 2 - 1) /
          std::sqrt(static_cast<double>(d));
    }
    if (w.dim(1) != d)
      throw tn::Error("W0 has " + std::to_string(w.dim(1)) + " columns, the embeddings " + std::to_string(d));
    w = stop_gradient(h.dtype() == TN_F64 ? cast(w, TN_F64) : cast(w, TN_F32));
    const Tensor wide = cast(w, TN_F64);
    i.state("V", w);
    i.state("U", identity(i, d));
    i.state("Ui", identity(i, d));
    i.state("Q", matmul(wide, wide, true));
    i.state("omega", {d}, 0, TN_F64);
    i.state("wbar", sum(wide, 0));
  }

  void build(tn::Build& b) const {
    Factors f = Factors::get(b);
    const Tensor given = b["embeddings"], labels = tn::class_numbers(b, b["labels"], f.classes());
    b.check(all(is_finite(given)), "an embedding is not finite");
    b.check(all(is_finite(f.ui)),
            "the learning rate was too large for the factored update: U can't be inverted");
    if (b.train() && stabilize_every_ > 0 && b.step_number() > 0 && b.step_number() % stabilize_every_ == 0)
      f = stabilised(b, f);

    const Tensor h = stop_gradient(cast(given, TN_F64)), hq = matmul(h, f.q);
    const Tensor wc = matmul(cast(gather(f.v, labels), TN_F64), f.u) + f.omega;
    const Tensor oc = sum(wc * h, -1), q = sum(hq * h, -1), s = sum(h * f.wbar, -1);
    const Tensor losses = loss_(oc, q, s, f.classes());
    const std::vector<Tensor> partials = grad(losses, {oc, q, s});

    struct Step {
      double rate;
      void operator()(tn::Vjp& v) const { step(v, rate); }
    };
    const Tensor value = cast(losses, given.dtype());
    reduction_.emit(b, tn::custom_gradient(value,
                                           {given, labels, hq, wc, partials[0], partials[1], partials[2], f.v,
                                            f.u, f.ui, f.q, f.omega, f.wbar},
                                           Step{rate_.value_or(b.lr())}));
  }

  void after_step(tn::Ctx& c) const { c.emit("W", Factors::get(c).weights()); }

 private:
  // The gradient of H, and the SGD step.
  static void step(tn::Vjp& v, double rate) {
    const tn::Ctx c{v.y.ctx};
    const Tensor given = v.x(0), labels = v.x(1), hq = v.x(2), wc = v.x(3),
                 weight = cast(v.cotangent, TN_F64);
    const Tensor fa = v.x(4) * weight, fq = v.x(5) * weight, fs = v.x(6) * weight;
    const Factors f{v.x(7), v.x(8), v.x(9), v.x(10), v.x(11), v.x(12)};
    v[0] = cast_like(column(fq * 2) * hq + outer(fs, f.wbar) + column(fa) * wc, given);

    const Tensor h = cast(given, TN_F64), eta = constant_like(h, 1) * rate;
    const Tensor q2 = column(fq * eta * 2), a = transpose(h * q2);  // A [d, m]
    const Tensor r = h * column(fa * eta);                          // [m, d]
    const Tensor u = sum(h * column(fs * eta), 0), t = sum(r, 0);
    const double classes = static_cast<double>(f.classes());
    const auto times_m = [&](Tensor x) { return x - matmul(matmul(x, a), h); };  // x M, of rows
    const auto times_m_1 = [&](Tensor x) { return squeeze(times_m(unsqueeze(x, 0)), 0); };
    const Tensor same = cast(equal(column(labels), unsqueeze(labels, 0)), TN_F64), mw = times_m_1(f.wbar);

    // All that is added to Q has the form H^T Y + Y^T H.
    const Tensor from_m = q2 * (matmul(matmul(hq, a), h) * 0.5 - hq);
    const Tensor from_shift = column(fs * eta) * (u * (classes / 2) + t - mw);
    const Tensor from_classes = column(fa * eta) * (matmul(same, r) * 0.5 - times_m(wc));
    const Tensor change_q = matmul(h, from_m + from_shift + from_classes, true);

    Factors next;
    next.q = f.q + change_q + transpose(change_q);
    next.wbar = mw - u * classes - t;
    next.omega = times_m_1(f.omega) - u;
    next.u = f.u - matmul(matmul(f.u, a), h);
    // A singular matrix is reported by the next step, when it finds that Ui is not finite.
    const Tensor k = identity(c, h.dim(0)) - matmul(h, a), solvable = is_finite(logdet(k));
    const Tensor change = matmul(a, tn::solve(where(solvable, k, identity(c, h.dim(0))), matmul(h, f.ui)));
    next.ui = f.ui + where(solvable, change, std::numeric_limits<double>::quiet_NaN());
    next.v = tn::scatter_add(f.v, labels, cast_like(-matmul(r, next.ui), f.v));
    next.set(c);
  }

  // V U written with another V and U, the singular values of U near 1.
  static Factors stabilised(const tn::Build& b, Factors f) {
    const auto [values, x] = tn::eigh(matmul(f.u, f.u, false, true));
    const Tensor sizes = sqrt(maximum(values, 0.0)), outside = (sizes < 0.5) | (sizes > 2.0);
    const int64_t d = sizes.dim(0), n = static_cast<int64_t>(value(sum(cast(outside, TN_F64))));
    if (n == 0) return f;
    if (3 * n > d) {
      f.v = cast_like(f.weights(), f.v);
      f.u = f.ui = identity(b, d);
      f.omega = f.omega * 0.0;
      return f;
    }
    // U <- X diag(1/size) X^T U and V <- V X diag(size) X^T, for these.
    const Tensor factor = where(outside, sizes, 1.0), xt = transpose(x);
    f.v = cast_like(matmul(cast(f.v, TN_F64), matmul(x * factor, xt)), f.v);
    f.u = matmul(x / factor, matmul(xt, f.u));
    f.ui = inverse(f.u);
    return f;
  }

  Spherical loss_;
  int64_t classes_;
  std::optional<double> rate_;
  int64_t stabilize_every_;
  tn::Reduction reduction_;
};

constexpr const char* kPaper = "de Brebisson & Vincent 2016, arXiv 1604.08859";

}  // namespace

TN_PLUGIN("Tenon", "1.0",
          tn::loss<SphericalLoss>("spherical_loss",
                                  "Losses of a score, the sum and the sum of squares of all scores", kPaper),
          tn::loss<ZLoss>("z_loss", "The target's score in standard deviations above the mean", kPaper),
          tn::loss<FactoredOutput>(
              "factored_spherical_output",
              "Output layer and spherical loss in one, at a cost that does not grow with the classes",
              "Vincent et al. 2015, arXiv 1412.7091; de Brebisson & Vincent 2016, arXiv 1604.08859"))
