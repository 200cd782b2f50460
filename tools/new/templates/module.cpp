// my_plugin: what the layer computes, in a sentence.
//
//   Authors Year, "Title", arXiv 0000.00000, equation (1)
//
// input x [B, I], weights w [I, O] and v [I, O]
//
//   y = (x w) sigmoid(x v)
//
// This is an example that works: replace the formula and the inputs by yours.
#include "tenon_plugin.hpp"

namespace {

class MyPlugin {
 public:
  // The weights are inputs like the others.
  explicit MyPlugin(tn::Setup& s) {
    s.input("x", "[B, I]").rank(2);
    s.input("w", "[I, O]").rank(2);
    s.input("v", "[I, O] of the gate").rank(2);
  }

  void build(tn::Build& b) const { b.emit("y", matmul(b["x"], b["w"]) * sigmoid(matmul(b["x"], b["v"]))); }
};

}  // namespace

TN_PLUGIN("Me", "1.0", tn::module<MyPlugin>("my_plugin", "A gated linear layer", "Authors Year, arXiv 0000.00000"))
