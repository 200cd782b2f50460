// Pre-norm transformer blocks, GPT, and multi-layer perceptrons: composed of the other layers.
#include <cmath>
#include <string>

#include "core/nn/layer_util.h"
#include "core/nn/layers.h"
#include "core/ops/ops.h"

namespace tenon::nn {
namespace {

Layer named(std::string name, Layer layer) {
  layer.name = std::move(name);
  return layer;
}

std::string not_a_rate(double rate) {
  return "dropout is " + std::to_string(rate) + "; it must be at least 0 and less than 1";
}

bool is_rate(double rate) { return rate >= 0 && rate < 1; }

}  // namespace

Layer transformer_block(TransformerOptions o) {
  return {
      "transformer_block", [=](Builder& b, std::span<const TensorType> in) -> ModulePtr {
        if (!expect_floating(b, "transformer_block", in, 3, "[B, T, C]")) return nullptr;
        if (!is_rate(o.dropout)) return b.fail("transformer_block", not_a_rate(o.dropout));
        const int64_t width = in[0].shape.back();
        const double hidden = std::round(o.mlp_ratio * static_cast<double>(width));
        if (!(hidden >= 1 && hidden < 1e9))
          return b.fail("transformer_block",
                        "mlp_ratio is " + std::to_string(o.mlp_ratio) + "; it must be positive");
        const auto act = activation(o.activation);
        if (!act.is_ok()) return b.fail("transformer_block", act.status().message());

        auto m = std::make_shared<Module>(b.path(), "transformer_block");
        const auto part = [&](const std::string& name, const Layer& layer) {
          Builder inner = b.child(name);
          return m->add_child(layer.make(inner, in));
        };
        const ModulePtr norm1 = part("norm1", layer_norm(1e-5, o.bias));
        const ModulePtr mix = part("attention", attention({.heads = o.heads,
                                                           .causal = o.causal,
                                                           .dropout = o.dropout,
                                                           .bias = o.bias,
                                                           .init = o.init,
                                                           .bias_init = o.bias_init,
                                                           .output_init = o.output_init}));
        const ModulePtr norm2 = part("norm2", layer_norm(1e-5, o.bias));
        const ModulePtr feed =
            o.moe ? part("moe", moe(*o.moe))
                  : part("mlp",
                         sequential(
                             {named("fc", linear(static_cast<int64_t>(hidden),
                                                 {.bias = o.bias, .init = o.init, .bias_init = o.bias_init})),
                              named("activation", *act),
                              named("proj", linear(width, {.bias = o.bias,
                                                           .init = o.output_init,
                                                           .bias_init = o.bias_init}))}));
        if (!norm1 || !mix || !norm2 || !feed) return nullptr;
        m->set_forward([=, rate = o.dropout](Context& c, std::span<const Tensor> x) {
          const Tensor y = x[0] + (*mix)(c, (*norm1)(c, x[0]));
          return y + apply_dropout(c, (*feed)(c, (*norm2)(c, y)), rate);
        });
        return m;
      }};
}

Layer gpt(GptOptions o) {
  return {"gpt", [=](Builder& b, std::span<const TensorType> in) -> ModulePtr {
            if (o.layers < 1 || o.width < 1 || o.vocab < 1 || o.context < 1)
              return b.fail("gpt", "layers, width, vocab and context must be positive");
            if (!is_rate(o.dropout)) return b.fail("gpt", not_a_rate(o.dropout));
            const Initializer init = init::normal(0, 0.02);
            const Initializer output_init =
                init::normal(0, 0.02 / std::sqrt(2.0 * static_cast<double>(o.layers)));
            TransformerOptions block{.heads = o.heads,
                                     .mlp_ratio = o.mlp_ratio,
                                     .causal = true,
                                     .dropout = o.dropout,
                                     .bias = o.bias,
                                     .moe = o.moe,
                                     .init = init,
                                     .bias_init = init::constant(0),
                                     .output_init = output_init};
            if (block.moe && !block.moe->init) block.moe->init = init;
            if (block.moe && !block.moe->output_init) block.moe->output_init = output_init;
            std::vector<Layer> layers{named("tokens", embedding(o.vocab, o.width, init)),
                                      named("positions", position_embedding(o.context, init))};
            if (o.dropout > 0) layers.push_back(named("dropout", dropout(o.dropout)));
            layers.push_back(named("blocks", repeat(o.layers, {o.recompute ? recomputed(transformer_block(block)) : transformer_block(block)})));
            layers.push_back(named("norm", layer_norm(1e-5, o.bias)));
            LinearOptions head{.bias = false, .init = init};
            if (o.tied) head.tied_to = b.path_of("tokens.weight");
            layers.push_back(named("head", linear(o.vocab, head)));
            return sequential(std::move(layers)).make(b, in);
          }};
}

Layer mlp(MlpOptions o) {
  return {"mlp", [=](Builder& b, std::span<const TensorType> in) -> ModulePtr {
            if (!expect_inputs(b, "mlp", in, 1)) return nullptr;
            const auto act = activation(o.activation);
            if (!act.is_ok()) return b.fail("mlp", act.status().message());
            if (!is_rate(o.dropout)) return b.fail("mlp", not_a_rate(o.dropout));
            if (o.hidden.empty() && o.output == 0)
              return b.fail("mlp", "has neither hidden widths nor an output");
            std::vector<Layer> layers;
            if (in[0].shape.rank() != 2) layers.push_back(named("flatten", flatten()));
            const LinearOptions options{.bias = o.bias, .init = o.init};
            size_t i = 0;
            for (int64_t width : o.hidden) {
              const std::string n = std::to_string(i++);
              layers.push_back(named("linear" + n, linear(width, options)));
              layers.push_back(named(act->type + n, *act));
              if (o.dropout > 0) layers.push_back(named("dropout" + n, dropout(o.dropout)));
            }
            if (o.output != 0)
              layers.push_back(named("linear" + std::to_string(i), linear(o.output, options)));
            return sequential(std::move(layers)).make(b, in);
          }};
}

}  // namespace tenon::nn
