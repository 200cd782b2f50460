// Layers made of layers: sequences, residual connections and named graphs.
#include <map>
#include <string>

#include "core/base/nearest.h"
#include "core/nn/layer_util.h"
#include "core/nn/layers.h"
#include "core/ops/ops.h"

namespace tenon::nn {
namespace {

// Builds the layers one after another as children of `parent`; nullopt after an error. `type` becomes the
// last output's.
std::optional<std::vector<ModulePtr>> build_chain(const Builder& b, Module& parent,
                                                  const std::vector<Layer>& layers, TensorType& type) {
  std::vector<ModulePtr> chain;
  for (size_t i = 0; i < layers.size(); ++i) {
    const Layer& layer = layers[i];
    Builder inner = b.child(layer.name.empty() ? layer.type + std::to_string(i) : layer.name);
    const ModulePtr m = layer.make(inner, std::span<const TensorType>(&type, 1));
    const auto out = m ? inner.infer(*m, std::span<const TensorType>(&type, 1)) : std::nullopt;
    if (!out) return std::nullopt;
    type = *out;
    chain.push_back(parent.add_child(m));
  }
  return chain;
}

Tensor apply_chain(Context& c, const std::vector<ModulePtr>& chain, Tensor x) {
  for (const ModulePtr& m : chain) x = (*m)(c, x);
  return x;
}

}  // namespace

Layer sequential(std::vector<Layer> layers) {
  return {"sequential", [=](Builder& b, std::span<const TensorType> in) -> ModulePtr {
            if (!expect_inputs(b, "sequential", in, 1)) return nullptr;
            auto m = std::make_shared<Module>(b.path(), "sequential");
            TensorType type = in[0];
            const auto chain = build_chain(b, *m, layers, type);
            if (!chain) return nullptr;
            m->set_forward([chain = *chain](Context& c, std::span<const Tensor> x) {
              return apply_chain(c, chain, x[0]);
            });
            return m;
          }};
}

Layer residual(std::vector<Layer> layers, std::vector<Layer> shortcut) {
  return {"residual", [=](Builder& b, std::span<const TensorType> in) -> ModulePtr {
            if (!expect_inputs(b, "residual", in, 1)) return nullptr;
            auto m = std::make_shared<Module>(b.path(), "residual");
            TensorType main_type = in[0], short_type = in[0];
            const auto main = build_chain(b, *m, layers, main_type);
            if (!main) return nullptr;
            const auto side = build_chain(b.child("shortcut"), *m, shortcut, short_type);
            if (!side) return nullptr;
            if (main_type != short_type)
              return b.fail("residual", "the layers give " + to_string(main_type) + " and the shortcut " +
                                            to_string(short_type) + "; they must be equal");
            m->set_forward([main = *main, side = *side](Context& c, std::span<const Tensor> x) {
              return apply_chain(c, main, x[0]) + apply_chain(c, side, x[0]);
            });
            return m;
          }};
}

Layer repeat(int64_t times, std::vector<Layer> layers) {
  return {"repeat", [=](Builder& b, std::span<const TensorType> in) -> ModulePtr {
            if (times < 1 || times > 10000)
              return b.fail("repeat",
                            "times is " + std::to_string(times) + "; it must be between 1 and 10000");
            std::vector<Layer> all;
            for (int64_t i = 0; i < times; ++i) {
              Layer one = layers.size() == 1 ? layers[0] : sequential(layers);
              one.name = std::to_string(i);
              all.push_back(std::move(one));
            }
            return sequential(std::move(all)).make(b, in);
          }};
}

Layer recomputed(Layer layer) {
  layer.make = [make = std::move(layer.make)](Builder& b, std::span<const TensorType> in) -> ModulePtr {
    const ModulePtr m = make(b, in);
    if (m) m->recomputes = true;
    return m;
  };
  return layer;
}

namespace {

Tensor join_all(const std::vector<Tensor>& in, Join join, int axis) {
  if (in.size() == 1) return in[0];
  if (join == Join::concat) return concat(in, axis);
  Tensor y = in[0];
  for (size_t i = 1; i < in.size(); ++i) y = join == Join::add ? y + in[i] : y * in[i];
  return y;
}

// The node's layers after its join, as one module, so that shapes are inferred by the same graph as in a
// step.
ModulePtr make_node(Builder& b, const Node& node, std::span<const TensorType> in) {
  auto m = std::make_shared<Module>(b.path(), "node");
  m->set_forward([join = node.join, axis = node.axis](Context&, std::span<const Tensor> x) {
    return join_all({x.begin(), x.end()}, join, axis);
  });
  const auto joined = b.infer(*m, in);
  if (!joined) return nullptr;
  TensorType type = *joined;
  const auto chain = build_chain(b, *m, node.layers, type);
  if (!chain) return nullptr;
  m->set_forward([join = node.join, axis = node.axis, chain = *chain](Context& c, std::span<const Tensor> x) {
    return apply_chain(c, chain, join_all({x.begin(), x.end()}, join, axis));
  });
  return m;
}

}  // namespace

Layer graph(std::vector<std::string> inputs, std::vector<Node> nodes, std::string output) {
  return {"graph", [=](Builder& b, std::span<const TensorType> in) -> ModulePtr {
            if (!expect_inputs(b, "graph", in, inputs.size())) return nullptr;
            if (nodes.empty()) return b.fail("graph", "has no nodes");
            auto m = std::make_shared<Module>(b.path(), "graph");
            std::map<std::string, size_t> position;
            std::vector<std::string> known;
            std::vector<TensorType> types;
            const auto define = [&](const std::string& name, const TensorType& type) {
              if (!position.emplace(name, types.size()).second) return false;
              known.push_back(name);
              types.push_back(type);
              return true;
            };
            for (size_t i = 0; i < inputs.size(); ++i)
              if (!define(inputs[i], in[i]))
                return b.fail("graph", "two inputs are called '" + inputs[i] + "'");
            std::vector<ModulePtr> bodies;
            std::vector<std::vector<size_t>> wires;
            for (const Node& node : nodes) {
              if (node.name.empty()) return b.fail("graph", "a node has no name");
              std::vector<size_t> from;
              std::vector<TensorType> node_in;
              const auto names = node.inputs.empty() ? std::vector<std::string>{known.back()} : node.inputs;
              for (const std::string& name : names) {
                const auto it = position.find(name);
                if (it == position.end())
                  return b.fail("graph", "node '" + node.name + "' reads '" + name +
                                             "', which no node before it and no input is called" +
                                             did_you_mean(name, known));
                from.push_back(it->second);
                node_in.push_back(types[it->second]);
              }
              Builder inner = b.child(node.name);
              const ModulePtr body = make_node(inner, node, node_in);
              const auto type = body ? inner.infer(*body, node_in) : std::nullopt;
              if (!type) return nullptr;
              if (!define(node.name, *type))
                return b.fail("graph", "two nodes or inputs are called '" + node.name + "'");
              bodies.push_back(m->add_child(body));
              wires.push_back(std::move(from));
            }
            const auto out = position.find(output.empty() ? known.back() : output);
            if (out == position.end())
              return b.fail("graph", "no node is called '" + output + "'" + did_you_mean(output, known));
            m->set_forward([bodies, wires, result = out->second](Context& c, std::span<const Tensor> x) {
              std::vector<Tensor> values(x.begin(), x.end());
              for (size_t i = 0; i < bodies.size(); ++i) {
                std::vector<Tensor> args;
                for (size_t from : wires[i]) args.push_back(values[from]);
                values.push_back((*bodies[i])(c, args));
              }
              return values[result];
            });
            return m;
          }};
}

}  // namespace tenon::nn
