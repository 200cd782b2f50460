#include "core/graph/graph.h"

#include <algorithm>
#include <cstring>

#include "core/plan/plan.h"
#include "core/runtime.h"
#include "core/tensor/saturate.h"

namespace tenon {
namespace {

constexpr AttrSpec kConstantAttrs[] = {{"value", AttrKind::f64}, {"dtype", AttrKind::i64}};

uint64_t tag(const OpDef& op) { return reinterpret_cast<uint64_t>(&op); }

}  // namespace

constinit const OpDef kInputOp{.id = "input/1", .min_in = 0, .max_in = 0};
constinit const OpDef kScalarOp{.id = "scalar/1", .min_in = 0, .max_in = 0};
constinit const OpDef kConstantOp{.id = "constant/1", .min_in = 0, .max_in = 0, .attrs = kConstantAttrs};

Graph::Graph(Runtime& runtime) : runtime_(&runtime) {}

Backend& Graph::backend() const { return runtime_->backend(); }

void Graph::fail(Status status) {
  if (status_.is_ok() && !status.is_ok())
    status_ = scope_.empty() ? std::move(status) : std::move(status).at(scope_);
}

void Graph::reset() {
  nodes_.clear();
  values_.clear();
  input_ids_.clear();
  words_.clear();
  leaves_.clear();
  arrays_.clear();
  custom_vjps_.clear();
  array_leaves_.clear();
  buffers_seen_.clear();
  status_ = Status::ok();
  hash_ = {};
}

int64_t Graph::add_custom_vjp(CustomVjp f) {
  custom_vjps_.push_back(std::move(f));
  return static_cast<int64_t>(custom_vjps_.size()) - 1;
}

Tensor Graph::append(const OpDef& op, std::span<const Tensor> in, std::span<const int64_t> words,
                     std::span<const TensorType> outputs) {
  Node n{&op,
         static_cast<uint32_t>(input_ids_.size()),
         static_cast<uint32_t>(in.size()),
         static_cast<uint32_t>(values_.size()),
         static_cast<uint32_t>(outputs.size()),
         static_cast<uint32_t>(words_.size()),
         static_cast<uint32_t>(words.size())};
  hash_.mix(tag(op));
  for (const Tensor& t : in) {
    input_ids_.push_back(t.id());
    hash_.mix(t.id());
  }
  words_.insert(words_.end(), words.begin(), words.end());
  hash_.mix_list(words);
  const auto node_index = static_cast<uint32_t>(nodes_.size());
  for (const TensorType& t : outputs) values_.push_back({node_index, 0, t});
  nodes_.push_back(n);
  return Tensor(this, n.first_value);
}

Tensor Graph::leaf(const OpDef& op, const TensorType& type, Leaf leaf) {
  const int64_t index = static_cast<int64_t>(leaves_.size());
  hash_.mix(static_cast<uint64_t>(type.dtype));
  hash_.mix_list(type.shape);
  const Tensor t = append(op, {}, {&index, 1}, {&type, 1});
  leaf.value = t.id();
  leaves_.push_back(std::move(leaf));
  return t;
}

uint64_t Graph::place_of(const Array& array) {
  const uint32_t buffer = buffers_seen_.find_or_insert(reinterpret_cast<uintptr_t>(array.buffer().get()), buffers_seen_.size());
  return (static_cast<uint64_t>(buffer) << 40) ^ array.offset();
}

void Graph::set_array(uint32_t id, Array array) {
  arrays_.push_back(std::move(array));
  values_[id].array = static_cast<uint32_t>(arrays_.size());
}

Tensor Graph::input(const Array& array) {
  if (!array.valid()) {
    fail(bad_state("input: the array was never given a value"));
    return {};
  }
  // Two leaves may share a buffer: the plan must know, so the canonical number and the offset are part of its key.
  const uint64_t place = place_of(array);
  const auto id = static_cast<uint32_t>(values_.size());
  uint32_t last = array_leaves_.find_or_insert(place, id);
  for (; last != id; last = leaf_of(last).next) {
    if (values_[last].type == array.type()) return Tensor(this, last);
    if (leaf_of(last).next == 0) leaf_of(last).next = id;
  }
  hash_.mix(place);
  leaf(kInputOp, array.type(), {});
  set_array(id, array);
  return Tensor(this, id);
}

Tensor Graph::scalar(double value, DType dtype) {
  const TensorType type{dtype, Shape{}};
  const Tensor t = leaf(kScalarOp, type, {.number = value, .integer = saturate<int64_t>(value)});
  if (runtime_->options().eager) materialise_scalar(t);
  return t;
}

Tensor Graph::key(uint64_t key) {
  const Tensor t = leaf(kScalarOp, {DType::i64, Shape{}}, {.integer = static_cast<int64_t>(key)});
  if (runtime_->options().eager) materialise_scalar(t);
  return t;
}

Tensor Graph::constant(double value, DType dtype) {
  const AttrList words = AttrList().f(value).i(static_cast<int64_t>(dtype));
  const TensorType type{dtype, Shape{}};
  const Tensor t = append(kConstantOp, {}, words.words(), {&type, 1});
  if (runtime_->options().eager) materialise_scalar(t);
  return t;
}

void Graph::materialise_scalar(Tensor t) {
  HostArray h(t.dtype(), Shape{});
  const Node& n = node_of(t.id());
  write_scalar(*this, n, h.data());
  auto array = Array::from_host(backend(), h);
  if (!array) return fail(array.status());
  set_array(t.id(), *std::move(array));
}

Tensor Graph::apply(const OpDef& op, std::span<const Tensor> in, const Attrs& attrs) {
  if (!status_.is_ok()) return {};
  if (const auto* stand_in = builtin_only_ ? nullptr : runtime_->replacement(op)) {
    const BuiltinOps builtin(*this);
    if (const Tensor t = (*stand_in)(*this, in, attrs); t.valid() || !status_.is_ok()) return t;
  }
  for (const Tensor& t : in) {
    if (t.valid() && &t.graph() == this) continue;
    fail(internal_error(std::string(op.name()) + ": an input is " +
                        (t.valid() ? "a tensor of another graph" : "a null tensor")));
    return {};
  }
  if (static_cast<int>(in.size()) < op.min_in || (op.max_in >= 0 && static_cast<int>(in.size()) > op.max_in)) {
    fail(invalid(std::string(op.name()) + ": got " + std::to_string(in.size()) + " inputs, it takes " +
                 (op.max_in == op.min_in ? std::to_string(op.min_in) : "at least " + std::to_string(op.min_in))));
    return {};
  }
  in_types_.clear();
  for (const Tensor& t : in) in_types_.push_back(values_[t.id()].type);
  inferred_.clear();
  if (Status s = op.infer({in_types_, attrs, inferred_}); !s.is_ok()) {
    fail(std::move(s));
    return {};
  }
  const Tensor t = append(op, in, attrs.words(), inferred_);
  if (runtime_->options().eager) {
    const Node node = nodes_.back();
    if (Status s = run_eagerly(node); !s.is_ok()) {
      fail(std::move(s));
      return {};
    }
  }
  return t;
}

Status Graph::run_eagerly(const Node& node) {
  // The key is local to the node, so that the same op at another place in the graph finds the same plan.
  Hash128 key;
  key.mix(tag(*node.op));
  key.mix_list({words_.data() + node.first_word, node.n_words});
  std::vector<uint32_t> order;  // distinct inputs, as extraction meets them
  for (uint32_t id : inputs_of(node)) {
    const auto at = std::find(order.begin(), order.end(), id);
    key.mix(static_cast<uint64_t>(at - order.begin()));
    key.mix(static_cast<uint64_t>(values_[id].type.dtype));
    key.mix_list(values_[id].type.shape);
    if (at == order.end()) order.push_back(id);
  }
  std::vector<uint32_t> roots;
  for (uint32_t i = 0; i < node.n_out; ++i) roots.push_back(node.first_value + i);
  auto plan = runtime_->find_plan(key);
  if (!plan) {
    TN_ASSIGN(plan, Plan::make(*this, roots, {}));
    runtime_->remember_plan(key, plan);
  }
  std::vector<Array> results;
  TN_RETURN_IF_ERROR(plan->run(*this, order, {}, results));
  for (size_t i = 0; i < results.size(); ++i) set_array(node.first_value + static_cast<uint32_t>(i), std::move(results[i]));
  return Status::ok();
}

Result<std::vector<Array>> Graph::eval(std::span<const Tensor> outputs, std::span<const Update> updates) {
  if (!status_.is_ok()) return status_;
  roots_.clear();
  Hash128 key = hash_;
  key.mix(outputs.size());
  for (const Tensor& t : outputs) {
    if (!t.valid()) return internal_error("eval: an output is a null tensor");
    roots_.push_back(t.id());
    key.mix(t.id());
  }
  for (const Update& u : updates) {
    if (!u.value.valid()) return internal_error("eval: the value of an update is a null tensor");
    if (u.target.type() != values_[u.value.id()].type)
      return invalid("eval: an update of " + to_string(u.target.type()) + " was given a value of " +
                     to_string(values_[u.value.id()].type));
    key.mix(u.value.id());
    key.mix(place_of(u.target));
  }
  auto plan = runtime_->find_plan(key);
  if (!plan) {
    TN_ASSIGN(plan, Plan::make(*this, roots_, updates));
    runtime_->remember_plan(key, plan);
  }
  std::vector<Array> results;
  TN_RETURN_IF_ERROR(plan->run(*this, plan->leaf_values(), updates, results));
  return results;
}

Status Graph::materialise(std::span<const Tensor> ts, std::span<const Update> updates) {
  if (!status_.is_ok()) return status_;
  std::vector<Tensor> missing;
  for (const Tensor& t : ts) {
    if (!t.valid()) return internal_error("materialise: a tensor is null");
    if (!has_array(t.id()) && std::find(missing.begin(), missing.end(), t) == missing.end())
      missing.push_back(t);
  }
  ++runtime_->stats().reads;
  if (missing.empty() && updates.empty()) return Status::ok();
  TN_ASSIGN(auto arrays, eval(missing, updates));
  for (size_t i = 0; i < missing.size(); ++i) {
    set_array(missing[i].id(), std::move(arrays[i]));
    hash_.mix(0x6d61746572ull ^ missing[i].id());  // from here on this value is a leaf
  }
  return Status::ok();
}

Result<HostArray> Graph::to_host(Tensor t) {
  TN_RETURN_IF_ERROR(materialise({&t, 1}));
  return array_of(t.id()).to_host();
}

Result<double> Graph::value(Tensor t) {
  TN_ASSIGN(HostArray h, to_host(t));
  if (h.numel() != 1) return invalid("value: the tensor has shape " + to_string(h.shape()) + ", it must hold one element");
  return h.at(0);
}

void write_scalar(const Graph& g, const Graph::Node& n, void* to) {
  const DType dtype = g.value_at(n.first_value).type.dtype;
  const bool constant = n.op == &kConstantOp;
  const Graph::Leaf* leaf = constant ? nullptr : &g.leaves()[static_cast<size_t>(g.leaf_index(n))];
  const double real = constant ? g.attrs_of(n).f("value") : leaf->number;
  const int64_t integer = constant ? saturate<int64_t>(real) : leaf->integer;
  dispatch(dtype, [&](auto t) {
    using T = decltype(t);
    T v;
    if constexpr (std::is_same_v<T, bf16>) v = bf16(static_cast<float>(real));
    else if constexpr (std::is_floating_point_v<T>) v = static_cast<T>(real);
    else v = static_cast<T>(integer);
    std::memcpy(to, &v, sizeof v);
  });
}

}  // namespace tenon
