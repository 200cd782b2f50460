// Multi-head self-attention (Vaswani et al. 2017, section 3.2.2), one fused projection for queries, keys and
// values.
#include <cmath>
#include <limits>
#include <string>

#include "core/nn/layer_util.h"
#include "core/nn/layers.h"
#include "core/ops/ops.h"

namespace tenon::nn {
namespace {

bool drops_weights(const Context& c, double rate) { return c.train() && rate != 0; }

// q, k, v: [B, H, T, D] -> [B, H, T, D]. With dropout of the weights the product is written out.
Tensor attend(Context& c, Tensor q, Tensor k, Tensor v, bool causal, double rate) {
  if (!drops_weights(c, rate)) return scaled_dot_product_attention(q, k, v, {.causal = causal});
  if (!q.valid()) return {};
  Tensor scores = matmul(q * (1 / std::sqrt(static_cast<double>(q.dim(-1)))), k, false, true);
  if (causal) {
    const Shape square{q.dim(-2), k.dim(-2)};
    const Tensor visible = tril(ones(c.graph(), square, scores.dtype()));
    const Tensor hidden = scalar_like(scores, -std::numeric_limits<double>::infinity());
    scores = where(greater(visible, zeros_like(visible)), scores, hidden);
  }
  return matmul(apply_dropout(c, tenon::softmax(scores), rate), v);
}

}  // namespace

Layer attention(AttentionOptions o) {
  return {"attention", [=](Builder& b, std::span<const TensorType> in) -> ModulePtr {
            if (!expect_floating(b, "attention", in, 3, "[B, T, C]")) return nullptr;
            const int64_t width = in[0].shape.back();
            if (in[0].shape.rank() != 3 || o.heads < 1 || width % o.heads != 0)
              return b.fail("attention", "wants [B, T, C] with C divisible by heads = " +
                                             std::to_string(o.heads) + ", got " + to_string(in[0]));
            if (!(o.dropout >= 0 && o.dropout < 1))
              return b.fail("attention", "dropout is " + std::to_string(o.dropout) +
                                             "; it must be at least 0 and less than 1");
            auto m = std::make_shared<Module>(b.path(), "attention");
            const auto project = [&](std::string_view name, int64_t units, const Initializer& init) {
              Builder inner = b.child(name);
              return m->add_child(
                  linear(units, {.bias = o.bias, .init = init, .bias_init = o.bias_init}).make(inner, in));
            };
            const ModulePtr qkv = project("qkv", 3 * width, o.init),
                            out = project("proj", width, o.output_init);
            if (!qkv || !out) return nullptr;
            m->set_forward([=](Context& c, std::span<const Tensor> in_x) -> Tensor {
              const Tensor x = in_x[0], projected = (*qkv)(c, x);
              if (!projected.valid()) return {};
              const Tensor packed = drops_weights(c, o.dropout) ? projected : c.operand(projected);
              const int64_t batch = x.dim(0), length = x.dim(1);
              const auto head = [&](int64_t i) {  // part i of [B, T, 3C] -> [B, H, T, D]
                const Tensor part = narrow(packed, 2, i * width, width);
                return swap_axes(tenon::reshape(part, {batch, length, o.heads, width / o.heads}), 1, 2);
              };
              const Tensor y = attend(c, head(0), head(1), head(2), o.causal, o.dropout);
              return apply_dropout(c, (*out)(c, tenon::reshape(swap_axes(y, 1, 2), {batch, length, width})),
                                   o.dropout);
            });
            return m;
          }};
}

}  // namespace tenon::nn
