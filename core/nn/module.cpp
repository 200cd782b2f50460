#include "core/nn/module.h"

#include <algorithm>
#include <map>

#include "core/ops/checkpoint.h"
#include "core/ops/elementwise.h"
#include "core/ops/random.h"
#include "core/ops/shape.h"

namespace tenon::nn {

Tensor Context::stored(const Parameter& p) const {
  const auto it = substitutes_.find(&p);
  return it != substitutes_.end() ? it->second : graph_.input(p.value);
}

Tensor Context::parameter(const Parameter& p) {
  if (!p.effective) return stored(p);
  if (const auto it = effective_.find(&p); it != effective_.end()) return it->second;
  const Tensor t = p.effective(*this, stored(p));
  effective_[&p] = t;
  return t;
}

Tensor Context::state(const Parameter& p) const {
  for (const auto& [state, value] : states_)
    if (state.get() == &p) return value;
  return stored(p);
}

void Context::update(const ParameterPtr& p, Tensor value) {
  for (auto& [state, old] : states_)
    if (state == p) {
      old = value;
      return;
    }
  states_.emplace_back(p, value);
}

std::vector<Update> Context::updates() const {
  std::vector<Update> out;
  for (const auto& [p, value] : states_) out.push_back({p->value, value});
  return out;
}

Tensor Context::operand(Tensor t) const {
  return mixed && t.valid() && t.dtype() == DType::f32 ? cast(t, DType::bf16) : t;
}

Tensor Context::product(Tensor t) const {
  return mixed && t.valid() && t.dtype() == DType::bf16 ? cast(t, DType::f32) : t;
}

Tensor Context::next_key() {
  const uint64_t n = keys_used_++;
  const Tensor key = key_tensor.valid() ? fold_in(key_tensor, static_cast<int64_t>(n)) : graph_.key(split_key(key_, n));
  return repeated ? apart(key, 0) : key;
}

Tensor Context::output_of(std::string_view module_name) const {
  for (auto it = outputs_.rbegin(); it != outputs_.rend(); ++it)
    if (it->first->name() == module_name) return it->second;
  return {};
}

Tensor Module::operator()(Context& ctx, std::span<const Tensor> in) const {
  std::vector<Tensor> changed;
  if (on_input && !in.empty() && in[0].valid()) {
    changed.assign(in.begin(), in.end());
    changed[0] = on_input(ctx, in[0]);
    in = changed;
  }
  const Tensor y = recomputes && ctx.train() ? checkpointed(ctx, in) : forward_(ctx, in);
  ctx.record(*this, y);
  return y;
}

Tensor Module::checkpointed(Context& ctx, std::span<const Tensor> in) const {
  std::vector<Tensor> weights;
  for (const ParameterPtr& p : parameters()) weights.push_back(ctx.parameter(*p));
  Context before = ctx;
  before.repeated = true;
  const auto again = [before, forward = forward_](std::span<const Tensor> xs) {
    Context now = before;
    return forward(now, xs);
  };
  return checkpoint(forward_(ctx, in), again, in, weights);
}

void Module::collect(bool states, std::vector<ParameterPtr>& out) const {
  for (const ParameterPtr& p : owned_)
    if ((p->kind == Kind::state) == states && std::find(out.begin(), out.end(), p) == out.end())
      out.push_back(p);
  for (const ModulePtr& c : children_) c->collect(states, out);
}

std::vector<ParameterPtr> Module::parameters() const {
  std::vector<ParameterPtr> out;
  collect(false, out);
  return out;
}

std::vector<ParameterPtr> Module::states() const {
  std::vector<ParameterPtr> out;
  collect(true, out);
  return out;
}

namespace {

// Whether a tensor of this shape may be made at all: a mistyped size should be an error, not an exhausted
// machine.
bool is_sane(const Shape& shape) {
  constexpr int64_t kMost = int64_t{1} << 32;  // elements of one parameter
  int64_t n = 1;
  for (int64_t d : shape) {
    if (d < 0 || (d > 0 && n > kMost / d)) return false;
    n *= d;
  }
  return true;
}

}  // namespace

struct Builder::Shared {
  Shared(Runtime& r, const BuildOptions& o) : graph(r), options(o) {}
  Graph graph;  // scratch: shapes are inferred by building each layer's graph on zeros
  BuildOptions options;
  Status status;
  std::map<std::string, ParameterPtr> parameters;
};

Builder::Builder(Runtime& runtime, const BuildOptions& options)
    : shared_(std::make_shared<Shared>(runtime, options)) {}

std::string Builder::path_of(std::string_view name) const {
  return path_.empty() ? std::string(name) : path_ + "." + std::string(name);
}

Builder Builder::child(std::string_view name) const {
  Builder b = *this;
  b.path_ = path_of(name);
  return b;
}

DType Builder::dtype() const { return shared_->options.dtype; }
const Status& Builder::status() const { return shared_->status; }

ParameterPtr Builder::parameter(std::string_view name, const Shape& shape, const Initializer& init,
                                Kind kind) const {
  return parameter(name, shape, init, kind, fan_of(shape));
}

ParameterPtr Builder::parameter(std::string_view name, const Shape& shape, const Initializer& init, Kind kind,
                                Fan fan) const {
  const std::string full_name = path_of(name);
  auto p = shared_->options.share ? shared_->options.share(full_name) : nullptr;
  if (p && p->value.type() != TensorType{dtype(), shape}) {
    fail("shared", "'" + p->name + "' is " + to_string(p->value.type()) + ", but here it must be " +
                       to_string(TensorType{dtype(), shape}));
  } else if (!p) {
    p = std::make_shared<Parameter>();
    p->name = full_name;
    p->kind = kind;
    p->trainable = kind != Kind::state;
    if (!is_sane(shape))
      fail("parameter", "'" + full_name + "' would be " + to_string(shape) + ", which is too large");
    if (!status().is_ok()) return p;
    HostArray values(dtype(), shape);
    Philox rng(shared_->options.seed, full_name);
    init(values, fan, rng);
    auto array = Array::from_host(shared_->graph.backend(), values);
    if (array.is_ok())
      p->value = *array;
    else
      shared_->status = std::move(array).status().at("parameter '" + full_name + "'");
  }
  if (!shared_->parameters.emplace(full_name, p).second)
    fail("parameter", "another one is called '" + full_name + "'; give the layers different names");
  return p;
}

ParameterPtr Builder::state(std::string_view name, const Shape& shape, double value) const {
  return parameter(name, shape, init::constant(value), Kind::state);
}

ParameterPtr Builder::find(const std::string& full_name) const {
  const auto it = shared_->parameters.find(full_name);
  return it != shared_->parameters.end() ? it->second : nullptr;
}

std::vector<std::string> Builder::parameter_names() const {
  std::vector<std::string> names;
  for (const auto& [name, p] : shared_->parameters) names.push_back(name);
  return names;
}

std::optional<TensorType> Builder::infer(const Module& m, std::span<const TensorType> in) const {
  if (!shared_->status.is_ok()) return std::nullopt;
  Graph& g = shared_->graph;
  std::vector<Tensor> samples;
  for (const TensorType& t : in) samples.push_back(zeros(g, t.shape, t.dtype));
  Context ctx(g, false);
  const Tensor y = m(ctx, samples);
  if (!y.valid()) {
    fail(m.type(), g.status().is_ok() ? "the layer gave no output" : g.status().message());
    return std::nullopt;
  }
  const TensorType type{y.dtype(), y.shape()};
  g.reset();
  return type;
}

ModulePtr Builder::fail(std::string_view type, std::string_view message) const {
  if (shared_->status.is_ok())
    shared_->status = invalid((path_.empty() ? "model" : "layer '" + path_ + "'") + " (" + std::string(type) +
                              "): " + std::string(message));
  return nullptr;
}

int64_t Model::parameter_count() const {
  int64_t n = 0;
  for (const ParameterPtr& p : parameters) n += p->value.shape().numel();
  return n;
}

void Model::freeze() {
  for (const ParameterPtr& p : parameters) p->trainable = false;
}

Result<Model> build(Runtime& runtime, const Layer& layer, std::vector<TensorType> inputs,
                    BuildOptions options) {
  if (!is_floating(options.dtype)) return invalid("a model's parameters must be f32, f64 or bf16");
  Builder builder(runtime, options);
  Model model;
  model.root = layer.make(builder, inputs);
  TN_RETURN_IF_ERROR(builder.status());
  if (!model.root) return internal_error("the layer '" + layer.type + "' built no module and gave no reason");
  const auto output = builder.infer(*model.root, inputs);
  TN_RETURN_IF_ERROR(builder.status());
  model.output = *output;
  model.inputs = std::move(inputs);
  model.parameters = model.root->parameters();
  model.states = model.root->states();
  return model;
}

}  // namespace tenon::nn
