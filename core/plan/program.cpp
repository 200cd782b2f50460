#include "core/plan/program.h"

namespace tenon {

Program Program::extract(const Graph& g, std::span<const uint32_t> roots, std::span<const Update> updates) {
  Program p;
  const auto nodes = g.nodes();
  // Backward sweep: which nodes are needed. Ids are topological.
  std::vector<uint8_t> needed(nodes.size(), 0);
  uint32_t last = 0;
  const auto need = [&](uint32_t id) {
    if (g.has_array(id)) return;
    const uint32_t node = g.value_at(id).node;
    needed[node] = 1;
    last = std::max(last, node);
  };
  for (uint32_t id : roots) need(id);
  for (const Update& u : updates) need(u.value.id());
  for (uint32_t i = last + 1; i-- > 0 && !nodes.empty();)
    if (needed[i])
      for (uint32_t id : g.inputs_of(nodes[i])) need(id);

  std::vector<int> local(g.value_count(), -1);
  const auto value_of = [&](uint32_t id) {
    if (local[id] >= 0) return local[id];
    const Graph::Value& v = g.value_at(id);
    Value w{.type = v.type, .graph_id = id};
    if (g.has_array(id)) {
      w.kind = Kind::array;
      w.leaf = static_cast<int>(p.leaf_ids.size());
      p.leaf_ids.push_back(id);
      p.leaf_arrays.push_back(g.array_of(id));
    } else {
      w.kind = Kind::scalar;
      w.leaf = static_cast<int>(p.scalar_ids.size());
      p.scalar_ids.push_back(id);
    }
    local[id] = static_cast<int>(p.values.size());
    p.values.push_back(w);
    return local[id];
  };
  for (uint32_t i = 0; i < nodes.size(); ++i) {
    if (!needed[i]) continue;
    const Graph::Node& n = nodes[i];
    if (n.op == &kScalarOp || n.op == &kConstantOp) continue;
    Node m{.op = n.op, .words = {}, .in = {}, .out = {}};
    const auto words = g.attrs_of(n).words();
    m.words.assign(words.begin(), words.end());
    for (uint32_t id : g.inputs_of(n)) m.in.push_back(value_of(id));
    for (uint32_t k = 0; k < n.n_out; ++k) {
      const uint32_t id = n.first_value + k;
      local[id] = static_cast<int>(p.values.size());
      m.out.push_back(local[id]);
      p.values.push_back({.type = g.value_at(id).type,
                          .kind = Kind::computed,
                          .leaf = -1,
                          .producer = static_cast<int>(p.nodes.size()),
                          .graph_id = id});
    }
    p.nodes.push_back(std::move(m));
  }
  for (uint32_t id : roots) p.roots.push_back(value_of(id));
  for (const Update& u : updates) p.updates.push_back(value_of(u.value.id()));
  return p;
}

bool Program::is_row_view(int v) const {
  const Value& x = values[static_cast<size_t>(v)];
  if (x.kind != Kind::computed) return false;
  const std::string_view op = nodes[static_cast<size_t>(x.producer)].op->id;
  return op == "reshape/1" || op == "squeeze/1" || op == "unsqueeze/1" || op == "broadcast_to/1";
}

bool Program::reads_inside(const Node& n, int v) const {
  if (n.cluster < 0) return false;
  while (is_row_view(v)) v = nodes[static_cast<size_t>(values[static_cast<size_t>(v)].producer)].in[0];
  const Value& x = values[static_cast<size_t>(v)];
  return x.kind == Kind::computed && nodes[static_cast<size_t>(x.producer)].cluster == n.cluster;
}

void Program::replace_and_sweep(const std::vector<int>& forward) {
  const auto follow = [&](int v) {
    while (forward[static_cast<size_t>(v)] != v) v = forward[static_cast<size_t>(v)];
    return v;
  };
  for (Node& n : nodes)
    for (int& v : n.in) v = follow(v);
  for (int& v : roots) v = follow(v);
  for (int& v : updates) v = follow(v);
  std::vector<uint8_t> used(values.size(), 0);
  for (int v : roots) used[static_cast<size_t>(v)] = 1;
  for (int v : updates) used[static_cast<size_t>(v)] = 1;
  for (size_t i = nodes.size(); i-- > 0;) {
    Node& n = nodes[i];
    bool live = false;
    for (int v : n.out) live |= used[static_cast<size_t>(v)] != 0;
    n.dead = !live;
    if (live)
      for (int v : n.in) used[static_cast<size_t>(v)] = 1;
  }
}

}  // namespace tenon
