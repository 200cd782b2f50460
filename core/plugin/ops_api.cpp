// "tenon.ops/1": the engine's operations for plugins, by id and with named attributes.
#include <array>
#include <bit>
#include <cstring>

#include "core/graph/grad.h"
#include "core/ops/elementwise.h"
#include "core/plugin/host.h"
#include "core/plugin/instance.h"
#include "core/plugin/kernel.h"
#include "core/plugin/views.h"

namespace tenon {
namespace {

// Every function of the table that builds needs a graph; outside one it records why.
bool building(Call& call, const char* what) {
  if (call.graph) return call.is_ok();
  call.fail(invalid(std::string(what) + ": tensors can only be made while a graph is being built"));
  return false;
}

const tn_op* find(const tn_host* host, const char* id) {
  if (!id) return nullptr;
  if (const OpDef* op = find_op(id)) return reinterpret_cast<const tn_op*>(op);
  const auto& hooks = *static_cast<const HostHooks*>(host->self);
  return hooks.find_op ? static_cast<const tn_op*>(hooks.find_op(id)) : nullptr;
}

std::string words(const OpDef& op, std::string_view name) {
  return std::string(op.name()) + ": attribute '" + std::string(name) + "' ";
}

// Named attributes into the op's own order; those left out take their defaults.
Result<AttrList> attributes(const OpDef& op, const tn_attr* attrs, uint32_t n) {
  AttrList list;
  std::array<bool, 64> used{};
  if (n > used.size()) return invalid(std::string(op.name()) + ": got " + std::to_string(n) + " attributes");
  for (const AttrSpec& spec : op.attrs) {
    const tn_value* v = nullptr;
    for (uint32_t i = 0; i < n; ++i)
      if (attrs[i].name && spec.name == attrs[i].name) v = &attrs[i].value, used[i] = true;
    if (!v) {
      if (spec.required) return invalid(words(op, spec.name) + "is required");
      if (spec.kind == AttrKind::i64) list.i(spec.i);
      else if (spec.kind == AttrKind::f64) list.f(spec.f);
      else list.ints({});
      continue;
    }
    const bool number = v->type == TN_VALUE_I64 || v->type == TN_VALUE_BOOL;
    switch (spec.kind) {
      case AttrKind::i64:
        if (!number) return invalid(words(op, spec.name) + "must be an integer");
        if (spec.name == "dtype") {
          TN_ASSIGN(const DType t, dtype_from_abi(v->as.i64));
          list.i(static_cast<int64_t>(t));
        } else {
          list.i(v->as.i64);
        }
        break;
      case AttrKind::f64:
        if (v->type != TN_VALUE_F64 && !number) return invalid(words(op, spec.name) + "must be a number");
        list.f(number ? static_cast<double>(v->as.i64) : v->as.f64);
        break;
      case AttrKind::ints:
        if (v->type == TN_VALUE_I64) list.ints({&v->as.i64, 1});
        else if (v->type == TN_VALUE_I64S && v->count <= kMaxRank) list.ints({v->as.i64s, v->count});
        else return invalid(words(op, spec.name) + "must be a list of at most 8 integers");
        break;
    }
  }
  for (uint32_t i = 0; i < n; ++i)
    if (!used[i]) return invalid(words(op, attrs[i].name ? attrs[i].name : "(null)") + "is not one of this op");
  return list;
}

int32_t apply(tn_ctx* ctx, const tn_op* op, const tn_tensor* in, uint32_t n_in, const tn_attr* attrs, uint32_t n_attrs,
              tn_tensor* out, uint32_t n_out) {
  Call& call = Call::of(ctx);
  for (uint32_t i = 0; i < n_out; ++i) out[i] = TN_NULL;
  if (!building(call, "apply")) return to_abi(call.status());
  if (!op) return call.fail(not_found("apply: an op that this host does not have"));
  const OpDef& def = *reinterpret_cast<const OpDef*>(op);
  if (n_out > static_cast<uint32_t>(def.n_out))
    return call.fail(invalid(std::string(def.name()) + ": has " + std::to_string(def.n_out) + " outputs, " + std::to_string(n_out) + " were asked for"));
  std::array<Tensor, 8> few;  // spares an allocation for all but joins of many
  std::vector<Tensor> many(n_in > few.size() ? n_in : 0);
  const std::span<Tensor> inputs = many.empty() ? std::span<Tensor>(few).first(n_in) : std::span<Tensor>(many);
  for (uint32_t i = 0; i < n_in; ++i) {
    inputs[i] = call.tensor(in[i]);
    if (!inputs[i].valid())
      return call.status().is_ok() ? call.fail(invalid(std::string(def.name()) + ": input " + std::to_string(i) + " is null")) : to_abi(call.status());
  }
  if (KernelOps::owns(def)) {
    auto results = KernelOps::apply(*call.graph, def, inputs, options_of(attrs, n_attrs));
    if (!results) return call.fail(results.status());
    for (uint32_t i = 0; i < n_out; ++i) out[i] = call.handle((*results)[i]);
    return to_abi(call.status());
  }
  auto list = attributes(def, attrs, n_attrs);
  if (!list) return call.fail(list.status());
  const Tensor first = call.graph->apply(def, inputs, *list);
  if (!first.valid()) return to_abi(call.status());
  for (uint32_t i = 0; i < n_out; ++i) out[i] = call.handle(first.output(static_cast<int>(i)));
  return TN_STATUS_OK;
}

tn_tensor make_number(tn_ctx* ctx, double value, tn_dtype dtype, bool structural) {
  Call& call = Call::of(ctx);
  if (!building(call, structural ? "constant" : "scalar")) return TN_NULL;
  auto t = dtype_from_abi(dtype == 0 ? TN_F32 : dtype);
  if (!t) {
    call.fail(t.status());
    return TN_NULL;
  }
  return call.handle(structural ? call.graph->constant(value, *t) : call.graph->scalar(value, *t));
}
tn_tensor scalar(tn_ctx* ctx, double value, tn_dtype t) { return make_number(ctx, value, t, false); }
tn_tensor constant(tn_ctx* ctx, double value, tn_dtype t) { return make_number(ctx, value, t, true); }

tn_tensor from_host(tn_ctx* ctx, const tn_view* v) {
  Call& call = Call::of(ctx);
  if (!building(call, "from_host")) return TN_NULL;
  auto host = host_array(v);
  if (!host) {
    call.fail(std::move(host).status().at("from_host"));
    return TN_NULL;
  }
  auto array = Array::from_host(call.graph->backend(), *host);
  if (!array) {
    call.fail(array.status());
    return TN_NULL;
  }
  return call.handle(call.graph->input(*array));
}

int32_t type(tn_ctx* ctx, tn_tensor h, tn_type* out) {
  Call& call = Call::of(ctx);
  const Tensor t = call.tensor(h);
  if (!t.valid())
    return call.status().is_ok() ? call.fail(invalid("type: the tensor is null")) : to_abi(call.status());
  out->dtype = to_abi(t.dtype());
  out->rank = t.rank();
  for (int i = 0; i < t.rank(); ++i) out->shape[i] = t.dim(i);
  return TN_STATUS_OK;
}

int32_t grad_of(tn_ctx* ctx, tn_tensor y, tn_tensor seed, const tn_tensor* xs, uint32_t n, tn_tensor* out) {
  Call& call = Call::of(ctx);
  for (uint32_t i = 0; i < n; ++i) out[i] = TN_NULL;
  if (!building(call, "grad")) return to_abi(call.status());
  std::vector<Tensor> inputs;
  for (uint32_t i = 0; i < n; ++i) inputs.push_back(call.tensor(xs[i]));
  const Tensor ty = call.tensor(y), ts = call.tensor(seed);
  if (!ty.valid() || std::any_of(inputs.begin(), inputs.end(), [](Tensor t) { return !t.valid(); }))
    return call.status().is_ok() ? call.fail(invalid("grad: an argument is null")) : to_abi(call.status());
  const auto grads = grad(ty, inputs, ts);
  for (uint32_t i = 0; i < n; ++i) out[i] = call.handle(grads[i]);
  return to_abi(call.status());
}

tn_tensor custom(tn_ctx* ctx, tn_tensor y, const tn_tensor* xs, uint32_t n, tn_vjp_fn fn, const void* user, uint64_t bytes) {
  Call& call = Call::of(ctx);
  if (!building(call, "custom_gradient")) return TN_NULL;
  std::vector<Tensor> inputs;
  for (uint32_t i = 0; i < n; ++i) inputs.push_back(call.tensor(xs[i]));
  const Tensor ty = call.tensor(y);
  if (!ty.valid() || !call.status().is_ok()) return TN_NULL;
  std::vector<std::byte> copy(bytes);
  if (bytes > 0) std::memcpy(copy.data(), user, bytes);
  // Called when a derivative is built: later, but in the same step, while the instance lives.
  auto vjp = [copy, inputs, ty, fn, instance = &call.instance, graph = call.graph, info = call.info,
              models = call.models](Tensor cotangent) {
    Call later(*instance, graph, info, models);
    std::vector<tn_tensor> in, out(inputs.size(), TN_NULL);
    for (const Tensor& t : inputs) in.push_back(later.handle(t));
    const int32_t code = guarded(later, [&] {
      return fn(copy.data(), later.ctx(), later.handle(ty), in.data(), static_cast<uint32_t>(in.size()), later.handle(cotangent), out.data());
    });
    std::vector<Tensor> grads;
    for (tn_tensor h : out) grads.push_back(later.tensor(h));
    if (Status s = later.outcome(code); !s.is_ok()) graph->fail(std::move(s));
    return grads;
  };
  return call.handle(custom_gradient(ty, inputs, std::move(vjp)));
}

int32_t value(tn_ctx* ctx, tn_tensor h, double* out) {
  Call& call = Call::of(ctx);
  if (!building(call, "value")) return to_abi(call.status());
  const Tensor t = call.tensor(h);
  if (!call.status().is_ok()) return to_abi(call.status());
  auto v = call.graph->value(t);
  if (!v) return call.fail(v.status());
  *out = *v;
  return TN_STATUS_OK;
}

int32_t to_host(tn_ctx* ctx, tn_tensor h, void* to, uint64_t bytes) {
  Call& call = Call::of(ctx);
  if (!building(call, "to_host")) return to_abi(call.status());
  const Tensor t = call.tensor(h);
  if (!call.status().is_ok()) return to_abi(call.status());
  auto host = call.graph->to_host(t);
  if (!host) return call.fail(host.status());
  if (host->size_bytes() != bytes)
    return call.fail(invalid("to_host: the tensor has " + std::to_string(host->size_bytes()) + " bytes, the buffer " + std::to_string(bytes)));
  if (bytes > 0) std::memcpy(to, host->data(), bytes);
  return TN_STATUS_OK;
}

int32_t materialize(tn_ctx* ctx, const tn_tensor* hs, uint32_t n) {
  Call& call = Call::of(ctx);
  if (!building(call, "materialize")) return to_abi(call.status());
  std::vector<Tensor> ts;
  for (uint32_t i = 0; i < n; ++i) ts.push_back(call.tensor(hs[i]));
  if (!call.status().is_ok()) return to_abi(call.status());
  return call.fail(call.graph->materialise(ts));
}

tn_tensor keep(tn_ctx* ctx, tn_tensor h) {
  Call& call = Call::of(ctx);
  return call.keep(call.tensor(h));
}

int32_t emit(tn_ctx* ctx, const char* name, tn_tensor h, int32_t as) {
  Call& call = Call::of(ctx);
  const Tensor t = call.tensor(h);
  if (!name) return call.fail(invalid("emit: the name is null"));
  if (!t.valid()) return call.status().is_ok() ? call.fail(invalid("emit: '" + std::string(name) + "' is a null tensor")) : to_abi(call.status());
  for (const Emitted& e : call.emitted.tensors)
    if (e.name == name) return call.fail(invalid("emit: '" + std::string(name) + "' was emitted before"));
  call.emitted.tensors.push_back({name, t, as});
  return TN_STATUS_OK;
}

int32_t emit_value(tn_ctx* ctx, const char* name, const tn_value* v) {
  Call& call = Call::of(ctx);
  if (!name || !v) return call.fail(invalid("emit_value: the name or value is null"));
  EmittedValue value;
  switch (v->type) {
    case TN_VALUE_BOOL:
    case TN_VALUE_I64: value = v->as.i64; break;
    case TN_VALUE_F64: value = v->as.f64; break;
    case TN_VALUE_STR:
    case TN_VALUE_JSON: value = std::string(v->as.str, v->count); break;
    case TN_VALUE_I64S: value = std::vector<int64_t>(v->as.i64s, v->as.i64s + v->count); break;
    case TN_VALUE_F64S: value = std::vector<double>(v->as.f64s, v->as.f64s + v->count); break;
    default: return call.fail(invalid("emit_value: '" + std::string(name) + "' is neither a number, a list of numbers nor text"));
  }
  call.emitted.values.emplace_back(name, std::move(value));
  return TN_STATUS_OK;
}

int32_t fail(tn_ctx* ctx, int32_t code, const char* message) {
  Call::of(ctx).fail(from_abi(code, message ? message : "the plugin failed without a message"));
  return code;
}

int32_t status(const tn_ctx* ctx) { return to_abi(Call::of(ctx).status()); }

constexpr tn_ops kOps = {sizeof(tn_ops), 0,     find,        apply, scalar,     constant, from_host, type, grad_of,
                         custom,         value, to_host,     materialize, keep, emit,     emit_value, fail, status};

}  // namespace

const tn_ops& ops_table() { return kOps; }

}  // namespace tenon
