// Models: named parameters, and functions that append a layer's graph.
//
// A Layer describes ("512 units, bias"); building it for known input shapes makes a Module, which owns
// parameters. A step calls the module with a Context, which says what stands for each parameter: its array,
// or another tensor (a cast, a parametrised weight, other values inside a closure).
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/graph/graph.h"
#include "core/nn/init.h"

namespace tenon::nn {

class Context;

enum class Kind : uint8_t { weight, bias, norm, embedding, state };

// A tensor that a module owns: trained, or (kind state) updated by the module itself, as running statistics
// are.
struct Parameter {
  std::string name;  // dotted path inside its model: "blocks.0.attention.qkv.weight"
  Array value;       // may be replaced by an array of equal type, e.g. a slice of a flat buffer
  Kind kind = Kind::weight;
  bool trainable = true;  // false: frozen, or state
  // Where another tensor acts as the weight than the one that is stored and trained: gives it, from the stored one.
  std::function<Tensor(Context&, Tensor stored)> effective = {};
  // The usual choice for weight decay: matrices, kernels and tables, not biases and gains.
  bool decays() const { return value.shape().rank() >= 2; }
};
using ParameterPtr = std::shared_ptr<Parameter>;

class Module;
using ModulePtr = std::shared_ptr<Module>;
using Forward = std::function<Tensor(Context&, std::span<const Tensor>)>;

// Where tokens go in a mixture-of-experts layer.
struct Routing {
  Tensor indices;  // i64 [T, K], experts of each token
  Tensor weights;  // [T, K], how much each counts
};
struct RoutingRecord : Routing {
  const Module* layer = nullptr;
  Tensor logits;  // [T, E]
  Tensor load;    // i64 [E], slots per expert
};

// One application of modules inside a step's graph.
class Context {
 public:
  // `key` seeds dropout and its like; the same key gives the same numbers again.
  Context(Graph& graph, bool train, uint64_t key = 0) : graph_(graph), train_(train), key_(key) {}

  Graph& graph() const { return graph_; }
  bool train() const { return train_; }
  // What acts as p: its substitute, or the leaf of its array; or the effective weight that is made of it.
  Tensor parameter(const Parameter& p);
  // The same without what makes an effective weight of it.
  Tensor stored(const Parameter& p) const;
  void substitute(const Parameter& p, Tensor t) { substitutes_[&p] = t; }
  // State: the value set last in this context, else the array's. update() takes effect when updates() are
  // evaluated.
  Tensor state(const Parameter& p) const;
  void update(const ParameterPtr& p, Tensor value);
  std::vector<Update> updates() const;
  // A fresh random key; made of `key_tensor`, where that is given, instead of the number.
  Tensor next_key();
  Tensor key_tensor;
  // Mixed precision: products, convolutions and attention read bf16; parameters with their gradients, sums and all else
  // stay f32. An f32 operand in the type that products read, and the product back in f32.
  bool mixed = false;
  // A second pass over layers for their gradient (Module::recomputes). What it notes and updates is dropped.
  bool repeated = false;
  // Running statistics take this share of the batch's, instead of what their layers say; 0: as they say.
  double stats_share = 0;
  Tensor operand(Tensor t) const;
  Tensor product(Tensor t) const;

  std::vector<RoutingRecord> routings;

  // What layers have to say beside their outputs, rank 0: terms of the objective in training, numbers to report,
  // conditions that must hold (the name is the message).
  struct Noted {
    std::string name;
    Tensor value;
  };
  std::vector<Noted> penalties, metrics, checks;

  // Outputs of modules applied so far, in order; by the module's name, the latest (null when there is none).
  void record(const Module& m, Tensor output) { outputs_.emplace_back(&m, output); }
  Tensor output_of(std::string_view module_name) const;

 private:
  Graph& graph_;
  bool train_;
  uint64_t key_, keys_used_ = 0;
  std::unordered_map<const Parameter*, Tensor> substitutes_, effective_;
  std::vector<std::pair<ParameterPtr, Tensor>> states_;  // in the order of their first update
  std::vector<std::pair<const Module*, Tensor>> outputs_;
};

// A built layer. Shared by pointer: two models may contain the same module and so share its parameters.
class Module {
 public:
  Module(std::string name, std::string type) : name_(std::move(name)), type_(std::move(type)) {}
  const std::string& name() const { return name_; }  // dotted path, "" for a model's root
  const std::string& type() const { return type_; }  // "linear"
  Tensor operator()(Context& ctx, std::span<const Tensor> in) const;
  Tensor operator()(Context& ctx, Tensor x) const { return (*this)(ctx, std::span<const Tensor>(&x, 1)); }

  // Own parameters and those of all children, each once, in the order of construction; without / only state.
  std::vector<ParameterPtr> parameters() const;
  std::vector<ParameterPtr> states() const;

  // For layers, while they build.
  ParameterPtr own(ParameterPtr p) {
    owned_.push_back(p);
    return p;
  }
  ModulePtr add_child(ModulePtr child) {
    if (child) children_.push_back(child);
    return child;
  }
  void set_forward(Forward f) { forward_ = std::move(f); }
  // In training, values inside the layer are computed once more for its gradient instead of being kept.
  bool recomputes = false;
  // Another tensor in place of the first input: the same in another number format.
  std::function<Tensor(Context&, Tensor)> on_input = {};
  std::span<const ModulePtr> children() const { return children_; }

 private:
  void collect(bool states, std::vector<ParameterPtr>& out) const;
  Tensor checkpointed(Context& ctx, std::span<const Tensor> in) const;
  std::string name_, type_;
  std::vector<ParameterPtr> owned_;
  std::vector<ModulePtr> children_;
  Forward forward_;
};

struct BuildOptions {
  uint64_t seed = 0;
  DType dtype = DType::f32;
  // Parameters of other models to share: asked for each full name, may give null. Shapes must be equal.
  std::function<ParameterPtr(const std::string& full_name)> share = {};
};
// Makes modules. Errors are sticky: the first one is kept, and build() returns it. Copies share all but the
// path.
class Builder {
 public:
  Builder(Runtime& runtime, const BuildOptions& options);
  Builder child(std::string_view name) const;
  const std::string& path() const { return path_; }
  std::string path_of(std::string_view name) const;
  DType dtype() const;

  // A parameter "path.name" with initial values that depend on the seed and this full name alone. Never null.
  ParameterPtr parameter(std::string_view name, const Shape& shape, const Initializer& init, Kind kind) const;
  ParameterPtr parameter(std::string_view name, const Shape& shape, const Initializer& init, Kind kind,
                         Fan fan) const;
  ParameterPtr state(std::string_view name, const Shape& shape, double value) const;
  // A parameter built before, by its full name; null when there is none.
  ParameterPtr find(const std::string& full_name) const;
  std::vector<std::string> parameter_names() const;

  // The type that m gives for inputs of these types, from its graph; an error is kept and gives nullopt.
  std::optional<TensorType> infer(const Module& m, std::span<const TensorType> in) const;
  // Records an error of the layer at this path.
  ModulePtr fail(std::string_view type, std::string_view message) const;
  const Status& status() const;

 private:
  struct Shared;
  std::shared_ptr<Shared> shared_;
  std::string path_;
};

// Describes a layer; `make` builds it for the types of its inputs, or returns null after Builder::fail.
struct Layer {
  std::string type;
  std::function<ModulePtr(Builder&, std::span<const TensorType>)> make;
  std::string name = {};  // in its container; default: type and position, "linear0"
};

struct Model {
  ModulePtr root;
  std::vector<TensorType> inputs;
  TensorType output;
  std::vector<ParameterPtr> parameters, states;
  Tensor operator()(Context& ctx, Tensor x) const { return (*root)(ctx, x); }
  Tensor operator()(Context& ctx, std::span<const Tensor> in) const { return (*root)(ctx, in); }
  int64_t parameter_count() const;
  void freeze();
};

// Builds a model for inputs of these types; the first dimension is the batch and any small number will do.
// The error names the layer, its type and the shapes.
Result<Model> build(Runtime& runtime, const Layer& layer, std::vector<TensorType> inputs,
                    BuildOptions options = {});

}  // namespace tenon::nn
