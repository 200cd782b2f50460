// The lazy graph of one step. Building a node infers its type at once and computes nothing; eval() plans and runs.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "core/base/hash.h"
#include "core/base/status.h"
#include "core/base/step_table.h"
#include "core/graph/op.h"
#include "core/tensor/array.h"

namespace tenon {

class Graph;
class Runtime;

// A value in a graph: a cheap handle, valid until the graph is reset. A null tensor is what a failed op yields;
// ops on a null tensor yield null, and the graph keeps the first message.
class Tensor {
 public:
  Tensor() = default;
  Tensor(Graph* graph, uint32_t id) : graph_(graph), id_(id) {}
  bool valid() const { return graph_ != nullptr; }
  Graph& graph() const { return *graph_; }
  uint32_t id() const { return id_; }
  DType dtype() const;
  Shape shape() const;  // a copy: what lies in the graph moves when an op is appended
  int rank() const { return shape().rank(); }
  // Dimension i; negative counts from the end.
  int64_t dim(int i) const { return shape()[i < 0 ? i + rank() : i]; }
  int64_t numel() const { return shape().numel(); }
  // Output i of the operation whose output 0 this is.
  Tensor output(int i) const { return valid() ? Tensor(graph_, id_ + static_cast<uint32_t>(i)) : Tensor(); }
  friend bool operator==(const Tensor&, const Tensor&) = default;

 private:
  Graph* graph_ = nullptr;
  uint32_t id_ = 0;
};

// `target` takes the value after everything in the evaluation has read its old one.
struct Update {
  Array target;
  Tensor value;
};

class Graph {
 public:
  explicit Graph(Runtime& runtime);
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  // Leaves. An array seen before gives the same leaf again.
  Tensor input(const Array& array);
  // A number bound at run time: changing it from step to step does not change the plan. Rank 0.
  Tensor scalar(double value, DType dtype = DType::f32);
  // A random key bound at run time (i64, rank 0).
  Tensor key(uint64_t key);
  // A number that is part of the structure, so that the planner may simplify with it. Rank 0.
  Tensor constant(double value, DType dtype = DType::f32);

  // Appends an operation and returns its first output (Tensor::output for the others), or null after recording why.
  Tensor apply(const OpDef& op, std::span<const Tensor> in, const AttrList& attrs = {}) { return apply(op, in, Attrs(op.attrs, attrs.words())); }
  Tensor apply(const OpDef& op, std::span<const Tensor> in, const Attrs& attrs);
  Tensor apply(const OpDef& op, std::initializer_list<Tensor> in, const AttrList& attrs = {}) {
    return apply(op, std::span<const Tensor>(in.begin(), in.size()), attrs);
  }

  // Values of `outputs` as new arrays, then the updates in place. One plan, from the cache when the structure is known.
  Result<std::vector<Array>> eval(std::span<const Tensor> outputs, std::span<const Update> updates = {});
  // Explicit evaluation points inside a step; the profile counts them. Later evaluations reuse the value.
  Result<HostArray> to_host(Tensor t);
  Result<double> value(Tensor t);
  // Computes these now, in one plan with the updates; later evaluations find them done.
  Status materialise(std::span<const Tensor> ts, std::span<const Update> updates = {});

  // Forgets all nodes. Handles made before are invalid.
  void reset();

  // The first error of this step.
  const Status& status() const { return status_; }
  void fail(Status status);
  // Who is building, for error messages and dumps: "loss 'focal'". Restored by Scope's destructor.
  class Scope {
   public:
    Scope(Graph& g, std::string name) : graph_(g), saved_(std::move(g.scope_)) { g.scope_ = std::move(name); }
    ~Scope() { graph_.scope_ = std::move(saved_); }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Graph& graph_;
    std::string saved_;
  };

  // While it lives, ops are the built-in ones, whatever the runtime has in their place.
  class BuiltinOps {
   public:
    explicit BuiltinOps(Graph& g) : graph_(g), saved_(g.builtin_only_) { g.builtin_only_ = true; }
    ~BuiltinOps() { graph_.builtin_only_ = saved_; }
    BuiltinOps(const BuiltinOps&) = delete;
    BuiltinOps& operator=(const BuiltinOps&) = delete;

   private:
    Graph& graph_;
    bool saved_;
  };

  Runtime& runtime() const { return *runtime_; }
  Backend& backend() const;

  // --- For the planner, grad, dump and ops; nodes are in topological order. ---
  struct Node {
    const OpDef* op;
    uint32_t first_input, n_in;    // into input_ids
    uint32_t first_value, n_out;   // into values
    uint32_t first_word, n_words;  // into attr words
  };
  struct Value {
    uint32_t node;
    uint32_t array;  // see array_of()
    TensorType type;
  };
  struct Leaf {
    double number = 0;    // floating scalars
    int64_t integer = 0;  // integer scalars and keys
    uint32_t value = 0;
    uint32_t next = 0;  // another array leaf at the same place, of another type; 0: none
  };
  std::span<const Node> nodes() const { return nodes_; }
  const Node& node_of(uint32_t value) const { return nodes_[values_[value].node]; }
  const Value& value_at(uint32_t id) const { return values_[id]; }
  // The array that an input is, or that a value was once evaluated to (eager mode, to_host), which makes it a leaf for
  // later plans.
  bool has_array(uint32_t id) const { return values_[id].array != 0; }
  const Array& array_of(uint32_t id) const { return arrays_[values_[id].array - 1]; }
  size_t value_count() const { return values_.size(); }
  std::span<const uint32_t> inputs_of(const Node& n) const { return {input_ids_.data() + n.first_input, n.n_in}; }
  Attrs attrs_of(const Node& n) const { return {n.op->attrs, {words_.data() + n.first_word, n.n_words}}; }
  std::span<const Leaf> leaves() const { return leaves_; }
  // Which of leaves() an input or scalar node is.
  int64_t leaf_index(const Node& n) const { return words_[n.first_word]; }
  const Hash128& structure() const { return hash_; }

  // Derivative of a custom_gradient node, kept beside the graph.
  using CustomVjp = std::function<std::vector<Tensor>(Tensor cotangent)>;
  int64_t add_custom_vjp(CustomVjp f);
  const CustomVjp& custom_vjp(int64_t i) const { return custom_vjps_[static_cast<size_t>(i)]; }

 private:
  friend class Tensor;
  Tensor leaf(const OpDef& op, const TensorType& type, Leaf leaf);
  Leaf& leaf_of(uint32_t value) { return leaves_[static_cast<size_t>(leaf_index(node_of(value)))]; }
  // Where an array lies: the canonical number of its buffer, and its offset.
  uint64_t place_of(const Array& array);
  Tensor append(const OpDef& op, std::span<const Tensor> in, std::span<const int64_t> words,
                std::span<const TensorType> outputs);
  void set_array(uint32_t id, Array array);
  Status run_eagerly(const Node& node);
  void materialise_scalar(Tensor t);

  Runtime* runtime_;
  std::vector<Node> nodes_;
  std::vector<Value> values_;
  std::vector<uint32_t> input_ids_;
  std::vector<int64_t> words_;
  std::vector<Leaf> leaves_;
  std::vector<Array> arrays_;
  std::vector<CustomVjp> custom_vjps_;
  std::vector<TensorType> inferred_, in_types_;  // reused between calls
  std::vector<uint32_t> roots_;
  // Canonical numbers of the buffers met, and the first leaf at each place in them: aliasing is part of the plan key.
  StepTable buffers_seen_, array_leaves_;
  std::string scope_;
  bool builtin_only_ = false;
  Status status_;
  Hash128 hash_;
};

// Writes the number of a scalar or constant node in its dtype.
void write_scalar(const Graph& g, const Graph::Node& n, void* to);

inline DType Tensor::dtype() const { return graph_->values_[id_].type.dtype; }
inline Shape Tensor::shape() const { return graph_->values_[id_].type.shape; }

}  // namespace tenon
