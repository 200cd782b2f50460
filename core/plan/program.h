// A graph as the planner works on it: only what the roots need, free to be rewritten.
#pragma once

#include <vector>

#include "core/graph/graph.h"

namespace tenon {

struct Program {
  struct Node {
    const OpDef* op;
    std::vector<int64_t> words;
    std::vector<int> in;   // values
    std::vector<int> out;  // values
    bool dead = false;
    int cluster = -1;  // nodes of one cluster become one piece
    Attrs attrs() const { return {op->attrs, words}; }
  };
  enum class Kind : uint8_t { array, scalar, computed };
  struct Value {
    TensorType type;
    Kind kind = Kind::computed;
    int leaf = -1;         // array: index of the plan's leaf; scalar: index of its slot
    int producer = -1;     // computed: node
    uint32_t graph_id = 0;
  };

  std::vector<Node> nodes;  // topological order
  std::vector<Value> values;
  std::vector<uint32_t> leaf_ids;    // graph value of each array leaf, in the order they were met
  std::vector<Array> leaf_arrays;
  std::vector<uint32_t> scalar_ids;  // graph value of each scalar or constant
  std::vector<int> roots;            // values
  std::vector<int> updates;          // values

  // The part of the graph that the roots and updates need. Values already computed (Value::array) are leaves.
  static Program extract(const Graph& g, std::span<const uint32_t> roots, std::span<const Update> updates);

  // Whether v only gives another value another shape: reshape, squeeze, unsqueeze, broadcast_to.
  bool is_row_view(int v) const;
  // Whether node n, of a cluster, reads v as a value of that same cluster, be it through such views.
  bool reads_inside(const Node& n, int v) const;

  // Follows `forward` (value -> replacement) in all uses, then marks nodes that nothing needs any more.
  void replace_and_sweep(const std::vector<int>& forward);
};

// Passes. Each keeps every root's bits.
// Mixed products' operands are rounded by casts of their own; with `one_hots`, these become comparisons.
void expand(Program& p, bool one_hots);
void eliminate_common_subexpressions(Program& p);
void simplify(Program& p, const Graph& g);
void join_slice_gradients(Program& p);
void extend_products(Program& p, const Backend& backend);
// `rows`: with folds along rows; `joins`: reading joined vectors part by part.
void fuse(Program& p, const Backend& backend, bool rows, bool joins);
void widen_where_read(Program& p, const Backend& backend);

inline bool is_matmul(const OpDef& op) { return op.id == "matmul/1" || op.id == "mixed_matmul/1"; }

// Whether every value of the first type is one of the second, a larger one.
inline bool widens(DType from, DType to) {
  return is_floating(from) && is_floating(to) && size_of(from) < size_of(to);
}

// Nodes that run as one piece (ascending), in an order in which everything is computed before it is read. Error: pieces
// wait for each other.
Result<std::vector<std::vector<int>>> schedule(const Program& p);

}  // namespace tenon
