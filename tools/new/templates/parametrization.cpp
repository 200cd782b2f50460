// my_plugin: what stands between the stored weight and the one that the layer uses, in a sentence.
//
//   Authors Year, "Title", arXiv 0000.00000, equation (1)
//
// stored weight v, trained number s
//
//   w = exp(s) v
//
// This is an example that works: replace the formula and what is trained by yours.
#include "tenon_plugin.hpp"

namespace {

using tn::Tensor;

class MyPlugin {
 public:
  explicit MyPlugin(tn::Setup& s) : rate_(s.real("rate", 0.1, "of s, as a factor of the weights' learning rate").above(0).finite()) {
    s.input("raw", "[O, I] stored weight, of any shape");
  }

  // What the plugin owns: a number that is trained with the model, without weight decay.
  void init(tn::Init& i) const { i.trainable("s", {}, 0, i["raw"].dtype(), rate_, TN_SLOT_FLAG_NO_DECAY); }

  void build(tn::Build& b) const { b.emit("weight", b["raw"] * exp(b.state("s"))); }

  // The stored weight that gives this one, so that training can start from given weights. Leave it out if there is none.
  void invert(tn::Build& b) const { b.emit("raw", b["weight"] * exp(-b.state("s"))); }

 private:
  double rate_;
};

}  // namespace

TN_PLUGIN("Me", "1.0", tn::parametrization<MyPlugin>("my_plugin", "A trained factor of the weight", "Authors Year, arXiv 0000.00000"))
