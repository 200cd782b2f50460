// Common subexpressions: nodes with the same op, attributes and inputs are computed once. Every op is a pure
// function (random ones of their key), so this keeps all bits.
#include <unordered_map>

#include "core/plan/program.h"

namespace tenon {

void eliminate_common_subexpressions(Program& p) {
  std::vector<int> forward(p.values.size());
  for (size_t i = 0; i < forward.size(); ++i) forward[i] = static_cast<int>(i);
  std::unordered_map<Hash128, int, Hash128Hasher> seen;
  for (size_t i = 0; i < p.nodes.size(); ++i) {
    Program::Node& n = p.nodes[i];
    if (n.dead) continue;
    Hash128 h;
    h.mix(reinterpret_cast<uint64_t>(n.op));
    h.mix_list(n.words);
    for (int& v : n.in) {
      v = forward[static_cast<size_t>(v)];  // inputs come earlier: already final
      h.mix(static_cast<uint64_t>(v));
    }
    const auto [it, fresh] = seen.try_emplace(h, static_cast<int>(i));
    if (fresh) continue;
    const Program::Node& first = p.nodes[static_cast<size_t>(it->second)];
    for (size_t k = 0; k < n.out.size(); ++k) forward[static_cast<size_t>(n.out[k])] = first.out[k];
  }
  p.replace_and_sweep(forward);
}

}  // namespace tenon
