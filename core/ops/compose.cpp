#include "core/ops/compose.h"

#include "core/graph/grad.h"
#include "core/ops/elementwise.h"
#include "core/ops/reduce.h"

namespace tenon {

Tensor alias(Tensor x) {
  if (!x.valid()) return {};
  static const OpDef& reshape_op = *find_op("reshape/1");  // the public reshape may return x itself
  return x.graph().apply(reshape_op, {x}, AttrList().ints(x.shape()));
}

void vjp_of_composition(VjpArgs& a,
                        const std::function<std::vector<Tensor>(std::span<const Tensor> in)>& compose) {
  // Stand-ins: one input may be given twice or depend on another, and each must get its own share only.
  std::vector<Tensor> in;
  for (const Tensor& t : a.in) in.push_back(alias(t));
  const std::vector<Tensor> out = compose(in);

  std::vector<size_t> used;
  for (size_t k = 0; k < out.size(); ++k)
    if (out[k].valid() && a.cotangents[k].valid()) used.push_back(k);
  if (used.empty()) return;
  Tensor y = out[used[0]], seed = a.cotangents[used[0]];
  if (used.size() > 1) {  // one walk for all outputs: that of sum_k <out_k, cotangent_k>
    y = seed = {};
    for (size_t k : used) {
      const Tensor product = sum(mul(out[k], a.cotangents[k]));
      y = y.valid() ? add(y, product) : product;
    }
  }
  std::vector<Tensor> xs;
  std::vector<size_t> at;
  for (size_t k = 0; k < in.size(); ++k)
    if (a.needed[k]) {
      xs.push_back(in[k]);
      at.push_back(k);
    }
  const std::vector<Tensor> grads = grad(y, xs, seed);
  for (size_t k = 0; k < at.size(); ++k) a.grads[at[k]] = grads[k];
}

}  // namespace tenon
