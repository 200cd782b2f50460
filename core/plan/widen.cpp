// A narrow value that is read in a wider type (bf16 as f32) is widened by each piece that reads it, not
// written down wide for all of them: what moves is the narrow one. Done when the pieces are known. The bits
// are those of the one cast. Batch norm reads bf16 by itself, and its derivative gives such a one.
#include <algorithm>
#include <map>

#include "core/plan/program.h"

namespace tenon {
namespace {

size_t at(int i) { return static_cast<size_t>(i); }

// Batch norm of a cast of bf16 reads what was cast. So does its derivative, where all that is wanted of dx is
// the cast back.
void narrow_norms(Program& p, const Backend& backend) {
  std::vector<int> forward(p.values.size());
  for (size_t v = 0; v < forward.size(); ++v) forward[v] = static_cast<int>(v);
  std::vector<std::vector<const Program::Node*>> readers(p.values.size());  // null: the plan's results
  for (const Program::Node& n : p.nodes)
    if (!n.dead)
      for (int v : n.in) readers[at(v)].push_back(&n);
  for (int v : p.roots) readers[at(v)].push_back(nullptr);
  for (int v : p.updates) readers[at(v)].push_back(nullptr);

  const auto dtype = [&](int v) -> DType& { return p.values[at(v)].type.dtype; };
  for (Program::Node& n : p.nodes) {
    const bool derivative = n.op->id == "batch_norm_grad/1";
    if (n.dead || (!derivative && n.op->id != "batch_norm/1")) continue;
    const Program::Value& x = p.values[at(n.in[0])];
    if (x.kind != Program::Kind::computed || x.type.dtype != DType::f32) continue;
    const Program::Node& cast = p.nodes[at(x.producer)];
    if (cast.op->id != "cast/1" || dtype(cast.in[0]) != DType::bf16 ||
        !backend.reads_bf16(n.op->id, x.type.shape))
      continue;
    if (derivative) {
      const auto& users = readers[at(n.out[0])];
      if (!std::all_of(users.begin(), users.end(), [&](const Program::Node* user) {
            return user && user->op->id == "cast/1" && dtype(user->out[0]) == DType::bf16;
          }))
        continue;
      for (const Program::Node* user : users) forward[at(user->out[0])] = n.out[0];
      dtype(n.out[0]) = DType::bf16;
    }
    n.in[0] = cast.in[0];
  }
  p.replace_and_sweep(forward);
}

class Widener {
 public:
  Widener(Program& p, const Backend& backend) : p_(p), backend_(backend) {}

  void run() {
    for (const Program::Node& n : p_.nodes)
      if (!n.dead && n.cluster >= 0) {
        Cluster& c = clusters_[n.cluster];
        ++c.nodes;
        c.product |= is_matmul(*n.op);
      }
    next_ = clusters_.empty() ? 0 : clusters_.rbegin()->first + 1;
    std::vector<Program::Node> old;
    old.swap(p_.nodes);
    casts_.assign(p_.values.size(), nullptr);
    for (const Program::Node& n : old)
      if (!n.dead && n.op->id == "cast/1" && widens(type(n.in[0]).dtype, type(n.out[0]).dtype))
        casts_[at(n.out[0])] = &n;
    p_.nodes.reserve(old.size());
    for (const Program::Node& n : old) {
      Program::Node m = n;
      if (!n.dead) read_narrow(m);
      append(std::move(m));
    }
    std::vector<int> same(p_.values.size());
    for (size_t i = 0; i < same.size(); ++i) same[i] = static_cast<int>(i);
    p_.replace_and_sweep(same);
  }

 private:
  struct Cluster {
    size_t nodes = 0;
    bool product = false;        // its piece is a product, which reads what it reads as it is
    std::map<int, int> widened;  // values of casts elsewhere, and of the same casts made here
  };
  const TensorType& type(int v) const { return p_.values[at(v)].type; }

  // A fold that is a piece of its own, and could be one of several.
  bool folds(const Program::Node& n) const {
    return n.cluster < 0 && n.in.size() == 1 && !n.op->elementwise && !n.op->view &&
           backend_.fuses(n.op->id, type(n.in[0]).dtype);
  }

  void read_narrow(Program::Node& n) {
    const bool fold = folds(n);
    if (!fold && (n.cluster < 0 || !n.op->elementwise || clusters_[n.cluster].product)) return;
    for (int& v : n.in) {
      const Program::Node* cast = at(v) < casts_.size() ? casts_[at(v)] : nullptr;
      if (!cast || (!fold && cast->cluster == n.cluster)) continue;
      if (fold) n.cluster = next_++;
      Cluster& c = clusters_[n.cluster];
      if (const auto here = c.widened.find(v); here != c.widened.end()) {
        v = here->second;
        continue;
      }
      if (c.nodes >= kMaxPieceNodes) continue;
      ++c.nodes;
      Program::Node copy = *cast;
      copy.cluster = n.cluster;
      copy.out = {static_cast<int>(p_.values.size())};
      p_.values.push_back({.type = type(v)});
      c.widened[v] = copy.out[0];
      v = copy.out[0];
      append(std::move(copy));
    }
  }

  void append(Program::Node n) {
    for (int v : n.out) p_.values[at(v)].producer = static_cast<int>(p_.nodes.size());
    p_.nodes.push_back(std::move(n));
  }

  Program& p_;
  const Backend& backend_;
  std::map<int, Cluster> clusters_;
  std::vector<const Program::Node*> casts_;  // by value: the widening cast that makes it
  int next_ = 0;                             // the first free number of a cluster
};

}  // namespace

void widen_where_read(Program& p, const Backend& backend) {
  narrow_norms(p, backend);
  Widener(p, backend).run();
}

}  // namespace tenon
