// Which clients take part in which federated round, and a round as an aggregator sees it.
// Wang & Ji 2024, "A Lightweight Method for Tackling Unknown Participation Statistics in Federated Averaging", ICLR 2024,
// arXiv 2306.03401, and its program.
//
// kappa_n are the label shares of client n, C the classes, q ~ Dirichlet(participation_alpha) a multiplier of each class:
//   p_n = min(1, max(min_prob, mean_prob C sum_c kappa_n[c] q[c]))          so it depends on the labels
//   bernoulli  active with probability p_n in every round
//   markov     p01 = max_to_active (to active), p10 = p01 (1/p_n - 1) (to inactive); if p10 > 1: p01 /= p10, p10 = 1. The
//              first state is active with probability p_n, and one transition is made before the first round
//   cyclic     active max(1, round(Z p_n)) rounds, then inactive max(1, Z - active) rounds, Z = cycle; it starts inactive, with
//              the first switch in r rounds, r uniform in 0 .. inactive - 1
#pragma once

#include <algorithm>
#include <cmath>

#include "tenon_plugin.hpp"

namespace federated {

using tn::Tensor;
using Numbers = std::vector<double>;
using Trace = std::vector<std::vector<uint8_t>>;  // [round][client]: 1 = active

inline constexpr const char* kPaper = "Wang & Ji 2024, arXiv 2306.03401";

// Half to even, as the paper's program rounds.
inline int64_t rounded(double v) { return static_cast<int64_t>(std::nearbyint(v)); }

struct Transitions {
  double to_active, to_inactive;
  Transitions(double p, double max_to_active)
      : to_active(max_to_active), to_inactive(std::max(0.0, max_to_active * (1 / p - 1))) {
    if (to_inactive > 1) to_active /= to_inactive, to_inactive = 1;
  }
};

struct Cycle {
  int64_t active, inactive;
  Cycle(double p, int64_t length)
      : active(std::max<int64_t>(1, rounded(static_cast<double>(length) * p))), inactive(std::max<int64_t>(1, length - active)) {}
  // The activity of `rounds` rounds.
  std::vector<uint8_t> schedule(int64_t first_switch_in, int64_t rounds) const {
    std::vector<uint8_t> out;
    bool on = false;
    for (int64_t left = first_switch_in; static_cast<int64_t>(out.size()) < rounds; --left) {
      if (left == 0) {
        on = !on;
        left = on ? active : inactive;
      }
      out.push_back(on);
    }
    return out;
  }
};

// p_n of one client: shares of its labels, and the classes' multipliers q.
inline double probability(const double* shares, const Numbers& q, double mean, double min) {
  double sum = 0;
  for (size_t c = 0; c < q.size(); ++c) sum += shares[c] * q[c];
  return std::min(1.0, std::max(min, mean * static_cast<double>(q.size()) * sum));
}

inline void check_probabilities(const Numbers& p) {
  for (size_t n = 0; n < p.size(); ++n)
    if (!(p[n] > 0 && p[n] <= 1))
      throw tn::Error("the probability of client " + std::to_string(n) + " is " + std::to_string(p[n]) +
                      "; it must be in (0, 1]");
}

// Which clients are active when.
class Participation {
 public:
  // `pattern`: what the option is called.
  Participation(tn::Setup& s, const char* pattern)
      : pattern_(s.text(pattern, "bernoulli", "how clients take part", {"bernoulli", "markov", "cyclic"})),
        max_to_active_(s.real("max_to_active", 0.05, "markov: the largest probability of becoming active").above(0).at_most(1)),
        cycle_(s.integer("cycle", 100, "cyclic: Z, rounds of a cycle").at_least(2)) {}

  Transitions transitions(double p) const { return {p, max_to_active_}; }
  Cycle cycle(double p) const { return {p, cycle_}; }

  Trace trace(const tn::Ctx& c, const Numbers& probabilities, int64_t rounds) const {
    check_probabilities(probabilities);
    const auto& rng = c.extension<tn_rng_api>(TN_EXT_RNG);
    const uint64_t key = rng.key(c.raw, "participation");
    const auto n_rounds = static_cast<size_t>(rounds);
    Trace out(n_rounds, std::vector<uint8_t>(probabilities.size()));
    Numbers u(n_rounds + 1);
    for (size_t n = 0; n < probabilities.size(); ++n) {
      const double p = probabilities[n];
      rng.uniform(rng.split(key, n), 0, u.data(), u.size());
      std::vector<uint8_t> active(n_rounds);
      if (pattern_ == "cyclic") {
        const Cycle own = cycle(p);
        active = own.schedule(std::min(own.inactive - 1, static_cast<int64_t>(u[0] * static_cast<double>(own.inactive))), rounds);
      } else if (pattern_ == "markov") {
        const Transitions move = transitions(p);
        bool on = u[0] < p;
        for (size_t t = 0; t < n_rounds; ++t) active[t] = on = on ? u[t + 1] >= move.to_inactive : u[t + 1] < move.to_active;
      } else {
        for (size_t t = 0; t < n_rounds; ++t) active[t] = u[t + 1] < p;
      }
      for (size_t t = 0; t < n_rounds; ++t) out[t][n] = active[t];
    }
    return out;
  }

 private:
  std::string pattern_;
  double max_to_active_;
  int64_t cycle_;
};

// A round for an aggregator; the numbers of the active clients live in it.
struct Round {
  Round(int64_t number, const std::vector<uint8_t>& mask) {
    raw.struct_size = sizeof raw;
    raw.round = number;
    raw.n_clients = static_cast<int64_t>(mask.size());
    raw.participation = mask.data();
    for (size_t n = 0; n < mask.size(); ++n)
      if (mask[n]) active.push_back(static_cast<int64_t>(n));
    raw.n_active = static_cast<uint32_t>(active.size());
    raw.active = active.data();
  }
  tn_round raw{};
  std::vector<int64_t> active;
};

}  // namespace federated
