#include "core/plugin/instance.h"

#include <algorithm>
#include <cstring>

#include "core/ops/elementwise.h"

namespace tenon {
namespace {

std::string class_name(int32_t c) {
  return c == TN_CLASS_FLOATING ? "a floating" : c == TN_CLASS_INTEGER ? "an integer" : "a boolean";
}

bool fits_class(int32_t c, DType t) {
  switch (c) {
    case TN_CLASS_FLOATING: return is_floating(t);
    case TN_CLASS_INTEGER: return is_integer(t);
    case TN_CLASS_BOOLEAN: return t == DType::boolean;
    default: return true;
  }
}

std::string ranks_text(uint32_t ranks) {
  std::string s;
  for (int r = 0; r <= TN_MAX_RANK; ++r)
    if (ranks & TN_RANK(r)) s += (s.empty() ? "" : " or ") + std::to_string(r);
  return s;
}

}  // namespace

Instance::Instance() : kept_generation(next_generation()) {}

std::string Instance::second_order_refusal() const {
  const bool said = TN_HAS(descriptor_, second_order_reason);
  return who() + ": it can be differentiated once only" + (said ? ": " + std::string(descriptor_->second_order_reason) : "");
}

std::string Instance::who() const { return short_kind(descriptor_->kind) + " '" + name_ + "'"; }

Result<std::unique_ptr<Instance>> Instance::create(Catalog& catalog, std::string_view kind, const std::string& id,
                                                   const std::string& name, const Options& options) {
  TN_ASSIGN(const tn_descriptor* d, catalog.find(kind, id));
  std::unique_ptr<Instance> inst(new Instance());
  inst->descriptor_ = d;
  inst->host_ = &catalog.host();
  inst->name_ = name.empty() ? id : name;
  TN_ASSIGN(inst->options_, PluginOptions::check(inst->who(), TN_COVERS(d, n_roles) ? d->options : nullptr,
                                                 TN_COVERS(d, n_roles) ? d->n_options : 0, options));
  if (TN_HAS(d, create)) {
    Call call(*inst, nullptr, {});
    const int32_t code = guarded(call, [&] { return d->create(call.ctx(), &inst->pointer_); });
    TN_RETURN_IF_ERROR(call.outcome(code));
    inst->created_ = true;
  }
  return inst;
}

Result<std::unique_ptr<Instance>> Instance::for_probe(Catalog& catalog, const tn_descriptor& d, const tn_probe& probe, const Options& options) {
  std::unique_ptr<Instance> inst(new Instance());
  inst->descriptor_ = &d;
  inst->host_ = &catalog.host();
  inst->name_ = std::string(d.id) + "/" + probe.name;
  TN_ASSIGN(inst->options_, PluginOptions::check(inst->who(), probe.options, probe.n_options, options));
  return inst;
}

Instance::~Instance() {
  if (created_ && TN_HAS(descriptor_, destroy)) descriptor_->destroy(pointer_);
}

Result<std::vector<NamedTensor>> Instance::arrange(std::span<const NamedTensor> inputs) const {
  std::vector<NamedTensor> out, many;
  const uint32_t n = TN_COVERS(descriptor_, n_roles) ? descriptor_->n_roles : 0;
  for (uint32_t i = 0; i < n; ++i) {
    const tn_role& r = *descriptor_->roles[i];
    const bool repeated = (r.flags & TN_ROLE_MANY) != 0;
    std::vector<NamedTensor> found;
    for (const NamedTensor& in : inputs) {
      const bool match = in.name == r.name || (repeated && in.name.starts_with(r.name) && in.name.size() > std::string_view(r.name).size() &&
                                               std::all_of(in.name.begin() + static_cast<std::ptrdiff_t>(std::string_view(r.name).size()), in.name.end(),
                                                           [](char c) { return c >= '0' && c <= '9'; }));
      if (!match || !in.value.valid()) continue;
      const bool constant = (r.flags & TN_ROLE_CONSTANT) && is_floating(in.value.dtype());
      found.push_back({in.name, constant ? stop_gradient(in.value) : in.value});
    }
    const auto help = [&] { return TN_HAS(&r, help) ? " (" + std::string(r.help) + ")" : ""; };
    const auto role = [&] { return who() + ": role '" + std::string(r.name) + "'"; };
    if (found.empty() && !(r.flags & TN_ROLE_OPTIONAL)) return invalid(role() + help() + " is not bound to anything");
    for (const NamedTensor& f : found) {
      const auto refuse = [&](const std::string& wanted) {
        return invalid(role() + " is bound to a tensor of " + to_string(TensorType{f.value.dtype(), f.value.shape()}) +
                       "; it wants " + wanted + help());
      };
      if (TN_COVERS(&r, dtype_class) && !fits_class(r.dtype_class, f.value.dtype())) return refuse(class_name(r.dtype_class) + " type");
      if (TN_HAS(&r, ranks) && !(r.ranks & TN_RANK(f.value.rank()))) return refuse("rank " + ranks_text(r.ranks));
    }
    if (repeated) many.insert(many.end(), found.begin(), found.end());
    else out.push_back({r.name, found.empty() ? Tensor{} : found[0].value});
  }
  out.insert(out.end(), many.begin(), many.end());
  return out;
}

namespace {

std::vector<tn_named> named(Call& call, std::span<const NamedTensor> in) {
  std::vector<tn_named> out;
  for (const NamedTensor& t : in) out.push_back({t.name.c_str(), call.handle(t.value)});
  return out;
}

}  // namespace

Result<Emissions> Instance::init(Graph& graph, const CallInfo& info, std::span<const NamedTensor> inputs, ModelService* models) {
  const auto* hooks = extension<tn_hooks>(TN_EXT_HOOKS);
  if (!hooks || !TN_HAS(hooks, init)) {
    initialised_ = true;
    return Emissions{};
  }
  Call call(*this, &graph, info, models);
  const auto in = named(call, inputs);
  declaring = true;
  const int32_t code = guarded(call, [&] { return hooks->init(pointer_, call.ctx(), in.data(), static_cast<uint32_t>(in.size())); });
  declaring = false;
  TN_RETURN_IF_ERROR(call.outcome(code));
  initialised_ = true;
  return std::move(call.emitted);
}

Status Instance::on_epoch(Graph& graph, const CallInfo& info, ModelService* models) {
  const auto* hooks = extension<tn_hooks>(TN_EXT_HOOKS);
  if (!hooks || !TN_HAS(hooks, on_epoch)) return Status::ok();
  Call call(*this, &graph, info, models);
  return call.outcome(guarded(call, [&] { return hooks->on_epoch(pointer_, call.ctx()); }));
}

Result<Emissions> Instance::after_step(Graph& graph, const CallInfo& info, ModelService* models) {
  const auto* hooks = extension<tn_hooks>(TN_EXT_HOOKS);
  if (!hooks || !TN_HAS(hooks, after_step)) return Emissions{};
  Call call(*this, &graph, info, models);
  TN_RETURN_IF_ERROR(call.outcome(guarded(call, [&] { return hooks->after_step(pointer_, call.ctx()); })));
  return std::move(call.emitted);
}

Status Instance::Initial::write_to(Array& array) const {
  if (values) return array.assign(*values);
  if (fill == 0) return array.buffer()->backend().zero(array.data(), array.size_bytes());
  HostArray h(type.dtype, type.shape);
  for (int64_t i = 0; i < h.numel(); ++i) h.set(i, fill);
  return array.assign(h);
}

Status Instance::declare(Call& call, const tn_slot& s) {
  if (!declaring) return invalid("slots are declared in init only");
  if (!TN_HAS(&s, name)) return invalid("a slot has no name");
  const std::string what = "slot '" + std::string(s.name) + "'";
  const auto known = slots_.find(s.name);
  if (known != slots_.end() && !initialised_) return invalid(what + " is declared twice");
  if (s.rank < 0 || s.rank > TN_MAX_RANK || (s.rank > 0 && s.kind != TN_SLOT_PER_PARAM && !s.shape))
    return invalid(what + " has rank " + std::to_string(s.rank));
  Backend& backend = call.graph->backend();
  Slot slot{.kind = s.kind, .saved = !(s.flags & TN_SLOT_FLAG_NOT_SAVED), .values = {}, .initial = {}, .pending = {}, .trainable = {}, .group = {},
            .lr_scale = TN_COVERS(&s, lr_scale) && s.lr_scale != 0 ? s.lr_scale : 1, .no_decay = (s.flags & TN_SLOT_FLAG_NO_DECAY) != 0};
  if (TN_HAS(&s, group)) slot.group = s.group;
  DType dtype = DType::f32;
  if (s.dtype != 0) {
    TN_ASSIGN(dtype, dtype_from_abi(s.dtype));
  }
  std::vector<Initial> initial;
  if (s.kind == TN_SLOT_PER_PARAM) {
    for (const Array& p : slot_params) {
      if (s.flags & TN_SLOT_FLAG_FROM_PARAM) {
        TN_ASSIGN(HostArray h, p.to_host());
        initial.push_back({.type = p.type(), .values = std::move(h)});
      } else {
        initial.push_back({.type = {s.dtype == 0 ? p.dtype() : dtype, p.shape()}, .fill = s.initial});
      }
    }
  } else {
    Shape shape;
    if (s.kind == TN_SLOT_TABLE) shape.push_back(table_rows);
    for (int i = 0; i < s.rank; ++i) shape.push_back(s.shape[i]);
    if (s.initial_tensor != TN_NULL) {
      const Tensor t = call.tensor(s.initial_tensor);
      if (!t.valid()) return call.status();
      TN_ASSIGN(HostArray h, call.graph->to_host(t));
      if (h.dtype() != dtype || h.shape() != shape)
        return invalid(what + " is " + to_string(TensorType{dtype, shape}) + ", its initial value " + to_string(TensorType{h.dtype(), h.shape()}));
      initial.push_back({.type = {dtype, shape}, .values = std::move(h)});
    } else {
      initial.push_back({.type = {dtype, shape}, .fill = s.initial});
    }
  }
  if (known != slots_.end()) {  // init again, for another weight of a shared parametrization: the slot is kept
    const TensorType was = known->second.values[0].type();
    return initial[0].type == was ? Status::ok()
                                  : invalid(what + " is " + to_string(was) + " for one weight and " + to_string(initial[0].type) +
                                            " for another: it can't be shared by them");
  }
  for (const Initial& first : initial) {
    TN_ASSIGN(Array a, Array::allocate(backend, first.type.dtype, first.type.shape));
    TN_RETURN_IF_ERROR(first.write_to(a));
    if (s.kind == TN_SLOT_TRAINABLE)
      slot.trainable.push_back(std::make_shared<nn::Parameter>(nn::Parameter{name_ + "." + s.name, a, nn::Kind::weight, true}));
    slot.values.push_back(std::move(a));
  }
  slot.initial = std::move(initial);
  slot.pending.resize(slot.values.size());
  slots_.emplace(s.name, std::move(slot));
  return Status::ok();
}

Tensor Instance::get(Call& call, const std::string& slot_name, uint32_t index) {
  const auto it = slots_.find(slot_name);
  if (it == slots_.end() || index >= it->second.values.size()) {
    call.fail(not_found("slot '" + slot_name + "'" + (it == slots_.end() ? " was not declared" : " has no index " + std::to_string(index))));
    return {};
  }
  Slot& s = it->second;
  if (s.pending[index].valid()) return s.pending[index];
  return call.graph->input(s.kind == TN_SLOT_TRAINABLE ? s.trainable[index]->value : s.values[index]);
}

Status Instance::set(Call& call, const std::string& slot_name, uint32_t index, Tensor value) {
  const auto it = slots_.find(slot_name);
  if (it == slots_.end() || index >= it->second.values.size()) return not_found("slot '" + slot_name + "' was not declared, or has no index " + std::to_string(index));
  const TensorType type = it->second.values[index].type();
  if (value.dtype() != type.dtype || value.shape() != type.shape)
    return invalid("slot '" + slot_name + "' is " + to_string(type) + ", the new value " + to_string(TensorType{value.dtype(), value.shape()}));
  if (call.info.train && !call.info.replay) it->second.pending[index] = value;
  return Status::ok();
}

Status Instance::reset(const std::string& slot_name) {
  if (!slot_name.empty() && !slots_.contains(slot_name)) return not_found("slot '" + slot_name + "' was not declared");
  for (auto& [n, s] : slots_) {
    if (!slot_name.empty() && n != slot_name) continue;
    for (size_t i = 0; i < s.values.size(); ++i) {
      Array& a = s.kind == TN_SLOT_TRAINABLE ? s.trainable[i]->value : s.values[i];
      TN_RETURN_IF_ERROR(s.initial[i].write_to(a));
      s.pending[i] = Tensor{};
    }
  }
  return Status::ok();
}

std::vector<Update> Instance::take_updates() {
  std::vector<Update> out;
  for (auto& [n, s] : slots_)
    for (size_t i = 0; i < s.pending.size(); ++i)
      if (s.pending[i].valid())
        out.push_back({s.kind == TN_SLOT_TRAINABLE ? s.trainable[i]->value : s.values[i], s.pending[i]});
  forget_step();
  return out;
}

void Instance::forget_step() {
  for (auto& [n, s] : slots_) std::fill(s.pending.begin(), s.pending.end(), Tensor{});
  kept.clear();
  kept_generation = next_generation();
}

namespace {

// The bytes of a checkpoint behind a tn_stream.
struct ByteStream {
  std::string data;
  size_t at = 0;
  tn_stream table{};

  ByteStream() {
    table.struct_size = sizeof table;
    table.self = this;
    table.read = [](const tn_stream* s, void* to, uint64_t n) -> int32_t {
      auto& b = *static_cast<ByteStream*>(s->self);
      if (n > b.data.size() - b.at) return TN_STATUS_INVALID;
      std::memcpy(to, b.data.data() + b.at, n);
      b.at += n;
      return TN_STATUS_OK;
    };
    table.write = [](const tn_stream* s, const void* from, uint64_t n) -> int32_t {
      static_cast<ByteStream*>(s->self)->data.append(static_cast<const char*>(from), n);
      return TN_STATUS_OK;
    };
  }
};

}  // namespace

Result<std::string> Instance::save_bytes() {
  const auto* api = extension<tn_bytes>(TN_EXT_BYTES);
  if (!api || !TN_HAS(api, save)) return std::string();
  ByteStream stream;
  const uint32_t version = api->version;
  stream.data.assign(reinterpret_cast<const char*>(&version), sizeof version);
  Call call(*this, nullptr, {});
  TN_RETURN_IF_ERROR(call.outcome(guarded(call, [&] { return api->save(pointer_, call.ctx(), &stream.table); })));
  return std::move(stream.data);
}

Status Instance::load_bytes(const std::string& bytes) {
  const auto* api = extension<tn_bytes>(TN_EXT_BYTES);
  if (!api || !TN_HAS(api, load)) return Status::ok();
  uint32_t version = 0;
  if (bytes.size() < sizeof version) return invalid(who() + ": the checkpoint holds no state for it");
  std::memcpy(&version, bytes.data(), sizeof version);
  ByteStream stream;
  stream.data = bytes.substr(sizeof version);
  Call call(*this, nullptr, {});
  return call.outcome(guarded(call, [&] { return api->load(pointer_, call.ctx(), version, &stream.table, stream.data.size()); }));
}

std::vector<Instance::Trainable> Instance::trainable_parameters() const {
  std::vector<Trainable> out;
  for (const auto& [n, s] : slots_)
    for (const nn::ParameterPtr& p : s.trainable) out.push_back({p, s.group, s.lr_scale, s.no_decay});
  return out;
}

std::vector<std::pair<std::string, Array>> Instance::saved_slots() const {
  std::vector<std::pair<std::string, Array>> out;
  for (const auto& [n, s] : slots_)
    for (size_t i = 0; s.saved && i < s.values.size(); ++i)
      out.emplace_back(s.kind == TN_SLOT_PER_PARAM ? n + "." + std::to_string(i) : n,
                       s.kind == TN_SLOT_TRAINABLE ? s.trainable[i]->value : s.values[i]);
  return out;
}

}  // namespace tenon
