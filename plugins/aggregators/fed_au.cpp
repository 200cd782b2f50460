// Aggregation of federated rounds whose clients take part with unknown probabilities.
// Wang & Ji 2024, "A Lightweight Method for Tackling Unknown Participation Statistics in Federated Averaging", ICLR 2024,
// arXiv 2306.03401: fed_au, and what it is compared with.
//
// N clients, S those active in round t, delta_n the change of the parameters that client n in S sends, eta = lr_global:
//   x <- x + eta u
//   fed_au                           u = 1/N sum_S w_n delta_n
//   fed_avg, average_participating   u = 1/|S| sum_S delta_n            (0 where nobody is active)
//   fed_avg, average_all             u = 1/N sum_S delta_n
//   fed_avg, known_prob              u = 1/N sum_S delta_n / p_n         with the role probabilities
//   fed_varp                         u = mean_n y_n + 1/|S| sum_S (delta_n - y_n), then y_n <- delta_n for n in S
//                                    (nothing where nobody is active)
//   mifa                             y_n <- delta_n for n in S, then u = mean_n y_n
// where y_n, the last update of client n, starts at 0: N parameter vectors of memory. fed_au keeps three numbers a client.
//
// Client n that is active with probability p_n needs the weight 1/p_n. fed_au estimates it by the mean length of the
// intervals between its active rounds, the active round included, cut off at K: w_n = sum_n / count_n, or 1 before the first
// interval was closed. Weights are read before the round is counted, so that they don't depend on who is active in it; then
//   wait_n += 1;  if n is active or wait_n >= K:  sum_n += wait_n, count_n += 1, wait_n = 0
#include "tenon_plugin.hpp"

namespace {

using tn::Tensor;

constexpr const char* kPaper = "Wang & Ji 2024, arXiv 2306.03401";

// A round as the rules see it.
struct Round {
  tn::Ctx& c;
  const tn_round& raw;
  Tensor params{c.raw, raw.params}, deltas{c.raw, raw.deltas};  // [P], [|S|, P]; null where nobody is active

  Round(tn::Ctx& ctx, const tn_round& r) : c(ctx), raw(r) {
    if (!deltas) return;
    const Tensor finite = all(is_finite(deltas), 1);
    for (uint32_t i = 0; i < raw.n_active; ++i) {
      const std::string message = "the update of client " + std::to_string(raw.active[i]) + " is not finite";
      c.check(squeeze(tn::narrow(finite, 0, i, 1), 0), message.c_str());
    }
  }
  double clients() const { return static_cast<double>(raw.n_clients); }
  // f64 [N]: 1 = active
  Tensor mask() const {
    const std::vector<double> active(raw.participation, raw.participation + raw.n_clients);
    return c.from_host(active.data(), {raw.n_clients});
  }
  // i64 [|S|]
  Tensor active() const {
    const std::vector<double> numbers(raw.active, raw.active + raw.n_active);
    return c.from_host(numbers.data(), {static_cast<int64_t>(raw.n_active)}, TN_I64);
  }
  // sum_S weights_n delta_n; weights: [N]
  Tensor weighted_sum(Tensor weights) const {
    const Tensor w = cast_like(gather(weights, active()), deltas);
    return squeeze(matmul(unsqueeze(w, 0), deltas), 0);
  }
  // u null: nothing moves.
  void step(Tensor u, double lr) const { c.emit("params", u ? params + u * lr : params); }
};

double lr_global(tn::Setup& s) { return s.real("lr_global", 1, "eta, the server's step").above(0).finite(); }

class FedAu {
 public:
  explicit FedAu(tn::Setup& s)
      : cutoff_(s.integer("cutoff", 50, "K, the longest interval; 0: none; 1: all weights are 1, as average_all").at_least(0)),
        lr_(lr_global(s)),
        output_(s.text("output", "params", "weights: only the weights are estimated, the parameters stay", {"params", "weights"})) {}

  void init(tn::Init& i) const {
    for (const char* counter : {"wait", "count", "sum"}) i.table(counter, {}, 0, TN_F64);
  }

  void aggregate(tn::Ctx& c, const tn_round& raw) const {
    const Round r(c, raw);
    const Tensor before = weights(c.state("sum"), c.state("count"));
    r.step(r.deltas && output_ == "params" ? r.weighted_sum(before) / r.clients() : Tensor{}, lr_);

    const Tensor wait = c.state("wait") + 1.0;
    Tensor closed = greater(r.mask(), 0.0);
    if (cutoff_ > 0) closed = closed | (wait >= static_cast<double>(cutoff_));
    const Tensor sum = where(closed, c.state("sum") + wait, c.state("sum")), count = c.state("count") + cast(closed, TN_F64);
    const Tensor open = where(closed, 0.0, wait);
    c.state("sum") = sum;
    c.state("count") = count;
    c.state("wait") = open;
    c.emit("weights", before);
    c.emit("final_weights", weights(sum, count));
    c.emit("interval_counts", count);
    c.emit("open_interval", open);
  }

 private:
  static Tensor weights(Tensor sum, Tensor count) { return where(count > 0.0, sum / maximum(count, 1.0), 1.0); }
  int64_t cutoff_;
  double lr_;
  std::string output_;
};

class FedAvg {
 public:
  explicit FedAvg(tn::Setup& s)
      : weighting_(s.text("weighting", "average_participating", "what an update counts",
                          {"average_participating", "average_all", "known_prob"})),
        lr_(lr_global(s)) {
    s.input("probabilities", "[N] of taking part, for known_prob").optional().rank(1);
  }

  void aggregate(tn::Ctx& c, const tn_round& raw) const {
    const Round r(c, raw);
    if (weighting_ == "known_prob") return r.step(known(r), lr_);
    if (!r.deltas) return r.step({}, lr_);
    r.step(weighting_ == "average_all" ? sum(r.deltas, 0) / r.clients() : mean(r.deltas, 0), lr_);
  }

 private:
  static Tensor known(const Round& r) {
    const Tensor given = tn::Build(r.c.raw, r.raw.in, r.raw.n_in)["probabilities"];
    if (!given) throw tn::Error("known_prob needs the probabilities of the clients");
    if (given.dim(0) != r.raw.n_clients)
      throw tn::Error("there are " + std::to_string(given.dim(0)) + " probabilities for " + std::to_string(r.raw.n_clients) +
                      " clients");
    const Tensor p = cast(given, TN_F64);
    r.c.check(all((p > 0.0) & (p <= 1.0)), "a probability of a client is not in (0, 1]");
    return r.deltas ? r.weighted_sum(1.0 / p) / r.clients() : Tensor{};
  }
  std::string weighting_;
  double lr_;
};

// The last update of every client: a table "last" of N parameter vectors.
void init_last(tn::Init& i) {
  const Tensor params = i["params"];
  i.table("last", {params.dim(0)}, 0, params.dtype());
}
// The table with the rows of the active clients replaced.
Tensor replaced(const Round& r, Tensor last) {
  if (!r.deltas) return last;
  const Tensor sent = scatter_add(zeros_like(last), r.active(), r.deltas);
  return where(unsqueeze(r.mask(), 1) > 0.0, sent, last);
}

class FedVarp {
 public:
  explicit FedVarp(tn::Setup& s) : lr_(lr_global(s)) {}
  void init(tn::Init& i) const { init_last(i); }
  void aggregate(tn::Ctx& c, const tn_round& raw) const {
    const Round r(c, raw);
    const Tensor last = c.state("last");
    r.step(r.deltas ? mean(last, 0) + mean(r.deltas - gather(last, r.active()), 0) : Tensor{}, lr_);
    c.state("last") = replaced(r, last);
  }

 private:
  double lr_;
};

class Mifa {
 public:
  explicit Mifa(tn::Setup& s) : lr_(lr_global(s)) {}
  void init(tn::Init& i) const { init_last(i); }
  void aggregate(tn::Ctx& c, const tn_round& raw) const {
    const Round r(c, raw);
    const Tensor last = replaced(r, c.state("last"));
    r.step(mean(last, 0), lr_);
    c.state("last") = last;
  }

 private:
  double lr_;
};

}  // namespace

TN_PLUGIN("Tenon", "1.0", tn::aggregator<FedAu>("fed_au", "Averaging with weights estimated from participation", kPaper),
          tn::aggregator<FedAvg>("fed_avg", "Averaging of what came, over all clients, or by known probabilities", kPaper),
          tn::aggregator<FedVarp>("fed_varp", "Averaging with the last update of every client as control variate",
                                  "Jhunjhunwala et al. 2022, arXiv 2207.14130"),
          tn::aggregator<Mifa>("mifa", "Average of the last updates of all clients",
                               "Gu et al. 2021, Fast Federated Learning in the Presence of Arbitrary Device Unavailability"))
