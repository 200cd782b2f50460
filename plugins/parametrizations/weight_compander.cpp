// Weight compander: weights that are a bounded function of the trained ones, so that none is large and few stay near zero.
//
//   Cakaj, Mehnert, Yang 2023, "Weight Compander: A Simple Weight Reparameterization for Regularization", IJCNN 2023,
//   arXiv 2306.16993
//
// v: the trained weight, w: the one that the layer uses, t = v / b; a, b > 0: one pair for each weight that is companded.
//
//   w = Psi(v; a, b) = a arctan(t),    dPsi/dv = (a/b) / (1 + t^2),    |w| < a pi/2
//
// `function` has bounded relatives of arctan, which is the paper's:
//   tanh       a tanh(t)                       below a
//   softsign   a t / (1 + |t|)                 below a
//   algebraic  a t / sqrt(1 + t^2)             below a
//   mu_law     a sign(t) log(1 + mu |t|) / log(1 + mu)           grows without bound, slowly
//   powerprop  sign(v) |v|^alpha, alpha >= 1: the opposite, it drives weights to zero (Schwarz et al. 2021); has no a, b
//   identity   v
//
// b = b_scale * (standard deviation of the initial weight) and a = a_scale * b, unless they are given; a_scale is the slope
// at zero. Training starts from v = the initial weight (`init: raw`), or from v = Psi^-1(it) (effective), where the initial
// weight is first cut to inverse_clip times the bound.
//
// With `learn` a and b are trained by the same loss, at hyper_lr_scale times the learning rate and without decay: a pair for
// each weight (layer), or one for all of them (model; the recipe says `shared: true`). They stay positive as exponentials
// (`positive: exp`), by softplus, or not at all (none): then a value that reaches 0 ends the run.
//
// The optimizer's weight decay acts on v. `decay_on: effective` adds weight_decay/2 * sum w^2 to the objective instead; the
// optimizer's own should then be 0 for these weights.
#include <cmath>

#include "tenon_plugin.hpp"

namespace {

using tn::Tensor;

constexpr double kHalfPi = 1.57079632679489661923;

struct Pair {
  Tensor a, b;
};

// 1 where x >= 0, else -1: unlike sign it has no zero, which would also be the slope of sign(x) |x| there.
Tensor side(Tensor x) { return where(x >= 0.0, tn::constant_like(x, 1), -1.0); }

class WeightCompander {
 public:
  explicit WeightCompander(tn::Setup& s)
      : function_(s.text("function", "arctan", "Psi",
                         {"arctan", "tanh", "softsign", "algebraic", "mu_law", "powerprop", "identity"})),
        b_scale_(
            s.optional_real("b_scale", "b in standard deviations of the initial weight; default 1").above(0).finite()),
        a_scale_(s.optional_real("a_scale", "a / b, the slope at zero; default 1").above(0).finite()),
        a_(s.optional_real("a", "in place of a_scale").above(0).finite()),
        b_(s.optional_real("b", "in place of b_scale").above(0).finite()),
        learn_(s.text("learn", "none", "who has a trained pair a, b", {"none", "layer", "model"})),
        positive_(s.text("positive", "exp", "how trained a and b stay positive", {"exp", "softplus", "none"})),
        hyper_lr_scale_(s.real("hyper_lr_scale", 1, "of the learning rate, for a and b").above(0).finite()),
        init_(s.text("init", "raw", "what starts at the initial weight: v or w", {"raw", "effective"})),
        inverse_clip_(
            s.real("inverse_clip", 0.999, "part of the bound that an initial weight may reach").above(0).below(1)),
        mu_(s.real("mu", 255, "of mu_law").above(0).finite()),
        alpha_(s.real("alpha", 2, "of powerprop").at_least(1).finite()),
        decay_on_(s.text("decay_on", "raw", "what is decayed: v, by the optimizer, or w", {"raw", "effective"})),
        weight_decay_(s.real("weight_decay", 0, "of w, with decay_on: effective").at_least(0).finite()) {
    s.input("raw", "[..] the trained weight");
    if (a_ && a_scale_) throw tn::Error("a and a_scale are both given; a_scale would set a");
    if (b_ && b_scale_) throw tn::Error("b and b_scale are both given; b_scale would set b");
    if (learn_ != "none" && !has_pair())
      throw tn::Error("learn: " + learn_ + " with function: " + function_ + ", which has no a and b to learn");
    if (learn_ == "model" && !b_) throw tn::Error("learn: model is one pair for weights of different scales; give b");
    if ((decay_on_ == "effective") != (weight_decay_ > 0))
      throw tn::Error("decay_on: effective and a weight_decay above 0 go together; with raw, the optimizer decays");
  }

  void init(tn::Init& i) const {
    const Tensor initial = i["raw"];
    if (has_pair()) declare_pair(i, initial);
    if (init_ == "effective") i.emit("raw", inverse(initial, pair(i)));
  }

  void build(tn::Build& b) const {
    const Pair p = pair(b);
    const Tensor w = psi(b["raw"], p);
    b.emit("weight", w);
    if (learn_ != "none") {
      b.metric("a", p.a);
      b.metric("b", p.b);
      if (positive_ == "none")
        b.check((p.a > 0.0) & (p.b > 0.0),
                "the learned a or b has reached 0; use positive: exp, or a smaller hyper_lr_scale");
    }
    if (weight_decay_ > 0) b.part("decay", sum(square(w)) * (weight_decay_ / 2));
  }

  void invert(tn::Build& b) const { b.emit("raw", inverse(b["weight"], pair(b))); }

 private:
  bool has_pair() const { return function_ != "powerprop" && function_ != "identity"; }

  void declare_pair(tn::Init& i, Tensor initial) const {
    const double b = b_ ? *b_ : b_scale_.value_or(1) * deviation(initial);
    const double a = a_ ? *a_ : a_scale_.value_or(1) * b;
    for (const auto& [name, value] : {std::pair("a", a), std::pair("b", b)}) {
      if (learn_ == "none")
        i.state(name, {}, value, initial.dtype());
      else
        i.trainable((prefix() + name).c_str(), {}, unconstrained(value), initial.dtype(), hyper_lr_scale_,
                    TN_SLOT_FLAG_NO_DECAY);
    }
  }

  static double deviation(Tensor x) {
    const double std = tn::value(sqrt(tn::var(x)));
    if (!(std > 0)) throw tn::Error("the initial weight has standard deviation 0, so it gives no scale; give a and b");
    return std;
  }

  // A trained a or b as it is stored, and back.
  std::string prefix() const {
    return positive_ == "exp" ? "log_" : positive_ == "softplus" ? "inverse_softplus_" : "";
  }
  double unconstrained(double x) const {
    return positive_ == "exp" ? std::log(x) : positive_ == "softplus" ? x + std::log(-std::expm1(-x)) : x;
  }
  Pair pair(const tn::Ctx& c) const {
    if (!has_pair()) return {};
    const auto read = [&](const char* name) -> Tensor {
      if (learn_ == "none") return c.state(name);
      const std::string stored = prefix() + name;
      const Tensor x = c.state(stored.c_str());
      return positive_ == "exp" ? exp(x) : positive_ == "softplus" ? softplus(x) : x;
    };
    return {read("a"), read("b")};
  }

  Tensor psi(Tensor v, const Pair& p) const {
    if (function_ == "identity") return v;
    if (function_ == "powerprop") return side(v) * pow(v * side(v), alpha_);
    const Tensor t = v / p.b;
    if (function_ == "tanh") return p.a * tanh(t);
    if (function_ == "softsign") return p.a * t / (1 + abs(t));
    if (function_ == "algebraic") {
      const Tensor near = tn::clamp(t, -1e9, 1e9);  // beyond, the result is +-a and t^2 may overflow
      return p.a * near / sqrt(1 + square(near));
    }
    if (function_ == "mu_law") return p.a * side(t) * log1p(t * side(t) * mu_) / std::log1p(mu_);
    return p.a * atan(t);
  }

  Tensor inverse(Tensor w, const Pair& p) const {
    if (function_ == "identity") return w;
    if (function_ == "powerprop") return side(w) * pow(w * side(w), 1 / alpha_);
    Tensor s = w / p.a;
    if (function_ == "mu_law") return p.b * side(s) * expm1(s * side(s) * std::log1p(mu_)) / mu_;
    const double limit = inverse_clip_ * (function_ == "arctan" ? kHalfPi : 1);
    s = tn::clamp(s, -limit, limit);
    if (function_ == "tanh") return p.b * (log1p(s) - log1p(-s)) * 0.5;
    if (function_ == "softsign") return p.b * s / (1 - abs(s));
    if (function_ == "algebraic") return p.b * s / sqrt(1 - square(s));
    return p.b * sin(s) / cos(s);
  }

  std::string function_;
  std::optional<double> b_scale_, a_scale_, a_, b_;
  std::string learn_, positive_;
  double hyper_lr_scale_;
  std::string init_;
  double inverse_clip_, mu_, alpha_;
  std::string decay_on_;
  double weight_decay_;
};

}  // namespace

TN_PLUGIN("Tenon", "1.0",
          tn::parametrization<WeightCompander>("weight_compander", "Weights as a bounded function of the trained ones",
                                               "Cakaj, Mehnert & Yang 2023, arXiv 2306.16993"))
