// Self-distillation of kernel ridge regression, exactly.
// Borup & Andersen 2021, "Even your Teacher Needs Guidance: Ground-Truth Targets Dampen Regularization Imposed by
// Self-Distillation", arXiv 2102.13088.
//
// Data X [n, p], targets Y [n, C] (columns are independent), kernel K = k(X, X), ridge lambda; Y^(0) = Y. Fit t solves
//   min_f alpha_t/2 |Y - f(X)|^2 + (1 - alpha_t)/2 |Y^(t-1) - f(X)|^2 + lambda/2 |f|_H^2     (sums over samples, not means)
//   c_t = (K + lambda I)^-1 (alpha_t Y + (1 - alpha_t) Y^(t-1)),  Y^(t) = K c_t,  f_t(x) = k(x)^T c_t
// so that fit 1 is ordinary ridge regression. As the solve is linear, with h_t = (K + lambda I)^-1 K c_(t-1),
//   c_t = alpha_t c_1 + (1 - alpha_t) h_t:                         one factorisation, then two triangular solves a step.
// The same along the eigenvectors of K = V diag(d) V^T, with A = d / (d + lambda):
//   Y^(t) = V diag(B_t) V^T Y,  B_1 = A,  B_t = A (alpha_t + (1 - alpha_t) B_(t-1))
// Constant alpha, infinitely many steps: the ridge problem with lambda / alpha,
//   c_inf = alpha (alpha K + lambda I)^-1 Y                        (written so, it is zero for alpha = 0).
// The alpha_t that minimises the error on held-out (X_v, y_v), with f = f_1(X_v) and g = k(X_v)^T h_t:
//   alpha_t* = <y_v - g, f - g> / |f - g|^2, over all outputs; 1 where f = g.
//
// All of it is float64, whatever the recipe's precision; a recipe with precision f64 keeps the data exact, too.
#include <cstdlib>

#include "tenon_plugin.hpp"

namespace {

using tn::Tensor;

class KernelRidge {
 public:
  explicit KernelRidge(tn::Setup& s)
      : kernel_(s.text("kernel", "rbf",
                       "rbf: exp(-gamma |x-x'|^2), laplace: exp(-gamma |x-x'|), linear: <x, x'>, precomputed: a row holds k(x, x_i) of "
                       "all training samples in order",
                       {"rbf", "laplace", "linear", "precomputed"})),
        gamma_(s.optional_real("gamma", "of rbf and laplace; default 1 / features").above(0)),
        lambda_(s.real("lambda", 0.1, "ridge, beside a sum of squares").above(0).finite()),
        steps_(s.integer("steps", 0, "fits, the first included; 0: as many as alphas, or 6").at_least(0).at_most(1000)),
        alpha_(s.text("alpha", "0.35", "weight of the ground truth in [0, 1], or 'optimal': the best on the validation data")),
        alphas_(s.reals("alphas", "a weight for each fit, in place of alpha; the first is not used").at_least(0).at_most(1)),
        clip_(s.flag("clip_alpha", true, "optimal weights are clipped to [0, 1]")) {
    if (steps_ == 0) steps_ = alphas_.empty() ? 6 : static_cast<int64_t>(alphas_.size());
    if (!alphas_.empty() && static_cast<int64_t>(alphas_.size()) < steps_)
      throw tn::Error("alphas has " + std::to_string(alphas_.size()) + " entries for " + std::to_string(steps_) + " steps");
    if (!alphas_.empty() || optimal()) return;
    char* end = nullptr;
    const double alpha = std::strtod(alpha_.c_str(), &end);
    if (alpha_.empty() || *end || !(alpha >= 0 && alpha <= 1))
      throw tn::Error("option 'alpha' is '" + alpha_ + "'; it must be a number in [0, 1] or 'optimal'");
    alphas_.assign(static_cast<size_t>(steps_), alpha);
  }

  int64_t steps() const { return steps_; }
  double lambda() const { return lambda_; }
  bool optimal() const { return alphas_.empty() && alpha_ == "optimal"; }
  // Whether all steps weigh alike, so that there is a limit; alpha() is the weight then.
  bool constant() const {
    for (size_t t = 2; t < alphas_.size(); ++t)
      if (alphas_[t] != alphas_[1]) return false;
    return alphas_.size() > 1;
  }
  double alpha() const { return alphas_[1]; }
  double alpha(int64_t t) const { return alphas_.at(static_cast<size_t>(t - 1)); }

  // a: [m, p], x: [n, p] of training -> [m, n]
  Tensor kernel(Tensor a, Tensor x) const {
    if (a.dim(1) != x.dim(1))
      throw tn::Error("samples have " + std::to_string(a.dim(1)) + " features here, " + std::to_string(x.dim(1)) + " in training");
    if (kernel_ == "precomputed") {
      if (a.dim(1) != x.dim(0))
        throw tn::Error("a precomputed kernel has a column for each of the " + std::to_string(x.dim(0)) + " training samples, not " +
                        std::to_string(a.dim(1)));
      return a;
    }
    const Tensor products = matmul(a, x, false, true);
    if (kernel_ == "linear") return products;
    const double gamma = gamma_ ? *gamma_ : 1.0 / static_cast<double>(x.dim(1));
    const Tensor distance = maximum(sum(square(a), 1, true) + unsqueeze(sum(square(x), 1), 0) - products * 2.0, 0.0);
    return exp((kernel_ == "rbf" ? distance : sqrt(distance)) * -gamma);
  }

  // The coefficients of the fits 1, 2, .. [n, C] and the weights of the fits from the second on.
  struct Course {
    std::vector<Tensor> coefficients, alphas;
  };
  // k: [n, n], y: [n, C]; k_valid: [m, n] and y_valid: [m, C] where the weights are optimal.
  Course fit(const tn::Ctx& c, Tensor k, Tensor y, Tensor k_valid, Tensor y_valid) const {
    if (optimal() && (!k_valid || !y_valid)) throw tn::Error("alpha 'optimal' needs validation data");
    const Tensor l = cholesky(k + ridge(c, k));
    const auto solve = [&](Tensor b) { return triangular_solve(l, triangular_solve(l, b), true, true); };
    Course out;
    out.coefficients.push_back(solve(y));
    const Tensor first = out.coefficients[0];
    for (int64_t t = 2; t <= steps_; ++t) {
      const Tensor h = solve(matmul(k, out.coefficients.back()));
      const Tensor a = optimal() ? best_alpha(y_valid, matmul(k_valid, first), matmul(k_valid, h)) : c.scalar(alpha(t), TN_F64);
      out.alphas.push_back(a);
      out.coefficients.push_back(first * a + h * (1.0 - a));
    }
    return out;
  }
  // Of constant weights.
  Tensor limit(const tn::Ctx& c, Tensor k, Tensor y) const {
    const Tensor l = cholesky(k * alpha() + ridge(c, k));
    return triangular_solve(l, triangular_solve(l, y), true, true) * alpha();
  }

  // [n, C] of targets as they come: [n] or [n, C].
  static Tensor outputs(Tensor y) {
    const tn_dtype t = y.dtype();
    if (t != TN_F64 && t != TN_F32)
      throw tn::Error("the targets are class numbers; read them as numbers, or convert them with the transform one_hot (column: \"y\")");
    return cast(y.rank() == 1 ? unsqueeze(y, -1) : y, TN_F64);
  }
  static Tensor samples(Tensor x) { return cast(x.rank() == 2 ? x : reshape(x, {x.dim(0), -1}), TN_F64); }
  // Of the training samples; read here, since no factorisation can say what was wrong.
  void check(Tensor k) const {
    if (value(all(is_finite(k))) == 0) throw tn::Error("the kernel matrix of the training samples has values that are not finite");
    if (kernel_ == "precomputed" && value(max(abs(k - transpose(k))) <= max(abs(k)) * 1e-9) == 0)
      throw tn::Error("the kernel matrix of the training samples is not symmetric");
  }

 private:
  // lambda I
  Tensor ridge(const tn::Ctx& c, Tensor k) const { return one_hot(c.arange(k.dim(0)), k.dim(0), TN_F64) * lambda_; }
  Tensor best_alpha(Tensor y, Tensor f, Tensor g) const {
    const Tensor gap = f - g, square_gap = sum(square(gap)), none = equal(square_gap, 0.0);
    const Tensor best = where(none, 1.0, sum((y - g) * gap) / where(none, 1.0, square_gap));
    return clip_ ? clamp(best, 0, 1) : best;
  }

  std::string kernel_;
  std::optional<double> gamma_;
  double lambda_;
  int64_t steps_;
  std::string alpha_;
  std::vector<double> alphas_;
  bool clip_;
};

// Fits the training part of the recipe's data and reports the mean square errors of every fit.
class SelfDistillationKrr {
 public:
  explicit SelfDistillationKrr(tn::Setup& s) : ridge_(s) {}

  void run(tn::Ctx& c) const {
    const tn::Data data{c};
    tn::Session s(c, 0);
    const Tensor x = KernelRidge::samples(data.rows(s, "train", "x")), y = KernelRidge::outputs(data.rows(s, "train", "y"));
    std::vector<Part> parts;
    for (const char* split : {"train", "val", "test"}) {
      if (data.count(split) == 0) continue;
      const Tensor inputs = KernelRidge::samples(data.rows(s, split, "x"));
      parts.push_back({split, ridge_.kernel(inputs, x), KernelRidge::outputs(data.rows(s, split, "y"))});
    }
    const Tensor k = parts[0].kernel;
    ridge_.check(k);
    const Part* valid = parts.size() > 1 && parts[1].split == "val" ? &parts[1] : nullptr;
    const KernelRidge::Course course = ridge_.fit(s, k, y, valid ? valid->kernel : Tensor{}, valid ? valid->y : Tensor{});

    std::vector<Tensor> errors;  // [fit][part], then those of the limit
    for (const Tensor& coefficients : course.coefficients)
      for (const Part& p : parts) errors.push_back(p.error(coefficients));
    if (ridge_.constant()) {
      const Tensor limit = ridge_.limit(s, k, y);
      for (const Part& p : parts) errors.push_back(p.error(limit));
    }
    std::vector<Tensor> all = errors;
    all.insert(all.end(), course.alphas.begin(), course.alphas.end());
    s.run(all);

    const auto error = [&](int64_t fit, size_t part) { return value(errors[static_cast<size_t>(fit - 1) * parts.size() + part]); };
    for (int64_t t = 1; t <= ridge_.steps(); ++t) {
      for (size_t p = 0; p < parts.size(); ++p) {
        c.report((parts[p].split + "/mse").c_str(), error(t, p));
        if (t == 1) c.report((parts[p].split + "/first_mse").c_str(), error(t, p));
        c.report((parts[p].split + "/ratio").c_str(), error(t, p) / error(1, p));
        c.report((parts[p].split + "/better").c_str(), error(t, p) < error(1, p));
      }
      if (t > 1) c.report("alpha", value(course.alphas[static_cast<size_t>(t - 2)]));
      c.progress(t, ridge_.steps(), "fits");
    }
    for (size_t p = 0; p < parts.size() && ridge_.constant(); ++p)
      c.report((parts[p].split + "/limit_mse").c_str(), error(ridge_.steps() + 1, p));
  }

  // x_train, y_train, x_test, x_valid, y_valid -> fit_step1, .., pred_last, the filter B of the last fit, pred_limit of
  // constant weights, alphas_step2_on
  struct Default {
    static constexpr const char* name = "default";
    explicit Default(tn::Setup& s) : ridge(s) {
      s.input("x_train", "[n, p]");
      s.input("y_train", "[n] or [n, C]");
      s.input("x_test", "[m, p]").optional();
      s.input("x_valid", "[v, p]").optional();
      s.input("y_valid", "[v] or [v, C]").optional();
    }
    void run(tn::Build& b) const {
      const Tensor x = KernelRidge::samples(b["x_train"]), given = b["y_train"], y = KernelRidge::outputs(given);
      const auto like_given = [&](Tensor t) { return given.rank() == 1 ? squeeze(t, -1) : t; };
      const Tensor k = ridge.kernel(x, x);
      ridge.check(k);
      Tensor k_valid, y_valid;
      if (b.has("x_valid") && b.has("y_valid")) {
        k_valid = ridge.kernel(KernelRidge::samples(b["x_valid"]), x);
        y_valid = KernelRidge::outputs(b["y_valid"]);
      }
      const KernelRidge::Course course = ridge.fit(b, k, y, k_valid, y_valid);
      for (size_t t = 0; t < course.coefficients.size(); ++t)
        b.emit(("fit_step" + std::to_string(t + 1)).c_str(), like_given(matmul(k, course.coefficients[t])));
      if (!course.alphas.empty()) {
        std::vector<Tensor> alphas;
        for (const Tensor& a : course.alphas) alphas.push_back(unsqueeze(a, 0));
        b.emit("alphas_step2_on", concat(alphas));
      }
      // Largest eigenvalue first. It costs an eigen-decomposition only where it is asked for.
      const Tensor d = flip(maximum(eigh(k)[0], 0.0), 0), a = d / (d + ridge.lambda());
      Tensor filter = a;
      for (const Tensor& alpha : course.alphas) filter = a * (filter * (1.0 - alpha) + alpha);
      b.emit("filter_last_sorted_by_eigenvalue_descending", filter);
      if (!b.has("x_test")) return;
      const Tensor k_test = ridge.kernel(KernelRidge::samples(b["x_test"]), x);
      b.emit("pred_last", like_given(matmul(k_test, course.coefficients.back())));
      if (ridge.constant()) b.emit("pred_limit", like_given(matmul(k_test, ridge.limit(b, k, y))));
    }
    KernelRidge ridge;
  };
  using Probes = tn::List<Default>;

 private:
  struct Part {
    std::string split;
    Tensor kernel, y;  // [m, n], [m, C]
    Tensor error(Tensor coefficients) const { return mean(square(matmul(kernel, coefficients) - y)); }
  };
  KernelRidge ridge_;
};

}  // namespace

TN_PLUGIN("Tenon", "1.0",
          tn::procedure<SelfDistillationKrr>("self_distillation_krr", "Self-distillation of kernel ridge regression, exactly",
                                             "Borup & Andersen 2021, arXiv 2102.13088"))
