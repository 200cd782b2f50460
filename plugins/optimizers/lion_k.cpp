// Lion-K: signed momentum and its relatives, for any convex even function K.
//
//   Chen, Liu, Liang, Liu 2023, "Lion Secretly Solves Constrained Optimization: As Lyapunov Predicts", arXiv 2310.05898
//
// x: weights, g: gradient, v: momentum of the gradient (the paper's m is -v), eps: learning rate, lambda: weight decay.
//
//   c = beta1 v + (1 - beta1) g                          the old momentum
//   explicit:  x = x - eps (dK(c) + lambda x)
//   implicit:  x = (x - eps dK(c)) / (1 + eps lambda)    the form of the discrete theory
//   v = beta2 v + (1 - beta2) g
//
// It minimises f(x) + K*(lambda x) / lambda, K* being K's conjugate:
//
//   kappa         K(z)                             dK(z)                                     K*(y)
//   l1 (Lion)     sum |z_i|                        sign z                                    0 if max |y_i| <= 1
//   lp            |z|_p                            sign z (|z| / |z|_p)^(p-1)                0 if |y|_q <= 1, 1/p + 1/q = 1
//   soft          sum max(|z_i| - e, 0)            sign z [|z| > e]                          e |y|_1 if max |y_i| <= 1
//   topk          sum of the k largest |z_i|       sign z on these (ties: lowest index)      0 if |y|_1 <= k, max |y_i| <= 1
//   huber         z^2/2e if |z| <= e, |z| - e/2    clip(z, -e, e) / e                        e |y|^2 / 2 if max |y_i| <= 1
//   group_l2      sum over rows |z_row|            z_row / |z_row|                           0 if each |y_row| <= 1
//   square        |z|^2 / 2                        z                                         |y|^2 / 2
//   pseudo_huber  sum sqrt(z_i^2 + e^2)            z / sqrt(z^2 + e^2)                       -e sum sqrt(1 - y_i^2)
//
// Values to look at: constraint (<= 1 inside K*'s domain) and lyapunov, which never rises (section 3; m = -v):
//
//   H = f(x) + K*(lambda x)/lambda + a (K*(lambda x) + K(m) - lambda x.m),  a = eps beta1 / (eps lambda (1-beta1) + 1-beta2)
#include <cmath>
#include <limits>

#include "tenon_plugin.hpp"

namespace {

using tn::Tensor;

class LionK {
 public:
  explicit LionK(tn::Setup& s)
      : lr_(s.real("lr", 1e-4, "learning rate").above(0).finite()),
        beta1_(s.real("beta1", 0.9, "share of the momentum in the direction").at_least(0).below(1)),
        beta2_(s.real("beta2", 0.99, "decay of the momentum").at_least(0).below(1)),
        decay_(s.real("weight_decay", 0, "lambda: decoupled weight decay").at_least(0).finite()),
        kappa_(s.text("kappa", "l1", "the convex function K",
                      {"l1", "lp", "soft", "topk", "huber", "group_l2", "square", "pseudo_huber"})),
        p_(s.real("kappa_p", 2, "p of lp").at_least(1).finite()),
        e_(s.real("kappa_eps", 1e-3, "e of soft, huber and pseudo_huber").above(0).finite()),
        k_(s.integer("kappa_k", 1, "k of topk").at_least(1)),
        global_(static_cast<std::string>(s.text("scope", "tensor", "over what lp and topk run", {"tensor", "global"})) == "global"),
        implicit_(static_cast<std::string>(s.text("update", "explicit", "form of the step", {"explicit", "implicit"})) == "implicit"),
        diagnostics_(s.flag("diagnostics", false, "report constraint and lyapunov")) {
    if (!implicit_ && lr_ * decay_ > 1)
      throw tn::Error("lr * weight_decay is " + std::to_string(lr_ * decay_) + "; the explicit update wants at most 1");
  }

  void init(tn::Init& i) const { i.per_param("m"); }

  // Without a norm or a selection over a tensor, all tensors may come as one vector.
  bool is_elementwise() const { return kappa_ != "lp" && kappa_ != "topk" && kappa_ != "group_l2" && !diagnostics_; }

  void step(tn::Step& s) const {
    std::vector<Tensor> x, v, c;
    for (tn::Param p : s) {
      x.push_back(p.value());
      v.push_back(p["m"]);
      c.push_back(v.back() * beta1_ + p.grad() * (1 - beta1_));
      s.check(is_finite(sum(p.grad())), (std::string("the gradient of '") + p.name() + "' is not finite").c_str());
    }
    const std::vector<Tensor> u = slope(c, s);
    for (tn::Param p : s) {
      const Tensor w = p.value(), step = u[p.index] * s.lr();
      p.update(implicit_ ? (w - step) / (1 + s.lr() * decay_) : w - (step + w * (s.lr() * decay_)));
      p["m"] = v[p.index] * beta2_ + p.grad() * (1 - beta2_);
    }
    diagnose(s, x, v);
  }

 private:
  // dK at z, which holds one tensor for each parameter.
  std::vector<Tensor> slope(const std::vector<Tensor>& z, const tn::Step& s) const {
    std::vector<Tensor> out;
    if (global_ && (kappa_ == "lp" || kappa_ == "topk")) {
      const Tensor all = slope(joined(z), "all parameters");
      int64_t at = 0;
      for (const Tensor& t : z) {
        out.push_back(reshape(narrow(all, 0, at, t.numel()), t.shape()));
        at += t.numel();
      }
      return out;
    }
    for (size_t i = 0; i < z.size(); ++i) out.push_back(slope(z[i], s[static_cast<uint32_t>(i)].name()));
    return out;
  }

  Tensor slope(Tensor z, const std::string& name) const {
    if (kappa_ == "l1" || (kappa_ == "lp" && p_ == 1)) return sign(z);
    if (kappa_ == "lp") {
      const Tensor scaled = scale_down(z), norm = pow(sum(pow(abs(scaled), p_)), 1 / p_);
      return sign(z) * pow(abs(scaled) / where(norm > 0.0, norm, 1.0), p_ - 1);
    }
    if (kappa_ == "soft") return where(abs(z) > e_, sign(z), 0.0);
    if (kappa_ == "topk") {
      if (k_ > z.numel()) throw tn::Error("kappa_k is " + std::to_string(k_) + ", but '" + name + "' has " + std::to_string(z.numel()) + " elements");
      const Tensor flat = tn::flatten(z), index = tn::top_k(abs(flat), k_)[1];
      const Tensor chosen = tn::scatter_add(zeros_like(flat), index, sign(gather(flat, index)));
      return reshape(chosen, z.shape());
    }
    if (kappa_ == "huber") return maximum(minimum(z, e_), -e_) / e_;
    if (kappa_ == "group_l2") {
      const Tensor norm = row_norms(z);
      return z / where(norm > 0.0, norm, 1.0);
    }
    if (kappa_ == "square") return z;
    return z / sqrt(square(z) + e_ * e_);
  }

  static Tensor joined(const std::vector<Tensor>& z) {
    std::vector<Tensor> flat;
    for (const Tensor& t : z) flat.push_back(tn::flatten(t));
    return tn::concat(flat);
  }
  static Tensor scale_down(Tensor z) {
    const Tensor top = max(abs(z));
    return z / where(top > 0.0, top, 1.0);
  }
  static Tensor norm(Tensor z, double p) {
    const Tensor top = max(abs(z));
    return top * pow(sum(pow(abs(scale_down(z)), p)), 1 / p);
  }
  // The 2-norm of each row, [rows, 1, ..]; an element of a vector is a row.
  static Tensor row_norms(Tensor z) {
    tn::Dims rest;
    for (int i = 1; i < z.rank(); ++i) rest.at[rest.n++] = i;
    return rest.n == 0 ? abs(z) : sqrt(sum(square(z), rest, true));
  }

  Tensor value(Tensor z) const {  // K
    const Tensor a = abs(z);
    if (kappa_ == "l1" || (kappa_ == "lp" && p_ == 1)) return sum(a);
    if (kappa_ == "lp") return norm(z, p_);
    if (kappa_ == "soft") return sum(relu(a - e_));
    if (kappa_ == "topk") return sum(tn::top_k(tn::flatten(a), k_)[0]);
    if (kappa_ == "huber") return sum(where(a <= e_, square(z) / (2 * e_), a - e_ / 2));
    if (kappa_ == "group_l2") return sum(row_norms(z));
    if (kappa_ == "square") return sum(square(z)) * 0.5;
    return sum(sqrt(square(z) + e_ * e_));
  }
  Tensor conjugate(Tensor y) const {  // K* inside its domain
    if (kappa_ == "soft") return sum(abs(y)) * e_;
    if (kappa_ == "huber") return sum(square(y)) * (e_ / 2);
    if (kappa_ == "square") return sum(square(y)) * 0.5;
    if (kappa_ == "pseudo_huber") return sum(sqrt(relu(1 - square(y)))) * -e_;
    return sum(y) * 0.0;
  }
  Tensor gauge(Tensor y) const {  // at most 1 inside the domain of K*
    if (kappa_ == "lp" && p_ > 1) return norm(y, p_ / (p_ - 1));
    if (kappa_ == "topk") return maximum(sum(abs(y)) / static_cast<double>(k_), max(abs(y)));
    if (kappa_ == "group_l2") return max(row_norms(y));
    if (kappa_ == "square") return max(abs(y)) * 0.0;
    return max(abs(y));
  }

  // Free unless somebody looks.
  void diagnose(const tn::Step& s, std::vector<Tensor> x, std::vector<Tensor> v) const {
    if (decay_ == 0 || x.empty()) return;  // there is no constraint then
    if (global_) x = {joined(x)}, v = {joined(v)};
    Tensor constraint, conjugates, bracket;
    for (size_t i = 0; i < x.size(); ++i) {
      const Tensor y = x[i] * decay_, g = gauge(y), k = conjugate(y), b = k + value(v[i]) + sum(y * v[i]);
      constraint = constraint ? maximum(constraint, g) : g;
      conjugates = conjugates ? conjugates + k : k;
      bracket = bracket ? bracket + b : b;
    }
    const int32_t as = diagnostics_ ? TN_OUT_METRIC : TN_OUT_VALUE;
    s.emit("constraint", constraint, as);
    const Tensor f = s.loss();
    if (!f) return;
    const double a = s.lr() * beta1_ / (s.lr() * decay_ * (1 - beta1_) + (1 - beta2_));
    const Tensor h = cast_like(f, conjugates) + conjugates / decay_ + bracket * a;
    s.emit("lyapunov", where(constraint <= 1 + 1e-12, h, std::numeric_limits<double>::infinity()), as);
  }

  double lr_, beta1_, beta2_, decay_;
  std::string kappa_;
  double p_, e_;
  int64_t k_;
  bool global_, implicit_, diagnostics_;
};

}  // namespace

TN_PLUGIN("Tenon", "1.0",
          tn::optimizer<LionK>("lion_k", "Lion and its relatives: momentum through a convex function's slope",
                               "Chen, Liu, Liang & Liu 2023, arXiv 2310.05898"))
