// my_plugin: which experts a token goes to, in a sentence.
//
//   Authors Year, "Title", arXiv 0000.00000, equation (1)
//
// logits z [T, E] of T tokens for E experts, bias b [E], rate a
//
//   chosen: the k largest z + b;   gates: softmax of z over the chosen ones
//   after the step: b_e <- b_e + a sign(mean load - load_e)
//
// This is an example that works: replace the formula, the options and the state by yours.
#include "tenon_plugin.hpp"

namespace {

using tn::Tensor;

class MyPlugin {
 public:
  explicit MyPlugin(tn::Setup& s)
      : k_(s.integer("top_k", 1, "experts that a token goes to").at_least(1)), rate_(s.real("rate", 0.001, "a").at_least(0).finite()) {
    s.input("logits", "[T, E]").rank(2);
  }

  // State that no optimizer trains; the host saves and restores it. One instance serves one layer.
  void init(tn::Init& i) const {
    i.state("bias", {i["logits"].dim(1)}, 0, i["logits"].dtype());
    i.state("load", {i["logits"].dim(1)}, 0, i["logits"].dtype());
  }

  void build(tn::Build& b) const {
    const Tensor z = b["logits"];
    if (k_ > z.dim(1)) throw tn::Error("top_k is " + std::to_string(k_) + ", but there are " + std::to_string(z.dim(1)) + " experts");
    const Tensor chosen = tn::top_k(stop_gradient(z) + b.state("bias"), k_)[1];  // [T, k]
    const Tensor load = cast_like(tn::bincount(reshape(chosen, {-1}), z.dim(1)), z);
    b.emit("indices", chosen);
    b.emit("gates", softmax(take_along_axis(z, chosen)));
    b.emit("load", load);
    b.state("load") = b.state("load") + load;
  }

  void after_step(tn::Ctx& c) const {
    const Tensor load = c.state("load"), bias = c.state("bias");
    c.state("bias") = bias + sign(mean(load) - load) * rate_;
    c.state("load") = load * 0.0;
  }

 private:
  int64_t k_;
  double rate_;
};

}  // namespace

TN_PLUGIN("Me", "1.0", tn::router<MyPlugin>("my_plugin", "The k largest logits, balanced by a bias", "Authors Year, arXiv 0000.00000"))
