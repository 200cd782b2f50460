#include "core/ops/checkpoint.h"

#include <vector>

#include "core/graph/grad.h"
#include "core/ops/elementwise.h"
#include "core/ops/shape_ops.h"

namespace tenon {
namespace {

constexpr AttrSpec kApartAttrs[] = {{"mark", AttrKind::i64, true}};

Status infer_apart(const InferArgs& a) {
  a.out = {a.in[0]};
  return Status::ok();
}
std::optional<ViewSpec> view_apart(const Layout& in, const Attrs&, const TensorType&) { return ViewSpec{0, in.strides}; }
Status plain_apart(const KernelArgs& a) { return copy_elements(a.in[0], a.out[0]); }
void vjp_apart(VjpArgs& a) { a.grads[0] = a.cotangents[0]; }

// Not in the list of ops: a mark means something in one graph only.
constinit const OpDef kApart{.id = "apart/1",
                             .attrs = kApartAttrs,
                             .infer = infer_apart,
                             .vjp = vjp_apart,
                             .plain = plain_apart,
                             .view = view_apart};

}  // namespace

Tensor apart(Tensor x, int64_t mark) { return x.valid() ? x.graph().apply(kApart, {x}, AttrList().i(mark)) : Tensor(); }

Tensor checkpoint(Tensor y, Recomputation f, std::span<const Tensor> xs, std::span<const Tensor> parameters) {
  if (!y.valid()) return {};
  std::vector<Tensor> all(xs.begin(), xs.end());
  all.insert(all.end(), parameters.begin(), parameters.end());
  return custom_gradient(y, all, [=, f = std::move(f), n = xs.size()](Tensor cotangent) {
    std::vector<Tensor> again(all);
    for (size_t i = 0; i < n; ++i) again[i] = apart(all[i], y.id());
    const Tensor same = f(std::span(again).first(n));
    return grad(same, again, cotangent);
  });
}

}  // namespace tenon
