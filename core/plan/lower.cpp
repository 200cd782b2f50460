// From a program to a plan: views become addresses, clusters become kernels, values get a place in memory.
#include <algorithm>
#include <map>
#include <optional>

#include "core/plan/layout.h"
#include "core/plan/plan.h"
#include "core/runtime.h"

namespace tenon {

class Lowering {
 public:
  Lowering(const Graph& g, std::span<const Update> updates)
      : graph_(g),
        backend_(g.backend()),
        options_(g.runtime().options()),
        updates_(updates),
        plan_(std::make_shared<Plan>()) {}

  Result<std::shared_ptr<Plan>> run(std::span<const uint32_t> roots) {
    program_ = Program::extract(graph_, roots, updates_);
    expand(program_, options_.pass_expand);
    if (options_.pass_cse) eliminate_common_subexpressions(program_);
    if (options_.pass_simplify) simplify(program_, graph_);
    if (options_.pass_simplify) join_slice_gradients(program_);
    if (options_.pass_epilogue) extend_products(program_, backend_);
    if (options_.pass_fuse) fuse(program_, backend_, options_.pass_rows, options_.pass_joins);
    if (options_.pass_widen) widen_where_read(program_, backend_);
    place_leaves();
    TN_ASSIGN(const auto pieces, schedule(program_));
    for (const std::vector<int>& piece : pieces) TN_RETURN_IF_ERROR(emit(piece));
    TN_RETURN_IF_ERROR(bind_roots());
    TN_RETURN_IF_ERROR(bind_updates());
    TN_RETURN_IF_ERROR(finish());
    return plan_;
  }

 private:
  // Memory that a value's elements lie in. Blocks of kind temp get an arena offset at the end.
  enum class Where : uint8_t { temp, scalar, leaf, result, target };
  struct Storage {
    Where where = Where::temp;
    int index = 0;  // slot, leaf, result or update
    size_t bytes = 0;
    int first = 0, last = 0;  // steps
    int alias = -1;           // lies in another storage (in-place)
  };
  struct Place {
    int storage = -1;
    int64_t offset = 0;  // elements
    Strides strides;
    bool channels_last = false;  // layout.h
  };
  struct Access {
    int storage;
    int64_t byte_offset;
    Layout layout;
  };
  struct PendingStep {
    std::unique_ptr<Kernel> kernel;
    std::vector<Access> in, out;
    int scratch = -1;  // storage
    std::optional<Shape>
        over;  // elements of outputs of this shape depend on the same elements of inputs of it
    bool adds_to_first = false;  // its output is its first input, but for what it adds
    std::string label;
  };

  size_t idx(int i) const { return static_cast<size_t>(i); }
  const TensorType& type(int v) const { return program_.values[idx(v)].type; }
  Layout layout(int v) const { return {type(v).dtype, type(v).shape, places_[idx(v)].strides}; }
  Access access(int v) const {
    const Place& p = places_[idx(v)];
    return {p.storage, p.offset * static_cast<int64_t>(size_of(type(v).dtype)), layout(v)};
  }
  int step_count() const { return static_cast<int>(steps_.size()); }

  int new_storage(Where where, int index, size_t bytes) {
    storages_.push_back(
        {.where = where, .index = index, .bytes = bytes, .first = step_count(), .last = step_count()});
    return static_cast<int>(storages_.size()) - 1;
  }
  int new_temp(const TensorType& t) {
    return new_storage(Where::temp, 0, static_cast<size_t>(t.shape.numel()) * size_of(t.dtype));
  }

  void place_leaves() {
    places_.resize(program_.values.size());
    for (size_t v = 0; v < program_.values.size(); ++v) {
      const Program::Value& x = program_.values[v];
      if (x.kind == Program::Kind::computed) continue;
      const bool array = x.kind == Program::Kind::array;
      const int s = new_storage(array ? Where::leaf : Where::scalar, x.leaf,
                                static_cast<size_t>(x.type.shape.numel()) * size_of(x.type.dtype));
      places_[v] = {s, 0, x.type.shape.strides()};
    }
  }

  Result<bool> emit_view(const Program::Node& n) {
    if (!n.op->view) return false;
    const int in = n.in[0], out = n.out[0];
    auto spec = n.op->view(layout(in), n.attrs(), type(out));
    Place from = places_[idx(in)];
    if (from.channels_last &&
        !(spec && is_channels_last({type(out).dtype, type(out).shape, spec->strides}))) {
      TN_ASSIGN(const Access copy, contiguous_copy(in));
      from = {copy.storage, 0, copy.layout.strides};
      spec = n.op->view(copy.layout, n.attrs(), type(out));
    }
    if (!spec) return false;
    places_[idx(out)] = {from.storage, from.offset + spec->offset, spec->strides, from.channels_last};
    return true;
  }

  // Whether somebody who is not of the value's own cluster reads it, be it through a view.
  bool used_outside(int v) {
    if (uses_.empty()) {
      uses_.resize(program_.values.size());
      for (size_t i = 0; i < program_.nodes.size(); ++i)
        if (!program_.nodes[i].dead)
          for (int in : program_.nodes[i].in) uses_[idx(in)].push_back(static_cast<int>(i));
      for (int root : program_.roots) uses_[idx(root)].push_back(-1);
      for (int update : program_.updates) uses_[idx(update)].push_back(-1);
    }
    return std::any_of(uses_[idx(v)].begin(), uses_[idx(v)].end(), [&](int user) {
      if (user < 0) return true;
      const Program::Node& n = program_.nodes[idx(user)];
      if (program_.is_row_view(n.out[0])) return used_outside(n.out[0]);
      return !program_.reads_inside(n, v);
    });
  }

  Status emit(const std::vector<int>& nodes) {
    const Program::Node& first = program_.nodes[idx(nodes[0])];
    if (nodes.size() == 1) {
      TN_ASSIGN(const bool is_view, emit_view(first));
      if (is_view) return Status::ok();
    }
    Piece piece;
    std::vector<int> inputs, outputs;  // values
    std::map<int, int> input_index, node_index;
    std::string label;
    const bool cluster = first.cluster >= 0;
    const auto add_node = [&](const Program::Node& n, std::vector<int> in) {
      PieceNode m{
          .op = n.op->id, .plain = n.op->plain, .attrs = n.attrs(), .inputs = std::move(in), .outputs = {}};
      for (int v : n.out) m.outputs.push_back(type(v));
      node_index[n.out[0]] = static_cast<int>(piece.nodes.size());
      label += (piece.nodes.empty() ? "" : "+") + std::string(n.op->name());
      piece.nodes.push_back(std::move(m));
    };
    const auto operand = [&](const Program::Node& n, int v, const auto& self) -> int {
      if (const auto at = node_index.find(v); at != node_index.end()) return ~at->second;
      if (program_.reads_inside(n, v)) {  // a view of one of the piece's own values
        const Program::Node& view = program_.nodes[idx(program_.values[idx(v)].producer)];
        add_node(view, {self(n, view.in[0], self)});
        return ~node_index.at(v);
      }
      if (const auto at = input_index.find(v); cluster && at != input_index.end()) return at->second;
      input_index[v] = static_cast<int>(inputs.size());
      inputs.push_back(v);
      piece.inputs.push_back(layout(v));
      return input_index[v];
    };
    for (int i : nodes) {
      const Program::Node& n = program_.nodes[idx(i)];
      std::vector<int> operands;
      for (int v : n.in) operands.push_back(operand(n, v, operand));
      add_node(n, std::move(operands));
    }
    for (int i : nodes) {
      const Program::Node& n = program_.nodes[idx(i)];
      for (size_t k = 0; k < n.out.size(); ++k)
        if (nodes.size() == 1 || used_outside(n.out[k])) {
          piece.outputs.push_back({node_index.at(n.out[0]), static_cast<int>(k)});
          outputs.push_back(n.out[k]);
        }
    }
    std::vector<Access> in, out;
    for (int v : inputs) in.push_back(access(v));
    const auto is_elementwise = [&](int i) { return program_.nodes[idx(i)].op->elementwise; };
    const bool elementwise = std::all_of(nodes.begin(), nodes.end(), is_elementwise);
    std::vector<bool> kept;
    for (int v : inputs) kept.push_back(places_[idx(v)].channels_last);
    const LayoutChoice choice = choose_layouts(piece, elementwise, kept, backend_, options_.pass_layout);
    for (size_t i = 0; i < in.size(); ++i) {
      if (choice.copies[i] == LayoutChoice::Copy::row_major) {
        TN_ASSIGN(in[i], contiguous_copy(inputs[i]));
      } else if (choice.copies[i] == LayoutChoice::Copy::channels_last) {
        TN_ASSIGN(in[i], channels_last_copy(inputs[i], piece.inputs[i].shape.rank()));
      }
      in[i].layout = piece.inputs[i];
    }
    for (size_t k = 0; k < outputs.size(); ++k) {
      const TensorType& t = type(outputs[k]);
      const bool last = choice.moved || piece.outputs[k].channels_last;
      Strides strides = t.shape.strides();
      if (last) strides = channels_last_strides(t.shape);
      places_[idx(outputs[k])] = {new_temp(t), 0, strides, last};
      out.push_back(access(outputs[k]));
      if (choice.moved) out.back().layout = Layout(piece.output_type(k));
    }
    std::optional<Shape> over;
    if (first.op->elementwise || (cluster && !is_matmul(*first.op))) over = iterated(piece);
    TN_RETURN_IF_ERROR(add_step(piece, std::move(in), std::move(out), std::move(over), std::move(label)));
    steps_.back().adds_to_first = first.op == find_op("scatter_add/1");
    return Status::ok();
  }

  // What a fused piece iterates over: the largest shape in it.
  static Shape iterated(const Piece& piece) {
    Shape full = piece.output_type(0).shape;
    const auto consider = [&](const Shape& s) {
      if (s.numel() > full.numel()) full = s;
    };
    for (const PieceNode& n : piece.nodes) {
      consider(n.outputs[0].shape);
      for (int i : n.inputs)
        if (i >= 0 && n.op != "concat/1") consider(piece.inputs[static_cast<size_t>(i)].shape);
    }
    return full;
  }

  Status add_step(const Piece& piece, std::vector<Access> in, std::vector<Access> out,
                  std::optional<Shape> over, std::string label) {
    auto kernel = backend_.compile(piece);
    if (!kernel) return std::move(kernel).status().at(label);
    PendingStep s{.kernel = std::move(kernel).value(),
                  .in = std::move(in),
                  .out = std::move(out),
                  .scratch = -1,
                  .over = std::move(over),
                  .label = std::move(label)};
    if (const size_t bytes = s.kernel->scratch_bytes(); bytes > 0)
      s.scratch = new_storage(Where::temp, 0, bytes);
    for (const Access& a : s.in) storages_[idx(a.storage)].last = step_count();
    steps_.push_back(std::move(s));
    return Status::ok();
  }

  // A row-major copy of a value.
  Result<Access> contiguous_copy(int v) { return copy_once({v, 0}, access(v)); }
  // A dense copy of a value in the memory order of channels-last tensors of this rank.
  Result<Access> channels_last_copy(int v, int rank) {
    Access from = access(v);
    from.layout = in_memory_order(from.layout, rank);
    return copy_once({v, rank}, from);
  }
  // Each copy is made once.
  Result<Access> copy_once(std::pair<int, int> key, const Access& from) {
    if (const auto it = copies_.find(key); it != copies_.end()) return it->second;
    const TensorType t{from.layout.dtype, from.layout.shape};
    const Access to{new_temp(t), 0, Layout(t)};
    TN_RETURN_IF_ERROR(copy_step(from, to));
    return copies_[key] = to;
  }

  Status copy_step(const Access& from, const Access& to) {
    const OpDef* op = find_op("contiguous/1");
    Piece piece;
    piece.nodes.push_back({.op = op->id,
                           .plain = op->plain,
                           .attrs = Attrs(),
                           .inputs = {0},
                           .outputs = {TensorType{to.layout.dtype, to.layout.shape}}});
    piece.inputs = {from.layout};
    piece.outputs = {{0, 0}};
    return add_step(piece, {from}, {to}, std::nullopt, "copy");
  }

  // The whole of one temp block, so that the block itself may lie in a result or target.
  bool owns_block(int v) const {
    const Place& p = places_[idx(v)];
    const Storage& s = storages_[idx(p.storage)];
    return s.where == Where::temp && p.offset == 0 && layout(v).contiguous() &&
           s.bytes == layout(v).size_bytes();
  }

  Status bind_roots() {
    for (size_t k = 0; k < program_.roots.size(); ++k) {
      const int v = program_.roots[k];
      plan_->root_types_.push_back(type(v));
      if (owns_block(v)) {
        Storage& s = storages_[idx(places_[idx(v)].storage)];
        s.where = Where::result;
        s.index = static_cast<int>(k);
        continue;
      }
      const int to = new_storage(Where::result, static_cast<int>(k), layout(v).size_bytes());
      TN_RETURN_IF_ERROR(copy_step(access(v), {to, 0, Layout(type(v))}));
    }
    return Status::ok();
  }

  static bool overlap(const Array& a, const Array& b) {
    return a.buffer() == b.buffer() && a.offset() < b.offset() + b.size_bytes() &&
           b.offset() < a.offset() + a.size_bytes();
  }

  // Whether the step that makes v may write straight into the target: every reader of the old contents comes
  // before, or is that very step, reading element by element or adding to a few elements of what it reads
  // first.
  bool may_write_through(int v, const Array& target) const {
    if (!options_.pass_inplace || !owns_block(v)) return false;
    const int storage = places_[idx(v)].storage;
    const int producer = storages_[idx(storage)].first;
    for (int s = producer; s < step_count(); ++s) {
      const PendingStep& step = steps_[idx(s)];
      int overlapping = 0;
      for (const Access& a : step.in) {
        const Storage& st = storages_[idx(a.storage)];
        if (st.where != Where::leaf) continue;
        const Array& leaf = program_.leaf_arrays[idx(st.index)];
        if (!overlap(leaf, target)) continue;
        const bool same_elements = leaf.offset() == target.offset() &&
                                   leaf.size_bytes() == target.size_bytes() && a.byte_offset == 0 &&
                                   a.layout.contiguous() && a.layout.dtype == target.dtype() &&
                                   a.layout.shape == type(v).shape;
        const bool readable = step.over == type(v).shape || (step.adds_to_first && &a == step.in.data());
        if (s != producer || !readable || !same_elements || ++overlapping > 1) return false;
      }
    }
    return true;
  }

  Status bind_updates() {
    plan_->n_updates_ = updates_.size();
    for (size_t i = 0; i < updates_.size(); ++i)
      for (size_t j = i + 1; j < updates_.size(); ++j)
        if (overlap(updates_[i].target, updates_[j].target))
          return internal_error("eval: two updates write the same memory");
    // Values that are (parts of) leaves are copied first, since another update may overwrite the leaf.
    std::vector<Access> from(updates_.size());
    std::vector<uint8_t> done(updates_.size(), 0);
    for (size_t k = 0; k < updates_.size(); ++k) {
      const int v = program_.updates[k];
      if (storages_[idx(places_[idx(v)].storage)].where == Where::leaf) {
        TN_ASSIGN(from[k], contiguous_copy(v));
      } else if (may_write_through(v, updates_[k].target)) {
        Storage& s = storages_[idx(places_[idx(v)].storage)];
        s.where = Where::target;
        s.index = static_cast<int>(k);
        done[k] = 1;
      } else {
        from[k] = access(v);
      }
    }
    for (size_t k = 0; k < updates_.size(); ++k) {
      if (done[k]) continue;
      const int v = program_.updates[k];
      const int to = new_storage(Where::target, static_cast<int>(k), layout(v).size_bytes());
      TN_RETURN_IF_ERROR(copy_step(from[k], {to, 0, Layout(type(v))}));
    }
    return Status::ok();
  }

  // An element-wise step may write over an input that nobody reads later.
  void share_dying_inputs() {
    for (int s = 0; s < step_count(); ++s) {
      PendingStep& step = steps_[idx(s)];
      for (const Access& o : step.out) {
        Storage& out = storages_[idx(o.storage)];
        if (out.where != Where::temp || step.over != o.layout.shape) continue;
        for (const Access& a : step.in) {
          const int root = resolve(a.storage);
          Storage& in = storages_[idx(root)];
          if (in.where != Where::temp || in.last != s || in.bytes != out.bytes || a.byte_offset != 0 ||
              !a.layout.contiguous() || a.layout.shape != o.layout.shape ||
              size_of(a.layout.dtype) != size_of(o.layout.dtype))
            continue;
          const auto users = std::count_if(step.in.begin(), step.in.end(),
                                           [&](const Access& b) { return resolve(b.storage) == root; }) +
                             std::count_if(step.out.begin(), step.out.end(),
                                           [&](const Access& b) { return resolve(b.storage) == root; });
          if (users != 1) continue;
          out.alias = root;
          in.last = std::max(in.last, out.last);
          break;
        }
      }
    }
  }

  int resolve(int s) const {
    while (storages_[idx(s)].alias >= 0) s = storages_[idx(s)].alias;
    return s;
  }

  Status finish() {
    if (options_.pass_inplace) share_dying_inputs();
    std::vector<Lifetime> blocks;
    std::vector<int> block_of(storages_.size(), -1);
    for (size_t i = 0; i < storages_.size(); ++i) {
      const Storage& s = storages_[i];
      if (s.where != Where::temp || s.alias >= 0) continue;
      block_of[i] = static_cast<int>(blocks.size());
      blocks.push_back({.bytes = s.bytes, .first = s.first, .last = s.last});
    }
    plan_->arena_bytes_ = assign_offsets(blocks);

    const auto n_leaves = static_cast<uint32_t>(program_.leaf_ids.size());
    const auto n_roots = static_cast<uint32_t>(program_.roots.size());
    const auto ref = [&](int storage, int64_t byte_offset) -> Plan::Ref {
      const int root = resolve(storage);
      const Storage& s = storages_[idx(root)];
      const auto index = static_cast<uint32_t>(s.index);
      switch (s.where) {
        case Where::temp:
          return {0, static_cast<int64_t>(blocks[idx(block_of[idx(root)])].offset) + byte_offset};
        case Where::scalar:
          return {1, index * 8 + byte_offset};
        case Where::leaf:
          return {2 + index, byte_offset};
        case Where::result:
          return {2 + n_leaves + index, byte_offset};
        case Where::target:
          break;
      }
      return {2 + n_leaves + n_roots + index, byte_offset};
    };
    for (PendingStep& s : steps_) {
      Plan::Step step{
          .kernel = std::move(s.kernel), .in = {}, .out = {}, .scratch = {}, .label = std::move(s.label)};
      for (const Access& a : s.in) step.in.push_back(ref(a.storage, a.byte_offset));
      for (const Access& a : s.out) step.out.push_back(ref(a.storage, a.byte_offset));
      if (s.scratch >= 0) step.scratch = ref(s.scratch, 0);
      plan_->steps_.push_back(std::move(step));
    }
    plan_->leaf_ids_ = program_.leaf_ids;
    if (!program_.scalar_ids.empty()) {
      plan_->scalar_staging_.resize(program_.scalar_ids.size() * 8);
      for (uint32_t i = 0; i < program_.scalar_ids.size(); ++i) {
        const Graph::Node& n = graph_.node_of(program_.scalar_ids[i]);
        if (n.op == &kConstantOp)
          write_scalar(graph_, n, plan_->scalar_staging_.data() + i * 8);
        else
          plan_->runtime_scalars_.push_back({i, program_.scalar_ids[i]});
      }
      TN_ASSIGN(void* p, backend_.allocate(plan_->scalar_staging_.size()));
      plan_->scalars_ = std::make_shared<Buffer>(backend_, p, plan_->scalar_staging_.size());
    }
    return Status::ok();
  }

  const Graph& graph_;
  Backend& backend_;
  const RuntimeOptions& options_;
  std::span<const Update> updates_;
  std::shared_ptr<Plan> plan_;
  Program program_;
  std::vector<Storage> storages_;
  std::vector<Place> places_;                     // by value
  std::vector<std::vector<int>> uses_;            // by value: reading nodes, -1 for roots
  std::map<std::pair<int, int>, Access> copies_;  // by value, and rank of a channels-last one or 0
  std::vector<PendingStep> steps_;
};

Result<std::shared_ptr<Plan>> Plan::make(const Graph& g, std::span<const uint32_t> roots,
                                         std::span<const Update> updates) {
  return Lowering(g, updates).run(roots);
}

}  // namespace tenon
