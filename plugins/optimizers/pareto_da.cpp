// Pareto domain adaptation: several losses pull on the same features, each with a gradient of its own; a small linear program
// weighs the gradients so that the step agrees with a held-out guidance loss, or else harms none of them.
//
//   Lv, Liang, Gong, Li, Liu, Li, Liu, Wang 2021, "Pareto Domain Adaptation", NeurIPS 2021, arXiv 2112.04137
//
// g_1 .. g_m: gradients of the objectives with respect to the group's parameters theta, G = [g_1 .. g_m]; g_v: that of the
// loss named by `guidance`, which trains nothing itself; C = G'G, a = G'g_v; J = {j: a_j > 0}, J* = {j: a_j = max a}.
// w in the simplex solves
//
//   guidance mode (guidance loss > guidance_eps), eq. 6:
//     max w.a    s.t.  (C w)_j >= [J not empty] a_j  for j neither in J nor in J*,   (C w)_j >= 0  for j in J*
//   descent mode:
//     max w.C1   s.t.  C w >= 0,  and with `restrict`  w.a >= min(max a, 0)
//
// and the gradient of theta is d = scale G w, with scale m (`scale: m`, as in the authors' code) or 1. Where the program has no
// solution w is `preference`, divided by its sum. The guidance loss should be 0 only when there is nothing left to guide; of
// target_class_mimicking this is so with its `guidance_offset: log_k`.
//
// Other `solver`s: mgda, min |G w| over the simplex (Désidéri 2012; Sener & Koltun 2018); epo, exact Pareto optimal search
// (Mahapatra & Rajan 2020), which balances r_j l_j for positive losses l and r = preference; linear, w = preference over its
// sum: with scale m and equal preferences the gradient of the plain sum.
//
// Every vertex of the program is tried, so m is at most 8. Gradients come to the host once a step. The step itself is that of
// stochastic gradient descent with momentum (sgd.cpp). All parameters that are to be weighed together must be one group.
#include <algorithm>
#include <cmath>

#include "tenon_plugin.hpp"

namespace {

using tn::Tensor;
using Vector = std::vector<double>;
using Matrix = std::vector<Vector>;

constexpr size_t kMostObjectives = 8;

double dot(const double* x, const double* y, size_t n) {
  double part[4] = {};  // sums of their own, so that they can overlap
  size_t i = 0;
  for (; i + 4 <= n; i += 4)
    for (size_t k = 0; k < 4; ++k) part[k] += x[i + k] * y[i + k];
  for (; i < n; ++i) part[0] += x[i] * y[i];
  return (part[0] + part[1]) + (part[2] + part[3]);
}
double dot(const Vector& x, const Vector& y) { return dot(x.data(), y.data(), x.size()); }

// x of A x = b by elimination with pivots; empty if A is singular.
Vector solve(Matrix a, Vector b) {
  const size_t n = b.size();
  for (size_t k = 0; k < n; ++k) {
    size_t pivot = k;
    for (size_t i = k + 1; i < n; ++i)
      if (std::abs(a[i][k]) > std::abs(a[pivot][k])) pivot = i;
    if (std::abs(a[pivot][k]) < 1e-14) return {};
    std::swap(a[k], a[pivot]);
    std::swap(b[k], b[pivot]);
    for (size_t i = k + 1; i < n; ++i) {
      const double f = a[i][k] / a[k][k];
      for (size_t j = k; j < n; ++j) a[i][j] -= f * a[k][j];
      b[i] -= f * b[k];
    }
  }
  for (size_t k = n; k-- > 0;) {
    for (size_t j = k + 1; j < n; ++j) b[k] -= a[k][j] * b[j];
    b[k] /= a[k][k];
  }
  return b;
}

// max c.w over the simplex with rows.w >= bounds, by trying every vertex; empty if there is no such w. Numbers should be about
// 1 in size.
Vector linear_program(const Vector& c, Matrix rows, Vector bounds) {
  const size_t m = c.size();
  for (size_t j = 0; j < m; ++j) {  // w >= 0
    rows.emplace_back(m, 0.0);
    rows.back()[j] = 1;
    bounds.push_back(0);
  }
  Vector best;
  std::vector<bool> active(rows.size(), false);
  std::fill_n(active.begin(), m - 1, true);
  do {
    Matrix a{Vector(m, 1.0)};
    Vector b{1.0};
    for (size_t r = 0; r < rows.size(); ++r)
      if (active[r]) a.push_back(rows[r]), b.push_back(bounds[r]);
    const Vector w = solve(std::move(a), std::move(b));
    if (w.empty()) continue;
    bool feasible = true;
    for (size_t r = 0; feasible && r < rows.size(); ++r) feasible = dot(rows[r], w) >= bounds[r] - 1e-9;
    if (feasible && (best.empty() || dot(c, w) > dot(c, best) + 1e-12)) best = w;
  } while (std::prev_permutation(active.begin(), active.end()));
  for (double& v : best) v = v > 0 ? v : 0;  // not -1e-17
  return best;
}

// argmin w'Cw over the simplex: the best of all supports whose stationary point lies inside.
Vector least_norm(const Matrix& c) {
  const size_t m = c.size();
  Vector best;
  double least = HUGE_VAL;
  for (uint32_t support = 1; support < 1u << m; ++support) {
    std::vector<size_t> in;
    for (size_t j = 0; j < m; ++j)
      if (support >> j & 1) in.push_back(j);
    Vector x{1.0};
    if (in.size() > 1) {
      Matrix sub;
      for (size_t i : in) {
        sub.emplace_back();
        for (size_t j : in) sub.back().push_back(c[i][j]);
      }
      x = solve(std::move(sub), Vector(in.size(), 1.0));
    }
    if (x.empty() || !std::all_of(x.begin(), x.end(), [](double v) { return v >= 0; })) continue;
    double total = 0;
    for (double v : x) total += v;
    if (!(total > 0)) continue;
    Vector w(m, 0.0);
    for (size_t k = 0; k < in.size(); ++k) w[in[k]] = x[k] / total;
    double norm = 0;
    for (size_t i = 0; i < m; ++i) norm += w[i] * dot(c[i], w);
    if (norm < least) least = norm, best = w;
  }
  return best;
}

// What the weights depend on.
struct Weighing {
  Matrix c;  // G'G
  Vector a;  // G'g_v
  double guidance = 0;
  Vector losses;  // epo only
};
struct Weights {
  Vector w;
  const char* mode;
  bool fallback = false;
};

class Solver {
 public:
  explicit Solver(tn::Setup& s)
      : kind_(
            s.text("solver", "preference_lp", "how gradients are weighed", {"preference_lp", "mgda", "epo", "linear"})),
        preference_(
            s.reals("preference",
                    "linear weights, r of epo, and what holds where the program has no solution; default: equal")),
        eps_(s.real("guidance_eps", 1e-3, "guidance loss below which the step is one of descent").at_least(0).finite()),
        restrict_(s.flag("restrict", true, "a descent step must not turn against the guidance")) {
    for (double r : preference_)
      if (!(r > 0) || !std::isfinite(r)) throw tn::Error("preference must be positive numbers");
  }

  bool guided() const { return kind_ == "preference_lp"; }
  bool wants_losses() const { return kind_ == "epo"; }

  Weights operator()(Weighing x) const {
    const size_t m = x.c.size();
    if (m < 2) throw tn::Error("there is " + std::to_string(m) + " objective; at least 2 are needed");
    if (m > kMostObjectives)
      throw tn::Error("there are " + std::to_string(m) + " objectives; at most " + std::to_string(kMostObjectives) +
                      " can be weighed");
    Vector r = preference_.empty() ? Vector(m, 1.0) : preference_;
    if (r.size() != m)
      throw tn::Error("preference has " + std::to_string(r.size()) + " numbers, there are " + std::to_string(m) +
                      " objectives");
    for (const Vector& row : x.c)
      for (double v : row)
        if (!std::isfinite(v)) throw tn::Error("a gradient is not finite");
    for (double v : x.a)
      if (!std::isfinite(v)) throw tn::Error("the gradient of the guidance loss is not finite");
    Weights out{{}, "linear"};
    if (kind_ == "epo") {
      out = exact_search(x, r);
    } else if (kind_ == "mgda") {
      scale(x);
      out = {least_norm(x.c), "mgda"};
    } else if (kind_ == "preference_lp") {
      scale(x);
      out = x.guidance > eps_ ? Weights{agree(x.c, x.a, largest(x.a)), "guidance"}
                              : Weights{descend(x.c, x.a), "descent"};
    }
    if (!out.w.empty()) return out;
    out.fallback = kind_ != "linear";
    double total = 0;
    for (double v : r) total += v;
    for (double v : r) out.w.push_back(v / total);
    return out;
  }

 private:
  // The weights do not depend on the unit of the gradients.
  static void scale(Weighing& x) {
    double top = 0;
    for (const Vector& row : x.c)
      for (double v : row) top = std::max(top, std::abs(v));
    for (double v : x.a) top = std::max(top, std::abs(v));
    if (top == 0) return;
    for (Vector& row : x.c)
      for (double& v : row) v /= top;
    for (double& v : x.a) v /= top;
  }
  static std::vector<bool> largest(const Vector& x) {
    std::vector<bool> at;
    for (double v : x) at.push_back(v == *std::max_element(x.begin(), x.end()));
    return at;
  }

  // Guidance mode towards a, with J* = leading.
  static Vector agree(const Matrix& c, const Vector& a, const std::vector<bool>& leading) {
    const bool some = std::any_of(a.begin(), a.end(), [](double v) { return v > 0; });
    Matrix rows;
    Vector bounds;
    for (size_t j = 0; j < a.size(); ++j) {
      if (!leading[j] && a[j] > 0) continue;
      rows.push_back(c[j]);
      bounds.push_back(leading[j] || !some ? 0 : a[j]);
    }
    return linear_program(a, rows, bounds);
  }
  Vector descend(const Matrix& c, const Vector& a) const {
    const size_t m = c.size();
    Matrix rows = c;
    Vector bounds(m, 0.0), sums(m, 0.0);
    for (size_t j = 0; j < m; ++j)
      for (double v : c[j]) sums[j] += v;
    if (restrict_) {
      rows.push_back(a);
      bounds.push_back(std::min(*std::max_element(a.begin(), a.end()), 0.0));
    }
    return linear_program(sums, rows, bounds);
  }

  // EPO: towards losses in the ratio of 1 / r, in descent once they are.
  Weights exact_search(Weighing& x, const Vector& r) const {
    const size_t m = r.size();
    Vector weighted;
    double total = 0, mu = 0;
    for (size_t j = 0; j < m; ++j) {
      if (!(x.losses[j] > 0))
        throw tn::Error("solver: epo wants positive losses; one is " + std::to_string(x.losses[j]));
      weighted.push_back(r[j] * x.losses[j]);
      total += weighted[j];
    }
    Vector adjust(m), logs;
    for (double v : weighted) logs.push_back(std::log(static_cast<double>(m) * v / total));
    for (size_t j = 0; j < m; ++j) mu += weighted[j] / total * logs[j];
    for (size_t j = 0; j < m; ++j) adjust[j] = r[j] * (logs[j] - mu);
    x.a.clear();
    for (const Vector& row : x.c) x.a.push_back(dot(row, adjust));
    scale(x);
    if (mu > 1e-4) return {agree(x.c, x.a, largest(weighted)), "guidance"};
    return {descend(x.c, x.a), "descent"};
  }

  std::string kind_;
  Vector preference_;
  double eps_;
  bool restrict_;
};

class ParetoDa {
 public:
  // The weights alone, for given gradients.
  struct Default {
    static constexpr const char* name = "default";
    Solver solver;
    explicit Default(tn::Setup& s) : solver(s) {
      s.input("gradients", "[m, P], of each objective").rank(2);
      s.input("guidance_gradient", "[P]").optional().rank(1);
      s.input("guidance_loss", "[]").optional();
      s.input("losses", "[m]").optional().rank(1);
    }
    void run(tn::Build& b) const {
      const int64_t m = b["gradients"].dim(0), p = b["gradients"].dim(1);
      const Vector g = tn::to_host(b["gradients"]);
      Weighing x;
      if (b.has("guidance_gradient") && b["guidance_gradient"].dim(0) != p)
        throw tn::Error("the objectives and the guidance loss have gradients of different parameters");
      const Vector v = b.has("guidance_gradient") ? tn::to_host(b["guidance_gradient"]) : Vector();
      if (solver.guided() && v.empty()) throw tn::Error("solver: preference_lp needs the gradient of a guidance loss");
      if (b.has("guidance_loss")) x.guidance = tn::value(b["guidance_loss"]);
      if (b.has("losses")) x.losses = tn::to_host(b["losses"]);
      if (solver.wants_losses() && x.losses.size() != static_cast<size_t>(m))
        throw tn::Error("solver: epo needs the losses of all objectives");
      fill(x, g.data(), v.empty() ? nullptr : v.data(), static_cast<size_t>(m), static_cast<size_t>(p));
      const Weights w = solver(x);
      const Tensor weights = b.from_host(w.w.data(), {m}, b["gradients"].dtype());
      b.emit("weights", weights);
      b.emit("direction", squeeze(matmul(unsqueeze(weights, 0), b["gradients"]), 0));
      b.emit("mode", w.mode);
      b.emit("fallback", w.fallback ? 1.0 : 0.0);
    }
  };
  using Probes = tn::List<Default>;

  explicit ParetoDa(tn::Setup& s)
      : solver_(s),
        objectives_(s.text("objectives", "",
                           "names of the losses that are weighed, with commas between; default: all but the guidance")),
        guidance_(s.text("guidance", "validation", "name of the loss that guides, of solver: preference_lp")),
        by_m_(std::string(s.text("scale", "m", "factor of G w: the number of objectives, or 1", {"m", "one"})) == "m"),
        extra_(s.flag("extra_plain_gradient", false,
                      "add the gradient of the recipe's objective once more, as the authors' code does")),
        momentum_(s.real("momentum", 0, "share of the last update that is kept").at_least(0).below(1)),
        nesterov_(s.flag("nesterov", false, "look-ahead momentum")),
        weight_decay_(s.real("weight_decay", 0, "L2 penalty, added to the gradient").at_least(0)) {
    s.real("lr", 1e-3, "learning rate").at_least(0).finite();
    if (nesterov_ && momentum_ == 0) throw tn::Error("nesterov needs momentum > 0");
  }

  void init(tn::Init& i) const {
    if (momentum_ > 0) i.per_param("momentum");
  }

  void step(tn::Step& s, const tn::Objectives& o) const {
    const std::vector<uint32_t> chosen = weighed(o);
    const size_t m = chosen.size();
    // Everything that the weights depend on as one vector, which is evaluated here; the step goes on with its parts.
    std::vector<Tensor> parts;
    const auto append = [&](uint32_t objective) {
      for (uint32_t i = 0; i < s.size(); ++i) parts.push_back(tn::flatten(o.grad(objective, i)));
    };
    for (uint32_t j : chosen) append(j);
    const int64_t guide = solver_.guided() ? named(o, guidance_) : -1;
    if (guide >= 0) append(static_cast<uint32_t>(guide));
    const Tensor like = parts[0];
    std::vector<uint32_t> values = solver_.wants_losses() ? chosen : std::vector<uint32_t>();
    if (guide >= 0) values.push_back(static_cast<uint32_t>(guide));
    for (uint32_t j : values) parts.push_back(reshape(cast_like(o.value(j), like), {1}));
    const Tensor all = cast(tn::concat(parts), TN_F64);
    const Vector host = tn::to_host(all);

    Weighing x;
    const size_t rows = m + (guide >= 0 ? 1 : 0), p = (host.size() - values.size()) / rows;
    x.losses.assign(host.begin() + static_cast<std::ptrdiff_t>(rows * p), host.end());
    if (guide >= 0) x.guidance = x.losses.back();
    fill(x, host.data(), guide >= 0 ? host.data() + m * p : nullptr, m, p);
    const Weights w = solver_(x);
    report(s, o, chosen, w, x.c[0][1]);

    const double scale = by_m_ ? static_cast<double>(m) : 1;
    int64_t at = 0;
    for (tn::Param q : s) {
      const int64_t n = q.value().numel();
      Tensor g;
      for (size_t j = 0; j < m; ++j) {
        const Tensor part = tn::narrow(all, 0, static_cast<int64_t>(j * p) + at, n) * (w.w[j] * scale);
        g = g ? g + part : part;
      }
      g = reshape(cast_like(g, q.value()), q.value().shape());
      if (extra_) g = g + q.grad();
      if (weight_decay_ > 0) g = g + q.value() * weight_decay_;
      if (momentum_ > 0) {
        const Tensor v = q["momentum"] * momentum_ + g;
        q["momentum"] = v;
        g = nesterov_ ? g + v * momentum_ : v;
      }
      q.update(q.value() - g * s.lr());
      at += n;
    }
  }

 private:
  // C and a from m + 1 (or m) rows of p numbers.
  static void fill(Weighing& x, const double* g, const double* guide, size_t m, size_t p) {
    x.c.assign(m, Vector(m));
    x.a.assign(m, 0.0);
    for (size_t i = 0; i < m; ++i) {
      for (size_t j = 0; j <= i; ++j) x.c[i][j] = x.c[j][i] = dot(g + i * p, g + j * p, p);
      if (guide) x.a[i] = dot(g + i * p, guide, p);
    }
  }

  static int64_t named(const tn::Objectives& o, const std::string& name) {
    std::string known;
    for (uint32_t j = 0; j < o.size(); ++j) {
      if (name == o.name(j)) return j;
      known += std::string(j ? ", " : "") + o.name(j);
    }
    throw tn::Error("the recipe has no loss named '" + name + "'; its losses are: " + known);
  }
  std::vector<uint32_t> weighed(const tn::Objectives& o) const {
    std::vector<uint32_t> out;
    if (objectives_.empty()) {
      for (uint32_t j = 0; j < o.size(); ++j)
        if (!solver_.guided() || guidance_ != o.name(j)) out.push_back(j);
    } else {
      for (size_t from = 0; from <= objectives_.size();) {
        const size_t to = std::min(objectives_.find(',', from), objectives_.size());
        std::string name = objectives_.substr(from, to - from);
        name.erase(0, std::min(name.find_first_not_of(' '), name.size()));
        name.erase(name.find_last_not_of(' ') + 1);
        out.push_back(static_cast<uint32_t>(named(o, name)));
        from = to + 1;
      }
    }
    if (out.size() < 2) throw tn::Error("there is " + std::to_string(out.size()) + " objective; at least 2 are needed");
    return out;
  }

  // The weights; whether the step was guided, fell back, and whether the first two objectives are in conflict.
  void report(const tn::Step& s, const tn::Objectives& o, const std::vector<uint32_t>& chosen, const Weights& w,
              double first_two) const {
    for (size_t j = 0; j < chosen.size(); ++j)
      s.metric((std::string("weight_") + o.name(chosen[j])).c_str(), s.scalar(w.w[j]));
    if (solver_.guided()) s.metric("guided", s.scalar(std::string(w.mode) == "guidance" ? 1 : 0));
    s.metric("fallback", s.scalar(w.fallback ? 1 : 0));
    s.metric("conflict", s.scalar(first_two < 0 ? 1 : 0));
  }

  Solver solver_;
  std::string objectives_, guidance_;
  bool by_m_, extra_;
  double momentum_;
  bool nesterov_;
  double weight_decay_;
};

}  // namespace

TN_PLUGIN("Tenon", "1.0",
          tn::optimizer<ParetoDa>("pareto_da",
                                  "Gradients of several losses, weighed so that the step agrees with a held-out one",
                                  "Lv et al. 2021, arXiv 2112.04137"))
