// A product and the vector that is added to each of its rows become one piece, where the backend has the
// like. The sum is rounded once more than the product, as it would be alone, so that no bit changes. (An
// activation is not taken along: in oneDNN's, NaN becomes 0.)
#include "core/plan/program.h"

namespace tenon {

void add_bias_to_products(Program& p, const Backend& backend) {
  std::vector<int> readers(p.values.size(), 0);
  for (const Program::Node& n : p.nodes)
    if (!n.dead)
      for (int v : n.in) ++readers[static_cast<size_t>(v)];
  for (int v : p.roots) ++readers[static_cast<size_t>(v)];
  for (int v : p.updates) ++readers[static_cast<size_t>(v)];

  const auto maker = [&](int v) -> Program::Node* {
    const Program::Value& x = p.values[static_cast<size_t>(v)];
    return x.kind == Program::Kind::computed ? &p.nodes[static_cast<size_t>(x.producer)] : nullptr;
  };
  // The matmul whose result v is, perhaps under another shape with the same rows, if nobody else reads
  // either.
  const auto product = [&](int v) -> Program::Node* {
    Program::Node* n = maker(v);
    if (n && readers[static_cast<size_t>(v)] == 1 && n->op->id == "reshape/1") {
      v = n->in[0];
      n = maker(v);
    }
    return n && readers[static_cast<size_t>(v)] == 1 && n->op->id == "matmul/1" ? n : nullptr;
  };
  int next = 0;
  for (Program::Node& n : p.nodes) {
    if (n.dead || n.op->id != "add/1") continue;
    const TensorType& out = p.values[static_cast<size_t>(n.out[0])].type;
    for (size_t k = 0; k < 2; ++k) {
      Program::Node* matmul = product(n.in[k]);
      if (!matmul || !backend.fuses(matmul->op->id, out.dtype)) continue;
      const TensorType& bias = p.values[static_cast<size_t>(n.in[1 - k])].type;
      const Shape& made = p.values[static_cast<size_t>(matmul->out[0])].type.shape;
      if (p.values[static_cast<size_t>(n.in[k])].type != out || bias.shape != Shape{out.shape.back()} ||
          made.back() != out.shape.back())
        continue;
      matmul->cluster = n.cluster = next++;
      break;
    }
  }
}

}  // namespace tenon
