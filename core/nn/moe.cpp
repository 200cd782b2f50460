// Mixture of experts (Shazeer et al. 2017): rows are sorted by expert, so that each expert's product is one
// segment.
#include <string>

#include "core/nn/layer_util.h"
#include "core/nn/layers.h"
#include "core/ops/ops.h"

namespace tenon::nn {
namespace {

// The k experts of largest probability, weighted by it.
Routing softmax_top_k(Tensor logits, int64_t k, bool normalize) {
  const Ranked top = top_k(tenon::softmax(logits), k);
  return {top.indices, normalize ? top.values / sum(top.values, {-1}, true) : top.values};
}

// bias: [E, O], order: slots by expert, expert_of_slot: [T*K] -> [T*K, O]
Tensor bias_rows(Tensor bias, Tensor expert_of_slot, Tensor order) {
  return gather(bias, gather(expert_of_slot, order));
}

}  // namespace

Layer moe(MoeOptions o) {
  return {"moe", [=](Builder& b, std::span<const TensorType> in) -> ModulePtr {
            if (!expect_floating(b, "moe", in, 2, "[.., C]")) return nullptr;
            const int64_t width = in[0].shape.back(), hidden = o.hidden > 0 ? o.hidden : 4 * width;
            if (o.shared_experts < 0 || o.shared_experts > 1024)
              return b.fail("moe", "shared_experts is " + std::to_string(o.shared_experts) + "; it must be at least 0");
            if (o.experts < 1 || o.top_k < 1 || o.top_k > o.experts)
              return b.fail("moe", "top_k = " + std::to_string(o.top_k) +
                                       " must be between 1 and experts = " + std::to_string(o.experts));
            const auto act = activation(o.activation);
            if (!act.is_ok()) return b.fail("moe", act.status().message());
            auto m = std::make_shared<Module>(b.path(), "moe");
            const Initializer init = o.init ? o.init : init::torch_default();
            const Initializer out_init = o.output_init ? o.output_init : init;
            const TensorType hidden_type{in[0].dtype, {1, hidden}};
            Builder act_builder = b.child("activation");
            const ModulePtr act_module =
                m->add_child(act->make(act_builder, std::span<const TensorType>(&hidden_type, 1)));
            Builder router_builder = b.child("router");
            const ModulePtr router =
                m->add_child(linear(o.experts, {.bias = false, .init = o.router_init ? o.router_init : o.init}).make(router_builder, in));
            if (!router || !act_module) return nullptr;
            const ParameterPtr up = m->own(
                b.parameter("up.weight", {o.experts, width, hidden}, init, Kind::weight, {width, hidden}));
            const ParameterPtr down = m->own(b.parameter("down.weight", {o.experts, hidden, width}, out_init,
                                                         Kind::weight, {hidden, width}));
            ParameterPtr up_bias, down_bias;
            if (o.bias) {
              up_bias = m->own(b.parameter("up.bias", {o.experts, hidden}, init::constant(0), Kind::bias));
              down_bias = m->own(b.parameter("down.bias", {o.experts, width}, init::constant(0), Kind::bias));
            }
            // S shared experts side by side are one network of S times the width.
            ModulePtr shared_up, shared_down;
            if (o.shared_experts > 0) {
              Builder up_builder = b.child("shared_up"), down_builder = b.child("shared_down");
              const TensorType inner{in[0].dtype, {1, o.shared_experts * hidden}};
              shared_up = m->add_child(linear(o.shared_experts * hidden, {.bias = o.bias, .init = o.init}).make(up_builder, in));
              shared_down = m->add_child(linear(width, {.bias = o.bias, .init = o.output_init ? o.output_init : o.init})
                                             .make(down_builder, std::span<const TensorType>(&inner, 1)));
              if (!shared_up || !shared_down) return nullptr;
            }
            const auto own_router = std::make_shared<MoeRouter>();
            Module* self = m.get();
            m->set_forward([=, k = o.top_k, experts = o.experts, normalize = o.normalize](
                               Context& c, std::span<const Tensor> in_x) -> Tensor {
              if (!in_x[0].valid()) return {};
              const Tensor x = tenon::reshape(in_x[0], {-1, width});  // [T, C]
              const int64_t tokens = x.dim(0), slots = tokens * k;
              const Tensor logits = (*router)(c, x);  // [T, E]
              const Routing route =
                  own_router->route ? own_router->route(c, logits, k) : softmax_top_k(logits, k, normalize);
              if (!route.indices.valid() || !route.weights.valid()) return {};
              c.routings.push_back({route, self, logits, bincount(route.indices, experts)});
              const auto [order, offsets] = sort_by_expert(route.indices, experts);
              // Slot t * K + j belongs to token t.
              const Tensor token_of_slot =
                  tenon::reshape(broadcast_to(unsqueeze(arange(c.graph(), tokens), 1), {tokens, k}), {slots});
              const Tensor expert_of_slot = tenon::reshape(route.indices, {slots});
              const Tensor token = gather(token_of_slot, order);  // [T*K], of each sorted row
              Tensor h = c.product(
                  grouped_matmul(c.operand(gather(x, token)), c.operand(c.parameter(*up)), offsets));
              if (up_bias) h = h + bias_rows(c.parameter(*up_bias), expert_of_slot, order);
              Tensor y = c.product(
                  grouped_matmul(c.operand((*act_module)(c, h)), c.operand(c.parameter(*down)), offsets));
              if (down_bias) y = y + bias_rows(c.parameter(*down_bias), expert_of_slot, order);
              const Tensor weight = gather(tenon::reshape(route.weights, {slots}), order);
              Tensor out = segment_sum(y * unsqueeze(weight, 1), token, tokens);
              if (shared_up) out = out + (*shared_down)(c, (*act_module)(c, (*shared_up)(c, x)));
              return tenon::reshape(out, in_x[0].shape());
            });
            if (o.built) o.built(*m, own_router);
            return m;
          }};
}

}  // namespace tenon::nn
