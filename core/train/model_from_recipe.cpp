#include "core/train/model_from_recipe.h"

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <optional>
#include <regex>

#include "core/base/nearest.h"

namespace tenon {
namespace {

template <class Repeated>
std::vector<int64_t> ints(const Repeated& v) {
  return {v.begin(), v.end()};
}

// A name, maybe with numbers: "normal(std=0.5)".
Result<nn::Initializer> initializer(const std::string& text) {
  if (text.empty() || text == "torch_default") return nn::Initializer();
  static const std::regex form("([^(]*)(?:\\(([^)]*)\\))?"), pair("\\s*([a-z]+)\\s*=\\s*([-+.0-9e]+)\\s*,?");
  std::smatch parts;
  if (!std::regex_match(text, parts, form)) return invalid("the initialiser '" + text + "' is not of the form name(option=number, ..)");
  const std::string name = parts[1], numbers = parts[2];
  nn::init::Options o;
  const std::pair<std::string_view, std::optional<double>*> known[] = {
      {"value", &o.value}, {"low", &o.low}, {"high", &o.high}, {"mean", &o.mean}, {"std", &o.std}, {"gain", &o.gain}, {"a", &o.a}};
  size_t read = 0;
  for (std::sregex_iterator it(numbers.begin(), numbers.end(), pair), end; it != end && static_cast<size_t>(it->position()) == read; ++it) {
    const auto option = std::find_if(std::begin(known), std::end(known), [&](const auto& k) { return k.first == (*it)[1].str(); });
    const std::string number = (*it)[2];
    char* rest = nullptr;
    const double value = std::strtod(number.c_str(), &rest);
    if (option == std::end(known) || *rest != 0) break;
    *option->second = value;
    read += static_cast<size_t>(it->length());
  }
  if (read != numbers.size()) return invalid("the initialiser '" + text + "': '" + numbers.substr(read) + "' is no option=number");
  return nn::init::by_name(name, o);
}

// A size given in the recipe, or else by the data.
Result<int64_t> size_or(bool given, int64_t value, int64_t from_data, std::string_view field) {
  const int64_t size = given ? value : from_data;
  if (size > 0) return size;
  if (given) return invalid(std::string(field) + " is " + std::to_string(value) + "; it must be positive");
  return invalid(std::string(field) + " is missing, and the data does not say what it should be");
}

bool is_name(std::string_view s) {
  return !s.empty() && std::all_of(s.begin(), s.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
  });
}

class Converter {
 public:
  Converter(const Recipe& recipe, const ModelFacts& facts, std::shared_ptr<std::vector<RouterUse>> routers)
      : recipe_(recipe), facts_(facts), routers_(std::move(routers)) {}

  using Layers = google::protobuf::RepeatedPtrField<proto::Layer>;

  Result<std::vector<nn::Layer>> chain(const Layers& layers, const std::string& path) const {
    std::vector<nn::Layer> out;
    for (int i = 0; i < layers.size(); ++i) {
      const std::string at = path + "[" + std::to_string(i) + "]";
      auto layer = convert(layers[i], at);
      if (!layer.is_ok()) return std::move(layer).status();
      out.push_back(std::move(layer).value());
    }
    return out;
  }

  Result<nn::Layer> convert(const proto::Layer& l, const std::string& path) const {
    auto layer = by_kind(l, path);
    if (!layer.is_ok()) {
      Status s = std::move(layer).status();
      // An inner layer's error has its place already.
      return placed_ ? s : (placed_ = true, std::move(s).at(recipe_.where(path)));
    }
    if (l.has_name()) {
      if (!is_name(l.name()))
        return invalid("the layer's name '" + l.name() + "' must consist of letters, digits, '_' and '-'")
            .at(recipe_.where(path));
      layer->name = l.name();
    }
    return l.recompute() ? nn::recomputed(std::move(layer).value()) : std::move(layer);
  }

 private:
  Result<nn::Layer> by_kind(const proto::Layer& l, const std::string& path) const {
    switch (l.kind_case()) {
      case proto::Layer::kLinear:
        return linear(l.linear());
      case proto::Layer::kConv1D:
        return conv(l.conv1d(), 1);
      case proto::Layer::kConv2D:
        return conv(l.conv2d(), 2);
      case proto::Layer::kMaxPool: {
        const auto& p = l.max_pool();
        return nn::max_pool(ints(p.kernel()), ints(p.stride()), ints(p.padding()));
      }
      case proto::Layer::kAvgPool: {
        const auto& p = l.avg_pool();
        return nn::avg_pool(ints(p.kernel()), ints(p.stride()), ints(p.padding()));
      }
      case proto::Layer::kAdaptiveAvgPool:
        return nn::adaptive_avg_pool(ints(l.adaptive_avg_pool().size()));
      case proto::Layer::kGlobalAvgPool:
        return nn::global_avg_pool();
      case proto::Layer::kBatchNorm: {
        const auto& n = l.batch_norm();
        return nn::batch_norm(n.momentum(), n.eps(), n.affine());
      }
      case proto::Layer::kLayerNorm:
        return nn::layer_norm(l.layer_norm().eps(), l.layer_norm().bias());
      case proto::Layer::kGroupNorm:
        return nn::group_norm(l.group_norm().groups(), l.group_norm().eps());
      case proto::Layer::kRmsNorm:
        return nn::rms_norm(l.rms_norm().eps());
      case proto::Layer::kEmbedding:
        return embedding(l.embedding());
      case proto::Layer::kPositionEmbedding: {
        const auto& p = l.position_embedding();
        TN_ASSIGN(const int64_t length,
                  size_or(p.has_length(), p.length(), facts_.context, "position_embedding: length"));
        return nn::position_embedding(length);
      }
      case proto::Layer::kDropout:
        return nn::dropout(l.dropout().rate());
      case proto::Layer::kRelu:
        return nn::relu();
      case proto::Layer::kGelu:
        return nn::gelu(l.gelu().approximate());
      case proto::Layer::kSilu:
        return nn::silu();
      case proto::Layer::kTanh:
        return nn::tanh();
      case proto::Layer::kSigmoid:
        return nn::sigmoid();
      case proto::Layer::kLeakyRelu:
        return nn::leaky_relu(l.leaky_relu().slope());
      case proto::Layer::kSoftplus:
        return nn::softplus();
      case proto::Layer::kSoftmax:
        return nn::softmax(static_cast<int>(l.softmax().axis()));
      case proto::Layer::kLogSoftmax:
        return nn::log_softmax(static_cast<int>(l.log_softmax().axis()));
      case proto::Layer::kFlatten:
        return nn::flatten(static_cast<int>(l.flatten().start()));
      case proto::Layer::kReshape:
        return nn::reshape(ints(l.reshape().shape()));
      case proto::Layer::kMean:
        return nn::mean(ints(l.mean().axis()));
      case proto::Layer::kChunk:
        return nn::chunk(l.chunk().index(), l.chunk().of());
      case proto::Layer::kStopGradient:
        return nn::stop_gradient();
      case proto::Layer::kResidual: {
        TN_ASSIGN(auto layers, chain(l.residual().layer(), path + ".residual.layer"));
        TN_ASSIGN(auto shortcut, chain(l.residual().shortcut(), path + ".residual.shortcut"));
        return nn::residual(std::move(layers), std::move(shortcut));
      }
      case proto::Layer::kAttention: {
        const auto& a = l.attention();
        return nn::attention(
            {.heads = a.heads(), .causal = a.causal(), .dropout = a.dropout(), .bias = a.bias()});
      }
      case proto::Layer::kTransformerBlock: {
        const auto& t = l.transformer_block();
        nn::TransformerOptions o{.heads = t.heads(),
                                 .mlp_ratio = t.mlp_ratio(),
                                 .causal = t.causal(),
                                 .dropout = t.dropout(),
                                 .bias = t.bias(),
                                 .activation = t.activation()};
        if (t.has_moe()) {
          TN_ASSIGN(o.moe, moe(t.moe()));
        }
        return nn::transformer_block(std::move(o));
      }
      case proto::Layer::kMoe: {
        TN_ASSIGN(auto o, moe(l.moe()));
        return nn::moe(std::move(o));
      }
      case proto::Layer::kMlp:
        return mlp(l.mlp());
      case proto::Layer::kGpt:
        return gpt(l.gpt());
      case proto::Layer::kRepeat: {
        TN_ASSIGN(auto layers, chain(l.repeat().layer(), path + ".repeat.layer"));
        return nn::repeat(l.repeat().times(), std::move(layers));
      }
      case proto::Layer::KIND_NOT_SET:
        break;
    }
    return invalid("the layer is empty; write its kind, as in layer { linear { units: 10 } }");
  }

  Result<nn::Layer> linear(const proto::Linear& l) const {
    TN_ASSIGN(const int64_t units, size_or(l.has_units(), l.units(), facts_.outputs, "linear: units"));
    TN_ASSIGN(auto init, initializer(l.init()));
    return nn::linear(units, {.bias = l.bias(), .init = std::move(init)});
  }

  Result<nn::Layer> conv(const proto::Conv& l, size_t axes) const {
    if (l.kernel().empty()) return invalid("conv: kernel is missing");
    TN_ASSIGN(const int64_t channels, size_or(l.has_channels(), l.channels(), 0, "conv: channels"));
    TN_ASSIGN(auto init, initializer(l.init()));
    nn::ConvOptions o{.stride = ints(l.stride()),
                      .padding = ints(l.padding()),
                      .dilation = ints(l.dilation()),
                      .groups = l.groups(),
                      .bias = l.bias(),
                      .init = std::move(init)};
    if (axes == 2) return nn::conv2d(channels, ints(l.kernel()), std::move(o));
    if (l.kernel_size() != 1) return invalid("conv1d: kernel must be one number");
    return nn::conv1d(channels, l.kernel(0), std::move(o));
  }

  Result<nn::Layer> embedding(const proto::Embedding& l) const {
    TN_ASSIGN(const int64_t vocab, size_or(l.has_vocab(), l.vocab(), facts_.vocab, "embedding: vocab"));
    TN_ASSIGN(const int64_t dim, size_or(l.has_dim(), l.dim(), 0, "embedding: dim"));
    TN_ASSIGN(auto init, initializer(l.init()));
    return nn::embedding(vocab, dim, std::move(init));
  }

  Result<nn::MoeOptions> moe(const proto::Moe& m) const {
    nn::MoeOptions o{.experts = m.experts(),
                     .top_k = m.top_k(),
                     .hidden = m.hidden(),
                     .activation = m.activation(),
                     .bias = m.bias(),
                     .normalize = m.normalize(),
                     .shared_experts = m.shared_experts()};
    TN_ASSIGN(o.init, initializer(m.init()));
    TN_ASSIGN(o.output_init, initializer(m.output_init()));
    TN_ASSIGN(o.router_init, initializer(m.router_init()));
    if (m.has_router())
      o.built = [routers = routers_, router = m.router(), k = m.top_k()](const nn::Module& layer, const std::shared_ptr<nn::MoeRouter>& slot) {
        routers->push_back({layer.name(), router, k, slot});
      };
    return o;
  }

  Result<nn::Layer> mlp(const proto::Mlp& m) const {
    TN_ASSIGN(const int64_t output, size_or(m.has_output(), m.output(), facts_.outputs, "mlp: output"));
    TN_ASSIGN(auto init, initializer(m.init()));
    return nn::mlp({.hidden = ints(m.hidden()),
                    .output = output,
                    .activation = m.activation(),
                    .dropout = m.dropout(),
                    .bias = m.bias(),
                    .init = std::move(init)});
  }

  Result<nn::Layer> gpt(const proto::Gpt& g) const {
    TN_ASSIGN(const int64_t vocab, size_or(g.has_vocab(), g.vocab(), facts_.vocab, "gpt: vocab"));
    TN_ASSIGN(const int64_t context, size_or(g.has_context(), g.context(), facts_.context, "gpt: context"));
    nn::GptOptions o{.layers = g.layers(),
                     .heads = g.heads(),
                     .width = g.width(),
                     .vocab = vocab,
                     .context = context,
                     .mlp_ratio = g.mlp_ratio(),
                     .dropout = g.dropout(),
                     .bias = g.bias(),
                     .tied = g.tied(),
                     .recompute = g.recompute()};
    if (g.has_moe()) {
      TN_ASSIGN(o.moe, moe(g.moe()));
    }
    return nn::gpt(std::move(o));
  }

  const Recipe& recipe_;
  const ModelFacts& facts_;
  std::shared_ptr<std::vector<RouterUse>> routers_;
  mutable bool placed_ = false;
};

Result<nn::Join> join_of(const std::string& name) {
  if (name == "add") return nn::Join::add;
  if (name == "mul") return nn::Join::mul;
  if (name == "concat") return nn::Join::concat;
  return invalid("join is '" + name + "'; it must be add, mul or concat");
}

Result<nn::Layer> graph_of(const Converter& convert, const Recipe& recipe, const proto::Model& model,
                           const std::string& path) {
  std::vector<nn::Node> nodes;
  std::vector<std::string> names;
  for (int i = 0; i < model.node_size(); ++i) {
    const proto::Node& n = model.node(i);
    const std::string at = path + ".node[" + std::to_string(i) + "]";
    if (!is_name(n.name()))
      return invalid("a node's name must consist of letters, digits, '_' and '-', got '" + n.name() + "'")
          .at(recipe.where(at));
    auto join = join_of(n.join());
    if (!join.is_ok()) return std::move(join).status().at(recipe.where(at));
    TN_ASSIGN(auto layers, convert.chain(n.layer(), at + ".layer"));
    nodes.push_back({.name = n.name(),
                     .layers = std::move(layers),
                     .inputs = {n.input().begin(), n.input().end()},
                     .join = *join,
                     .axis = static_cast<int>(n.axis())});
    names.push_back(n.name());
  }
  for (const std::string& output : model.output())
    if (std::find(names.begin(), names.end(), output) == names.end())
      return not_found("the output '" + output + "' is not a node" + did_you_mean(output, names))
          .at(recipe.where(path));
  std::vector<std::string> inputs(model.input().begin(), model.input().end());
  if (inputs.empty()) inputs.push_back("x");
  return nn::graph(std::move(inputs), std::move(nodes), model.output_size() > 0 ? model.output(0) : "");
}

}  // namespace

Result<RecipeModel> model_from_recipe(Runtime& runtime, const Recipe& recipe, const proto::Model& model,
                                      const std::string& path, const ModelFacts& facts,
                                      nn::BuildOptions options) {
  if (model.layer().empty() == model.node().empty())
    return invalid("a model has either layers or nodes").at(recipe.where(path));
  const auto routers = std::make_shared<std::vector<RouterUse>>();
  const Converter convert(recipe, facts, routers);
  nn::Layer root;
  if (model.node().empty()) {
    TN_ASSIGN(auto layers, convert.chain(model.layer(), path + ".layer"));
    root = nn::sequential(std::move(layers));
  } else {
    TN_ASSIGN(root, graph_of(convert, recipe, model, path));
  }
  std::vector<TensorType> inputs = facts.inputs;
  for (TensorType& t : inputs)
    if (is_floating(t.dtype)) t.dtype = options.dtype;
  const auto shares = options.share;
  auto built = nn::build(runtime, root, std::move(inputs), std::move(options));
  if (!built.is_ok()) return std::move(built).status().at(recipe.where(path));
  RecipeModel out{std::move(built).value(), *routers};
  if (model.frozen() && !shares) out.model.freeze();
  for (const nn::ParameterPtr& p : out.model.parameters)
    if (model.frozen() && shares && !shares(p->name)) p->trainable = false;  // what is shared is the other model's to train
  return out;
}

}  // namespace tenon
