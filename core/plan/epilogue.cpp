// A product and what is done to each of its elements next become one piece, where the backend has the like:
// the vector that is added to each of its rows, and relu. The sum is rounded once more than the product, as
// it would be alone, and relu does not round, so that no bit changes. (relu of -infinity may become NaN
// there. Other activations would be rounded otherwise, and their derivatives want what went in.)
#include "core/plan/program.h"

namespace tenon {
namespace {

class Extender {
 public:
  Extender(Program& p, const Backend& backend) : p_(p), backend_(backend), readers_(p.values.size(), 0) {
    for (const Program::Node& n : p.nodes)
      if (!n.dead)
        for (int v : n.in) ++readers_[at(v)];
    for (int v : p.roots) ++readers_[at(v)];
    for (int v : p.updates) ++readers_[at(v)];
  }

  void run() {
    for (Program::Node& n : p_.nodes) {
      if (n.dead) continue;
      if (n.op->id == "add/1") add(n);
      if (n.op->id == "relu/1") follow(n, n.in[0]);
    }
  }

 private:
  static size_t at(int i) { return static_cast<size_t>(i); }
  const TensorType& type(int v) const { return p_.values[at(v)].type; }

  // The node that makes v, perhaps under another shape with the same rows, if nobody else reads either.
  Program::Node* maker(int v) const {
    for (bool reshaped = false;; reshaped = true) {
      const Program::Value& x = p_.values[at(v)];
      if (x.kind != Program::Kind::computed || readers_[at(v)] != 1) return nullptr;
      Program::Node& n = p_.nodes[at(x.producer)];
      if (reshaped || n.op->id != "reshape/1") return &n;
      const Shape &from = type(n.in[0]).shape, &to = type(v).shape;
      if (from.rank() == 0 || to.rank() == 0 || from.back() != to.back()) return nullptr;
      v = n.in[0];
    }
  }

  // n joins the product that makes v, be it extended already.
  bool follow(Program::Node& n, int v) {
    Program::Node* before = maker(v);
    if (!before || before->op->id == "relu/1" || type(v) != type(n.out[0])) return false;
    if (before->cluster < 0) {
      if (!is_matmul(*before->op) || !backend_.fuses(before->op->id, type(v).dtype)) return false;
      before->cluster = next_++;
    }
    n.cluster = before->cluster;
    return true;
  }

  void add(Program::Node& n) {
    for (size_t k = 0; k < 2; ++k) {
      const Program::Node* product = maker(n.in[k]);
      if (!product || product->op->id != "matmul/1" ||
          type(n.in[1 - k]).shape != Shape{type(n.out[0]).shape.back()})
        continue;
      if (follow(n, n.in[k])) return;
    }
  }

  Program& p_;
  const Backend& backend_;
  std::vector<int> readers_;
  int next_ = 0;
};

}  // namespace

void extend_products(Program& p, const Backend& backend) { Extender(p, backend).run(); }

}  // namespace tenon
