// my_plugin: the experiment that it carries out, in a sentence.
//
//   Authors Year, "Title", arXiv 0000.00000, algorithm 1
//
// Trains by the recipe in rounds, and reports after each of them.
//
// This is an example that works: replace the loop and the options by yours.
#include "tenon_plugin.hpp"

namespace {

class MyPlugin {
 public:
  explicit MyPlugin(tn::Setup& s)
      : rounds_(s.integer("rounds", 2, "how many").at_least(1)), steps_(s.integer("steps", 4, "of training in each").at_least(1)) {}

  // Saved at checkpoints, so that a resumed run goes on where it was.
  void init(tn::Init& i) const { i.state("done", {}, 0, TN_F64); }

  void run(tn::Ctx& c) const {
    const tn::Fit fit{c};  // the recipe's own training; tn::Data, tn::Model and tn::Plugin reach the rest
    for (int64_t round = done(c); round < rounds_; ++round) {
      c.report("train/loss", fit.train(round * steps_, steps_));
      c.report("test/loss", fit.metric("test", "loss"));
      tn::Session session(c);  // a graph of its own, for numbers and for state
      session.state("done") = session.state("done") + 1.0;
      session.run();
      c.progress(round + 1, rounds_, "rounds");
    }
  }

 private:
  static int64_t done(const tn::Ctx& c) {
    tn::Session session(c);
    return static_cast<int64_t>(value(session.state("done")));
  }

  int64_t rounds_, steps_;
};

}  // namespace

TN_PLUGIN("Me", "1.0", tn::procedure<MyPlugin>("my_plugin", "Training in rounds", "Authors Year, arXiv 0000.00000"))
