// The bias update of plugins/routers/alf_lb.cpp on fixed scores, as an ascent of the balanced assignment problem's dual, with
// the facts that the theory states checked in every iteration.
//
//   Han & Zhong 2025, arXiv 2512.03915: primal-dual view
//
// gamma = sigmoid(Z R / sqrt(d) + linspace(1, -1, E)): Z [T, d] the training part's column x, R standard normal. x_n is the
// selection at p_n, d = p_{n+1} - p_n, D(p_n) = Lag(x_n, p_n).
//
//   fact 1   Lag(x_{n+1}, p_{n+1}) - Lag(x_n, p_n) = sum_i b_i - sum_k d_k (L - A_k(n)), b_i >= 0: what token i gains at p_{n+1}
//            by its new choice over its old one
//   fact 2   if token i drops expert k and takes k', then d_k' >= d_k
//
// Reports, as the optimum the value of the best balanced assignment: start, early (100 iterations) and final violation; gap
// and value at the end, relative to the optimum; least_gap of any iteration; fact1_error, the largest relative one;
// fact2_violations and switches of the first 200 iterations; falling, the share of the first 50 in which Lag falls.
#include <algorithm>
#include <cmath>
#include <limits>

#include "../routers/alf_lb.hpp"
#include "../routers/balanced_assignment.hpp"

namespace {

using tn::Tensor;
using Numbers = std::vector<double>;

class BalanceScores {
 public:
  explicit BalanceScores(tn::Setup& s)
      : experts_(s.integer("experts", 16, "E").at_least(2)),
        top_k_(s.integer("top_k", 2, "K, experts a token").at_least(1)),
        iterations_(s.integer("iterations", 1000, "updates of the bias").at_least(1)),
        update_(s) {
    if (top_k_ > experts_)
      throw tn::Error("top_k is " + std::to_string(top_k_) + ", but there are only " + std::to_string(experts_) + " experts");
  }

  void run(tn::Ctx& c) const {
    const Numbers gamma = scores(c);
    const auto tokens = static_cast<int64_t>(gamma.size()) / experts_;
    const auto optimum = alf::balanced_value(gamma, tokens, experts_, top_k_);
    if (!optimum)
      throw tn::Error(std::to_string(tokens) + " tokens with " + std::to_string(top_k_) + " experts each can't be spread evenly over " +
                      std::to_string(experts_) + " experts");
    State now = state_at(c, gamma, Numbers(static_cast<size_t>(experts_)), 1);
    double least_gap = relative(now.dual, *optimum), fact1 = 0, falling = 0, violations = 0, switches = 0;
    c.report("start_violation", now.violation);
    for (int64_t n = 1; n <= iterations_; ++n) {
      if (c.cancelled()) return;
      State next = state_at(c, gamma, now.next_bias, n + 1);
      const Change change = compare(gamma, now, next);
      fact1 = std::max(fact1, std::abs(next.dual - now.dual - change.predicted) / std::abs(now.dual));
      if (n <= 50) falling += next.dual < now.dual ? 1.0 / static_cast<double>(std::min<int64_t>(50, iterations_)) : 0;
      if (n <= 200) violations += change.against_preference, switches += change.switches;
      least_gap = std::min(least_gap, relative(next.dual, *optimum));
      now = std::move(next);
      if (n == 100) c.report("early_violation", now.violation);
    }
    c.report("final_violation", now.violation);
    c.report("gap", relative(now.dual, *optimum));
    c.report("least_gap", least_gap);
    c.report("value", now.value / *optimum);
    c.report("fact1_error", fact1);
    c.report("fact2_violations", violations);
    c.report("switches", switches);
    c.report("falling", falling);
    c.progress(iterations_, iterations_);
  }

 private:
  struct State {
    Numbers bias, next_bias, load, chosen;  // chosen: [T, K]
    double dual = 0, value = 0, violation = 0;
  };
  struct Change {
    double predicted = 0;  // of the Lagrangian, by fact 1
    double against_preference = 0, switches = 0;
  };

  static double relative(double dual, double optimum) { return (dual - optimum) / optimum; }

  Numbers scores(const tn::Ctx& c) const {
    tn::Session s(c);
    const Tensor z = cast(tn::Data{c}.rows(s, "train", "x"), TN_F64);
    if (z.rank() != 2) throw tn::Error("the column x must be [T, d], it is " + text(z.shape()));
    const Tensor r = tn::random_normal(s.key(), {z.dim(1), experts_}, TN_F64) / std::sqrt(static_cast<double>(z.dim(1)));
    const Tensor slope = s.arange(experts_, TN_F64) * (-2.0 / static_cast<double>(experts_ - 1)) + 1.0;
    return to_host(sigmoid(matmul(z, r) + slope));
  }

  // The selection at a bias, and the bias that its loads lead to by update n.
  State state_at(const tn::Ctx& c, const Numbers& gamma, Numbers bias, int64_t n) const {
    tn::Session s(c);
    const Tensor scores = s.from_host(gamma.data(), {static_cast<int64_t>(gamma.size()) / experts_, experts_});
    const Tensor p = s.from_host(bias.data(), {experts_});
    const alf::Selection x = alf::select(scores + p, top_k_);
    const Tensor value = sum(take_along_axis(scores, x.indices)), dual = alf::lagrangian(scores, x, p), violation = alf::max_violation(x.load),
                 next = p + update_(x.load, s.scalar(static_cast<double>(n), TN_F64));
    s.run({value, dual, violation, next, x.load, x.indices});
    return {std::move(bias), to_host(next), to_host(x.load), to_host(x.indices), tn::value(dual), tn::value(value), tn::value(violation)};
  }

  Change compare(const Numbers& gamma, const State& before, const State& after) const {
    constexpr double kRounding = 1e-12;
    Change out;
    const auto experts = static_cast<size_t>(experts_), k = static_cast<size_t>(top_k_);
    const double share = static_cast<double>(before.chosen.size()) / static_cast<double>(experts_);
    const auto moved = [&](size_t e) { return after.bias[e] - before.bias[e]; };
    for (size_t e = 0; e < experts; ++e) out.predicted -= moved(e) * (share - before.load[e]);
    for (size_t i = 0; i < before.chosen.size() / k; ++i) {
      const auto choice = [&](const State& s) { return Choice{&s.chosen[i * k], k}; };
      const Choice old = choice(before), now = choice(after);
      for (size_t j = 0; j < k; ++j) {
        if (!old.has(now[j])) out.predicted += gamma[i * experts + now[j]] + after.bias[now[j]];
        if (!now.has(old[j])) out.predicted -= gamma[i * experts + old[j]] + after.bias[old[j]];
        for (size_t l = 0; l < k; ++l)  // drops old[j], takes now[l]
          if (!now.has(old[j]) && !old.has(now[l])) {
            ++out.switches;
            out.against_preference += moved(now[l]) < moved(old[j]) - kRounding ? 1 : 0;
          }
      }
    }
    return out;
  }
  struct Choice {
    const double* experts;
    size_t k;
    size_t operator[](size_t j) const { return static_cast<size_t>(experts[j]); }
    bool has(size_t e) const { return std::any_of(experts, experts + k, [e](double x) { return static_cast<size_t>(x) == e; }); }
  };

  int64_t experts_, top_k_, iterations_;
  alf::BiasUpdate update_;
};

}  // namespace

TN_PLUGIN("Tenon", "1.0",
          tn::procedure<BalanceScores>("balance_scores", "Balances fixed scores by a bias, and checks the theory on the way",
                                       "Han & Zhong 2025, arXiv 2512.03915"))
