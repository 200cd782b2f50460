// A product and what is done to each of its elements next become one piece, where the backend has the like:
// the vector that is added to each of its rows, and relu. The sum is rounded once more than the product, as
// it would be alone, and relu does not round, so that no bit changes. (relu of -infinity may become NaN
// there. Other activations would be rounded otherwise, and their derivatives want what went in.)
#include <set>

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
    std::vector<int> forward(p_.values.size());
    for (size_t v = 0; v < forward.size(); ++v) forward[v] = static_cast<int>(v);
    for (Program::Node& n : p_.nodes) {
      if (n.dead) continue;
      if (n.op->id == "add/1") {
        add(n);
      } else if (n.op->id == "relu/1") {
        if (!relu_of_widened(n)) follow(n, n.in[0]);
      } else if (n.op->id == "cast/1" && late_casts_.contains(n.in[0])) {
        const int narrow = node_of(n.in[0]).in[0];
        if (type(narrow) == type(n.out[0])) forward[at(n.out[0])] = narrow;
      }
    }
    p_.replace_and_sweep(forward);
  }

 private:
  static size_t at(int i) { return static_cast<size_t>(i); }
  Program::Node& node_of(int v) const { return p_.nodes[at(p_.values[at(v)].producer)]; }
  const TensorType& type(int v) const { return p_.values[at(v)].type; }

  // The node that makes v, perhaps under another shape with the same rows, if nobody else reads either.
  Program::Node* maker(int v) const {
    for (bool reshaped = false;; reshaped = true) {
      const Program::Value& x = p_.values[at(v)];
      if (x.kind != Program::Kind::computed || readers_[at(v)] != 1) return nullptr;
      Program::Node& n = node_of(v);
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

  // relu of a product that is rounded to bf16 and widened again comes before the cast, which changes nothing.
  bool relu_of_widened(Program::Node& n) {
    const int v = n.in[0];
    if (p_.values[at(v)].kind != Program::Kind::computed || readers_[at(v)] != 1) return false;
    Program::Node& cast = node_of(v);
    const Program::Node* product = cast.op->id == "cast/1" ? maker(cast.in[0]) : nullptr;
    if (!product || product->op->id != "mixed_matmul/1" || !widens(type(cast.in[0]).dtype, type(v).dtype) ||
        !backend_.fuses(product->op->id, type(cast.in[0]).dtype))
      return false;
    std::swap(n.op, cast.op);
    std::swap(n.words, cast.words);
    p_.values[at(v)].type = type(cast.in[0]);
    late_casts_.insert(n.out[0]);
    return follow(cast, cast.in[0]);
  }

  Program& p_;
  const Backend& backend_;
  std::vector<int> readers_;
  std::set<int> late_casts_;  // results of such casts
  int next_ = 0;
};

}  // namespace

void extend_products(Program& p, const Backend& backend) { Extender(p, backend).run(); }

}  // namespace tenon
