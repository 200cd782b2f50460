// Simulated participation of clients with given probabilities, without training: the weights that fed_au estimates.
// Patterns and paper: participation.hpp.
#include "participation.hpp"

namespace {

using namespace federated;

class ParticipationStudy {
 public:
  explicit ParticipationStudy(tn::Setup& s)
      : participation_(s, "pattern"),
        probabilities_(s.reals("probabilities", "of the clients", {0.05, 0.1, 0.3, 0.7, 1}).above(0).at_most(1)),
        rounds_(s.integer("rounds", 5000, "T").at_least(1)),
        cutoff_(s.integer("cutoff", 0, "K, the longest interval; 0: none").at_least(0)) {
    if (probabilities_.empty()) throw tn::Error("there are no clients: probabilities is empty");
  }

  // Reports, of the worst client: how far its share of active rounds is from p, its weight from 1/p, and its weight from
  // (1 - (1-p)^K) / p, the mean of intervals that are cut off (of bernoulli), each in relation.
  void run(tn::Ctx& c) const {
    const Trace trace = participation_.trace(c, probabilities_, rounds_);
    const Numbers w = weights(c, trace);
    double rate = 0, inverse = 0, limit = 0;
    for (size_t n = 0; n < w.size(); ++n) {
      const double p = probabilities_[n], cut = cutoff_ > 0 ? 1 - std::pow(1 - p, static_cast<double>(cutoff_)) : 1;
      double active = 0;
      for (const auto& round : trace) active += round[n];
      rate = std::max(rate, std::abs(active / static_cast<double>(rounds_) / p - 1));
      inverse = std::max(inverse, std::abs(w[n] * p - 1));
      limit = std::max(limit, std::abs(w[n] * p / cut - 1));
      c.report(("weight/" + std::to_string(n)).c_str(), w[n]);
    }
    c.report("worst/rate", rate);
    c.report("worst/weight", inverse);
    c.report("worst/weight_with_cutoff", limit);
  }

  // The parts of the patterns. probabilities -> to_active, to_inactive (markov); probabilities, first_switch_in ->
  // participation [N, rounds], active_rounds, inactive_rounds (cyclic); label_distribution, class_multiplier -> probabilities.
  struct Default {
    static constexpr const char* name = "default";
    explicit Default(tn::Setup& s)
        : participation(s, "pattern"),
          mean(s.real("mean", 0.1, "of the probabilities").above(0).at_most(1)),
          min(s.real("min", 0.02, "of the probabilities").above(0).at_most(1)),
          rounds(s.integer("rounds", 24, "of a cyclic schedule").at_least(1)) {
      s.input("probabilities", "[N]").optional().rank(1);
      s.input("first_switch_in", "[N] rounds", tn::anything).optional().rank(1);
      s.input("label_distribution", "[N, C], kappa").optional().rank(2);
      s.input("class_multiplier", "[C], q").optional().rank(1);
    }
    void run(tn::Build& b) const {
      if (b.has("probabilities")) patterns(b, to_host(b["probabilities"]));
      if (!b.has("label_distribution") || !b.has("class_multiplier")) return;
      const Numbers kappa = to_host(b["label_distribution"]), q = to_host(b["class_multiplier"]);
      if (b["label_distribution"].dim(1) != static_cast<int64_t>(q.size()))
        throw tn::Error("label_distribution and class_multiplier differ in classes");
      Numbers p;
      for (size_t at = 0; at < kappa.size(); at += q.size()) p.push_back(probability(&kappa[at], q, mean, min));
      b.emit("probabilities", vector(b, p));
    }
    void patterns(const tn::Build& b, const Numbers& p) const {
      check_probabilities(p);
      Numbers to_active, to_inactive, active, inactive, schedules;
      for (double v : p) {
        to_active.push_back(participation.transitions(v).to_active);
        to_inactive.push_back(participation.transitions(v).to_inactive);
        active.push_back(static_cast<double>(participation.cycle(v).active));
        inactive.push_back(static_cast<double>(participation.cycle(v).inactive));
      }
      b.emit("to_active", vector(b, to_active));
      b.emit("to_inactive", vector(b, to_inactive));
      b.emit("active_rounds", vector(b, active));
      b.emit("inactive_rounds", vector(b, inactive));
      if (!b.has("first_switch_in")) return;
      const Numbers first = to_host(b["first_switch_in"]);
      if (first.size() != p.size()) throw tn::Error("first_switch_in and probabilities differ in clients");
      for (size_t n = 0; n < p.size(); ++n) {
        if (!(first[n] >= 0)) throw tn::Error("first_switch_in of client " + std::to_string(n) + " is below 0");
        for (uint8_t on : participation.cycle(p[n]).schedule(static_cast<int64_t>(first[n]), rounds)) schedules.push_back(on);
      }
      b.emit("participation", b.from_host(schedules.data(), {static_cast<int64_t>(p.size()), rounds}));
    }
    static Tensor vector(const tn::Build& b, const Numbers& v) { return b.from_host(v.data(), {static_cast<int64_t>(v.size())}); }
    Participation participation;
    double mean, min;
    int64_t rounds;
  };
  using Probes = tn::List<Default>;

 private:
  // fed_au's weights after these rounds: what one more round with all clients moves, where client n sends the n-th unit vector.
  Numbers weights(const tn::Ctx& c, const Trace& trace) const {
    const auto n = static_cast<int64_t>(probabilities_.size());
    const tn::Plugin fed_au(c, TN_KIND_AGGREGATOR, "fed_au", {tn::attr("cutoff", cutoff_)});
    for (size_t t = 0; t < trace.size(); ++t) {
      tn::Session s(c);
      Round round(static_cast<int64_t>(t), trace[t]);
      round.raw.params = s.zeros({n}, TN_F64).id;
      if (round.raw.n_active) round.raw.deltas = s.zeros({static_cast<int64_t>(round.raw.n_active), n}, TN_F64).id;
      fed_au.aggregate(s, round.raw);
      s.run();
    }
    tn::Session s(c);
    const std::vector<uint8_t> everybody(probabilities_.size(), 1);
    Round last(rounds_, everybody);
    last.raw.params = s.zeros({n}, TN_F64).id;
    last.raw.deltas = tn::one_hot(s.arange(n), n, TN_F64).id;
    return to_host(fed_au.aggregate(s, last.raw) * static_cast<double>(n));
  }

  Participation participation_;
  Numbers probabilities_;
  int64_t rounds_, cutoff_;
};

}  // namespace

TN_PLUGIN("Tenon", "1.0",
          tn::procedure<ParticipationStudy>("participation", "Weights that fed_au estimates, from simulated rounds", kPaper))
