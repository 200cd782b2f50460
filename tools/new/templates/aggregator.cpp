// my_plugin: how the updates of the clients become one, in a sentence.
//
//   Authors Year, "Title", arXiv 0000.00000, algorithm 1
//
// global parameters w, updates d_n of the clients n that took part, rate a
//
//   w <- w + a mean_n d_n
//
// This is an example that works: replace the formula, the options and the state by yours.
#include "tenon_plugin.hpp"

namespace {

using tn::Tensor;

class MyPlugin {
 public:
  explicit MyPlugin(tn::Setup& s) : rate_(s.real("rate", 1, "a").above(0).finite()) {}

  // A number for each client, zero at first: in how many rounds it took part. The host saves and restores it.
  void init(tn::Init& i) const { i.table("rounds", {}, 0, TN_F64); }

  // round: who took part, params [P], deltas [active clients, P] (null when nobody did).
  void aggregate(tn::Ctx& c, const tn_round& round) const {
    const Tensor params{c.raw, round.params}, deltas{c.raw, round.deltas};
    c.emit("params", deltas ? params + mean(deltas, 0) * rate_ : params);
    const std::vector<double> active(round.participation, round.participation + round.n_clients);
    c.state("rounds") = c.state("rounds") + c.from_host(active.data(), {round.n_clients});
  }

 private:
  double rate_;
};

}  // namespace

TN_PLUGIN("Me", "1.0", tn::aggregator<MyPlugin>("my_plugin", "The mean of the updates", "Authors Year, arXiv 0000.00000"))
