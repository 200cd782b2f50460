#include "core/graph/grad.h"

#include "core/ops/elementwise.h"
#include "core/ops/shape.h"

namespace tenon {

std::vector<Tensor> grad(Tensor y, std::span<const Tensor> xs, Tensor seed) {
  std::vector<Tensor> result(xs.size());
  if (!y.valid()) return result;
  Graph& g = y.graph();
  if (!is_floating(y.dtype())) {
    g.fail(invalid("grad: the differentiated value has dtype " + std::string(name_of(y.dtype())) + "; it must be floating"));
    return result;
  }
  for (const Tensor& x : xs)
    if (!x.valid()) return result;
  if (!seed.valid()) seed = broadcast_to(g.constant(1, y.dtype()), y.shape());
  if (!seed.valid()) return result;

  // Which values lie on a path from some x to y. Ids are topological, so two sweeps over the ids up to y decide it.
  const size_t n_values = y.id() + 1;
  std::vector<uint8_t> from_x(n_values, 0);
  uint32_t first = y.id() + 1;
  for (const Tensor& x : xs)
    if (x.id() < n_values) {
      from_x[x.id()] = 1;
      first = std::min(first, x.id());
    }
  const uint32_t last_node = g.value_at(y.id()).node;
  const uint32_t first_node = first <= y.id() ? g.value_at(first).node : last_node + 1;
  for (uint32_t i = first_node; i <= last_node; ++i) {
    const Graph::Node n = g.nodes()[i];
    bool reached = false;
    for (uint32_t id : g.inputs_of(n)) reached |= from_x[id] != 0;
    if (reached)
      for (uint32_t k = 0; k < n.n_out; ++k)
        if (n.first_value + k < n_values) from_x[n.first_value + k] = 1;
  }

  std::vector<Tensor> cotangent(n_values);
  cotangent[y.id()] = seed;
  const auto add_to = [&](uint32_t id, Tensor c) { cotangent[id] = cotangent[id].valid() ? add(cotangent[id], c) : c; };

  std::vector<Tensor> in, out, cots, grads;
  std::vector<int64_t> words;
  std::vector<uint8_t> needed;
  for (uint32_t i = last_node + 1; i-- > first_node;) {
    const Graph::Node n = g.nodes()[i];  // a copy: the rule appends nodes
    if (!n.op->vjp) continue;
    bool any_cotangent = false;
    out.clear(), cots.clear();
    for (uint32_t k = 0; k < n.n_out; ++k) {
      const uint32_t id = n.first_value + k;
      out.emplace_back(&g, id);
      cots.push_back(id < n_values ? cotangent[id] : Tensor{});
      any_cotangent |= cots.back().valid();
    }
    if (!any_cotangent) continue;
    in.clear(), needed.clear();
    bool any_needed = false;
    for (uint32_t id : g.inputs_of(n)) {
      in.emplace_back(&g, id);
      needed.push_back(from_x[id] && is_floating(g.value_at(id).type.dtype));
      any_needed |= needed.back() != 0;
    }
    if (!any_needed) continue;
    grads.assign(in.size(), Tensor{});
    // Attribute words move when nodes are appended, so the rule reads a copy.
    const std::span<const int64_t> at = g.attrs_of(n).words();
    words.assign(at.begin(), at.end());
    VjpArgs args{g, Attrs(n.op->attrs, words), in, out, cots, grads, needed};
    n.op->vjp(args);
    if (!g.status().is_ok()) return result;
    for (size_t k = 0; k < in.size(); ++k)
      if (needed[k] && grads[k].valid()) {
        if (grads[k].shape() != in[k].shape() || grads[k].dtype() != in[k].dtype()) {
          g.fail(internal_error(std::string(n.op->name()) + ": the derivative with respect to input " + std::to_string(k) +
                                " has " + std::string(name_of(grads[k].dtype())) + to_string(grads[k].shape()) +
                                ", the input " + std::string(name_of(in[k].dtype())) + to_string(in[k].shape())));
          return result;
        }
        add_to(in[k].id(), grads[k]);
      }
  }
  for (size_t k = 0; k < xs.size(); ++k) {
    const Tensor c = xs[k].id() < n_values ? cotangent[xs[k].id()] : Tensor{};
    result[k] = c.valid() ? c : broadcast_to(g.constant(0, xs[k].dtype()), xs[k].shape());
  }
  return result;
}

}  // namespace tenon
