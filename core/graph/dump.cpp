#include "core/graph/dump.h"

#include <cstdio>

namespace tenon {
namespace {

std::string number(double v) {
  char text[32];
  std::snprintf(text, sizeof text, "%.9g", v);
  return text;
}

std::string attributes(const Graph& g, const Graph::Node& n) {
  if (n.op == &kInputOp) return "";
  if (n.op == &kScalarOp) {
    const Graph::Leaf& leaf = g.leaves()[static_cast<size_t>(g.leaf_index(n))];
    return is_floating(g.value_at(n.first_value).type.dtype) ? number(leaf.number) : std::to_string(leaf.integer);
  }
  const Attrs attrs = g.attrs_of(n);
  std::string s;
  for (const AttrSpec& a : attrs.spec()) {
    s += (s.empty() ? "" : ", ") + std::string(a.name) + "=";
    switch (a.kind) {
      case AttrKind::i64: s += std::to_string(attrs.i(a.name)); break;
      case AttrKind::f64: s += number(attrs.f(a.name)); break;
      case AttrKind::ints: s += to_string(attrs.dims(a.name)); break;
    }
  }
  return s;
}

}  // namespace

std::string dump_text(const Graph& g) {
  std::string s;
  for (const Graph::Node& n : g.nodes()) {
    for (uint32_t k = 0; k < n.n_out; ++k)
      s += (k ? ", %" : "%") + std::to_string(n.first_value + k) + " " + to_string(g.value_at(n.first_value + k).type);
    s += " = " + std::string(n.op->name()) + "(";
    bool first = true;
    for (uint32_t id : g.inputs_of(n)) {
      s += (first ? "%" : ", %") + std::to_string(id);
      first = false;
    }
    s += ")";
    if (const std::string a = attributes(g, n); !a.empty()) s += " {" + a + "}";
    s += "\n";
  }
  return s;
}

std::string dump_dot(const Graph& g) {
  std::string s = "digraph tenon {\n  rankdir=TB;\n  node [shape=box, fontname=\"monospace\"];\n";
  for (size_t i = 0; i < g.nodes().size(); ++i) {
    const Graph::Node& n = g.nodes()[i];
    s += "  n" + std::to_string(i) + " [label=\"" + std::string(n.op->name()) + "\\n" +
         to_string(g.value_at(n.first_value).type);
    if (const std::string a = attributes(g, n); !a.empty()) s += "\\n" + a;
    s += n.op == &kInputOp ? "\", style=filled, fillcolor=lightgrey];\n" : "\"];\n";
    for (uint32_t id : g.inputs_of(n))
      s += "  n" + std::to_string(g.value_at(id).node) + " -> n" + std::to_string(i) + ";\n";
  }
  return s + "}\n";
}

}  // namespace tenon
