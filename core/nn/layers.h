// The layers. Each function describes one; nn::build makes it for given input shapes. Defaults are PyTorch's.
//
//   auto model = nn::build(runtime, nn::sequential({nn::linear(512), nn::relu(), nn::linear(10)}),
//                          {{DType::f32, {1, 784}}});
#pragma once

#include <string>
#include <vector>

#include "core/nn/init.h"
#include "core/nn/module.h"

namespace tenon::nn {

// --- linear and convolution ---

struct LinearOptions {
  bool bias = true;
  Initializer init = {};       // of the weight; default torch_default
  Initializer bias_init = {};  // default U(-1/sqrt(in), 1/sqrt(in))
  std::string tied_to = {};    // full name of a parameter [units, I] built before, used as the weight
};
// x: [.., I] -> [.., units]; weight [units, I], bias [units].
Layer linear(int64_t units, LinearOptions options = {});

struct ConvOptions {
  std::vector<int64_t> stride = {}, padding = {},
                       dilation = {};  // one number for all axes or one each; default 1, 0, 1
  int64_t groups = 1;
  bool bias = true;
  Initializer init = {};
};
// x: [N, C, L] -> [N, channels, L']; weight [channels, C/groups, k].
Layer conv1d(int64_t channels, int64_t kernel, ConvOptions options = {});
// x: [N, C, H, W] -> [N, channels, H', W']; kernel: one or two numbers.
Layer conv2d(int64_t channels, std::vector<int64_t> kernel, ConvOptions options = {});

// --- normalisation ---

// x: [N, C, ..]; running statistics are states and move by `momentum` a training step.
Layer batch_norm(double momentum = 0.1, double eps = 1e-5, bool affine = true);
Layer layer_norm(double eps = 1e-5, bool bias = true);  // over the last axis
Layer rms_norm(double eps = 1e-6);                      // over the last axis
Layer group_norm(int64_t groups, double eps = 1e-5);    // x: [N, C, ..]

// --- embeddings and attention ---

// integers [..] -> [.., dim]; weight [vocab, dim], by default N(0, 1).
Layer embedding(int64_t vocab, int64_t dim, Initializer init = {});
// x: [B, T, C] -> x + weight[:T]; weight [length, C], by default N(0, 0.02).
Layer position_embedding(int64_t length, Initializer init = {});

struct AttentionOptions {
  int64_t heads = 1;
  bool causal = false;
  double dropout = 0;  // of attention weights and of the output
  bool bias = true;
  Initializer init = {}, bias_init = {}, output_init = {};  // default: those of linear
};
// Multi-head self-attention. x: [B, T, C] -> [B, T, C]; qkv.weight [3C, C], proj.weight [C, C].
Layer attention(AttentionOptions options = {});

// What replaces the default router (softmax, top-k) of one mixture-of-experts layer. logits: [T, E].
struct MoeRouter {
  std::function<Routing(Context&, Tensor logits, int64_t k)> route;
};
struct MoeOptions {
  int64_t experts = 8, top_k = 2;
  int64_t hidden = 0;  // default: 4 C
  std::string activation = "gelu";
  bool bias = false;
  bool normalize = false;  // weights of the chosen experts are made to sum to 1
  Initializer init = {}, output_init = {}, router_init = {};  // of up, down and router; the last two: as init
  int64_t shared_experts = 0;  // that see every token besides
  // Told each module that is made, and where to put a router of its own.
  std::function<void(const Module&, const std::shared_ptr<MoeRouter>&)> built = {};
};
// Mixture of experts: each token goes to top_k of `experts` two-layer networks. x: [.., C] -> [.., C];
// router.weight [E, C], up.weight [E, C, hidden], down.weight [E, hidden, C].
Layer moe(MoeOptions options = {});

struct TransformerOptions {
  int64_t heads = 1;
  double mlp_ratio = 4;
  bool causal = false;
  double dropout = 0;
  bool bias = true;
  std::string activation = "gelu";
  std::optional<MoeOptions> moe = {};  // instead of the mlp
  Initializer init = {}, bias_init = {}, output_init = {};
};
// Pre-norm: x + attention(norm(x)), then x + mlp(norm(x)). x: [B, T, C].
Layer transformer_block(TransformerOptions options = {});

struct GptOptions {
  int64_t layers = 4, heads = 4, width = 128, vocab = 0, context = 0;
  double mlp_ratio = 4, dropout = 0;
  bool bias = true, tied = false;
  bool recompute = false;  // each block, as by recomputed()
  std::optional<MoeOptions> moe = {};
};
// tokens [B, T] -> logits [B, T, vocab]. GPT-2's shape and initial values: N(0, 0.02), projections into the
// residual stream N(0, 0.02 / sqrt(2 layers)).
Layer gpt(GptOptions options);

struct MlpOptions {
  std::vector<int64_t> hidden = {};
  int64_t output = 0;  // 0: no last layer
  std::string activation = "relu";
  double dropout = 0;
  bool bias = true;
  Initializer init = {};
};
// x is flattened to [B, I]; linear, activation and dropout for each width, then linear to `output`.
Layer mlp(MlpOptions options);

// --- without parameters ---

// Any function of one tensor.
Layer function(std::string type, std::function<Tensor(Context&, Tensor)> f);
// "relu", "gelu", "gelu_tanh", "silu", "tanh", "sigmoid", "softplus", "leaky_relu", "softmax", "log_softmax",
// "identity".
Result<Layer> activation(std::string_view name);
Layer relu();
Layer gelu(bool approximate = false);
Layer silu();
Layer tanh();
Layer sigmoid();
Layer softplus();
Layer leaky_relu(double slope = 0.01);
Layer softmax(int axis = -1);
Layer log_softmax(int axis = -1);
Layer dropout(double rate = 0.5);
// Pooling of [N, C, H, W] or [N, C, L]; sizes: one number for all axes or one each; stride defaults to the
// kernel.
Layer max_pool(std::vector<int64_t> kernel, std::vector<int64_t> stride = {},
               std::vector<int64_t> padding = {});
Layer avg_pool(std::vector<int64_t> kernel, std::vector<int64_t> stride = {},
               std::vector<int64_t> padding = {});
Layer adaptive_avg_pool(std::vector<int64_t> size);
Layer global_avg_pool();  // [N, C, ..] -> [N, C]
Layer flatten(int start = 1);
Layer reshape(std::vector<int64_t> sample_shape);  // of each sample; one -1 allowed
Layer mean(std::vector<int64_t> axes);             // averaged away
Layer chunk(int64_t index, int64_t of);  // one of `of` equal parts of the batch, as several streams make when joined
Layer stop_gradient();

// --- containers ---

Layer sequential(std::vector<Layer> layers);
// x -> layers(x) + shortcut(x); an empty shortcut is the identity.
Layer residual(std::vector<Layer> layers, std::vector<Layer> shortcut = {});
Layer repeat(int64_t times, std::vector<Layer> layers);
// The same layer with the same parameters, which in training computes its inner values once more for its gradient instead
// of keeping them: less memory, one more forward pass, the same numbers.
Layer recomputed(Layer layer);

enum class Join { add, mul, concat };
struct Node {
  std::string name;
  std::vector<Layer> layers;  // applied one after another to the joined inputs
  std::vector<std::string> inputs =
      {};  // nodes before this one or inputs of the graph; default: the node before
  Join join = Join::add;
  int axis = 1;  // of concat
};
// A model with several inputs or branches. Gives the node `output`, by default the last; the others are found
// by Context::output_of.
Layer graph(std::vector<std::string> inputs, std::vector<Node> nodes, std::string output = {});

}  // namespace tenon::nn
