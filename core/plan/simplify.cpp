// Algebra that is exact in floating point, bit for bit: x*1, x/1, x-0, -(-x), conversions to the same type,
// and to a wider one and back. (x+0 is not: it turns -0 into +0.)
#include "core/plan/program.h"

namespace tenon {
namespace {

// The value of a structural constant, seen through broadcasts and casts that keep it.
bool is_constant(const Program& p, const Graph& g, int v, double expected) {
  for (;;) {
    const Program::Value& x = p.values[static_cast<size_t>(v)];
    if (x.kind == Program::Kind::scalar) {
      const Graph::Node& n = g.node_of(x.graph_id);
      return n.op == &kConstantOp && g.attrs_of(n).f("value") == expected;
    }
    if (x.kind != Program::Kind::computed) return false;
    const Program::Node& n = p.nodes[static_cast<size_t>(x.producer)];
    if (n.op->id != "broadcast_to/1" && n.op->id != "reshape/1") return false;
    v = n.in[0];
  }
}

}  // namespace

void simplify(Program& p, const Graph& g) {
  std::vector<int> forward(p.values.size());
  for (size_t i = 0; i < forward.size(); ++i) forward[i] = static_cast<int>(i);
  for (Program::Node& n : p.nodes) {
    if (n.dead) continue;
    for (int& v : n.in) v = forward[static_cast<size_t>(v)];
    if (n.in.empty() || n.out.size() != 1) continue;
    const TensorType& out = p.values[static_cast<size_t>(n.out[0])].type;
    const auto same = [&](size_t k) { return p.values[static_cast<size_t>(n.in[k])].type == out; };
    const std::string_view op = n.op->id;
    int to = -1;
    if (op == "mul/1") {
      if (same(0) && is_constant(p, g, n.in[1], 1))
        to = n.in[0];
      else if (same(1) && is_constant(p, g, n.in[0], 1))
        to = n.in[1];
    } else if (op == "div/1") {
      if (same(0) && is_constant(p, g, n.in[1], 1)) to = n.in[0];
    } else if (op == "sub/1") {
      if (same(0) && is_constant(p, g, n.in[1], 0)) to = n.in[0];
    } else if (op == "neg/1") {
      const Program::Value& x = p.values[static_cast<size_t>(n.in[0])];
      if (x.kind == Program::Kind::computed && p.nodes[static_cast<size_t>(x.producer)].op == n.op)
        to = p.nodes[static_cast<size_t>(x.producer)].in[0];
    } else if (op == "cast/1" || op == "reshape/1" || op == "broadcast_to/1" || op == "stop_gradient/1" ||
               op == "custom_gradient/1") {
      const Program::Value& x = p.values[static_cast<size_t>(n.in[0])];
      if (same(0)) {
        to = n.in[0];
      } else if (op == "cast/1" && x.kind == Program::Kind::computed) {
        const Program::Node& first = p.nodes[static_cast<size_t>(x.producer)];
        if (first.op == n.op && p.values[static_cast<size_t>(first.in[0])].type == out &&
            widens(out.dtype, x.type.dtype))
          to = first.in[0];
      }
    }
    if (to >= 0) forward[static_cast<size_t>(n.out[0])] = to;
  }
  p.replace_and_sweep(forward);
}

}  // namespace tenon
