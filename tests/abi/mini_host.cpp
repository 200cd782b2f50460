#include "tests/abi/mini_host.h"

#include <dlfcn.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

namespace abi_test {

// The C functions of the tables; `self` of ctx and host is the MiniHost.
struct MiniCalls {
  static MiniHost& of(const tn_ctx* c) { return *static_cast<MiniHost*>(c->self); }
  static MiniHost& of(const tn_host* h) { return *static_cast<MiniHost*>(h->self); }

  static const void* get_extension(const tn_host* h, const char* id) {
    if (!std::strcmp(id, TN_EXT_OPS)) return &of(h).ops_;
    if (!std::strcmp(id, TN_EXT_STATE)) return &of(h).state_;
    return nullptr;
  }
  static void log(const tn_host*, int32_t, const char*) {}
  static void* alloc(const tn_host*, uint64_t n) { return std::malloc(n); }
  static void release(const tn_host*, void* p) { std::free(p); }
  static int32_t cancelled(const tn_host*) { return 0; }

  static const tn_op* find(const tn_host* h, const char* id) {
    MiniHost& m = of(h);
    if (!find_op(id) || std::count(m.hidden_ops_.begin(), m.hidden_ops_.end(), id)) return nullptr;
    auto& name = m.op_names_[id];
    if (!name) name = std::make_unique<std::string>(id);
    return reinterpret_cast<const tn_op*>(name.get());
  }
  static int32_t fail(tn_ctx* c, int32_t code, const char* message) {
    Outcome& o = of(c).outcome_;
    if (o.code == TN_STATUS_OK) o.code = code, o.message = message;
    return code;
  }
  static int32_t status(const tn_ctx* c) { return of(c).outcome_.code; }
  static int32_t apply(tn_ctx* c, const tn_op* op, const tn_tensor* in, uint32_t n_in, const tn_attr* attrs,
                       uint32_t n_attrs, tn_tensor* out, uint32_t n_out) {
    MiniHost& m = of(c);
    for (uint32_t i = 0; i < n_out; ++i) out[i] = TN_NULL;
    if (!op) return fail(c, TN_STATUS_UNSUPPORTED, "no such op");
    const std::string& id = *reinterpret_cast<const std::string*>(op);
    std::vector<Value> inputs;
    for (uint32_t i = 0; i < n_in; ++i) {
      if (in[i] == TN_NULL) return status(c);
      if (!m.valid(in[i])) return fail(c, TN_STATUS_STATE, "a handle that is out of scope");
      inputs.push_back(m.value(in[i]));
    }
    Attributes a;
    for (uint32_t i = 0; i < n_attrs; ++i) a.values[attrs[i].name] = attrs[i].value;
    try {
      const auto results = find_op(id)(id.substr(0, id.find('/')), inputs, a);
      for (uint32_t i = 0; i < n_out; ++i) out[i] = m.add(results.at(i));
    } catch (const std::exception& e) {
      return fail(c, TN_STATUS_INVALID, (id + ": " + e.what()).c_str());
    }
    ++m.applied;
    m.runtime_structure.push_back(id);
    return TN_STATUS_OK;
  }
  static tn_tensor scalar(tn_ctx* c, double v, tn_dtype t) { return of(c).add({t, {}, {v}}); }
  static tn_tensor from_host(tn_ctx* c, const tn_view* v) {
    Value x{v->dtype, Shape(v->shape, v->shape + v->rank), {}};
    if (v->dtype != TN_F64) return fail(c, TN_STATUS_UNSUPPORTED, "from_host: f64 only"), TN_NULL;
    x.data.assign(static_cast<const double*>(v->data), static_cast<const double*>(v->data) + numel(x.shape));
    return of(c).add(x);
  }
  static int32_t type(tn_ctx* c, tn_tensor t, tn_type* out) {
    MiniHost& m = of(c);
    if (t == TN_NULL) return status(c);
    if (!m.valid(t)) return fail(c, TN_STATUS_STATE, "a handle that is out of scope");
    const Value& v = m.values_[m.index_of(t)];
    out->dtype = v.dtype;
    out->rank = static_cast<int32_t>(v.shape.size());
    std::copy(v.shape.begin(), v.shape.end(), out->shape);
    return TN_STATUS_OK;
  }
  static int32_t emit(tn_ctx* c, const char* name, tn_tensor t, int32_t as) {
    MiniHost& m = of(c);
    if (status(c) != TN_STATUS_OK) return status(c);
    if (!m.valid(t))
      return fail(c, TN_STATUS_INVALID, (std::string("emit of a null tensor: ") + name).c_str());
    if (!m.outcome_.emitted.emplace(name, Emitted{m.value(t), as}).second)
      return fail(c, TN_STATUS_INVALID, (std::string("emitted twice: ") + name).c_str());
    return TN_STATUS_OK;
  }
  static int32_t emit_value(tn_ctx* c, const char* name, const tn_value* v) {
    if (v->type == TN_VALUE_STR) of(c).outcome_.texts[name] = std::string(v->as.str, v->count);
    return status(c);
  }
  // Calls the derivative at once, with a cotangent of ones.
  static tn_tensor custom_gradient(tn_ctx* c, tn_tensor y, const tn_tensor* xs, uint32_t n, tn_vjp_fn fn,
                                   const void* user, uint64_t bytes) {
    MiniHost& m = of(c);
    if (!m.valid(y)) return TN_NULL;
    Value ones = m.value(y);
    for (double& x : ones.data) x = 1;
    std::vector<std::max_align_t> copy(bytes / sizeof(std::max_align_t) + 1);
    std::memcpy(copy.data(), user, bytes);
    std::vector<tn_tensor> out(n, TN_NULL);
    if (fn(copy.data(), c, y, xs, n, m.add(ones), out.data()) != TN_STATUS_OK) return TN_NULL;
    m.derivatives.clear();
    for (tn_tensor t : out) m.derivatives.push_back(m.valid(t) ? m.value(t) : Value{});
    return y;
  }
  static int32_t declare(tn_ctx* c, const tn_slot* s) {
    MiniHost& m = of(c);
    m.declared[s->name] = *s;
    const size_t n = s->kind == TN_SLOT_PER_PARAM ? m.params.size() : 1;
    for (size_t i = 0; i < n; ++i) {
      Value v = s->kind == TN_SLOT_PER_PARAM ? m.params[i]
                                             : Value{s->dtype, Shape(s->shape, s->shape + s->rank), {}};
      if (!(s->flags & TN_SLOT_FLAG_FROM_PARAM))
        v.data.assign(static_cast<size_t>(numel(v.shape)), s->initial);
      m.slots[s->name + ("#" + std::to_string(i))] = v;
    }
    return TN_STATUS_OK;
  }
  static tn_tensor get(tn_ctx* c, const char* name, uint32_t index) {
    const auto it = of(c).slots.find(name + ("#" + std::to_string(index)));
    if (it == of(c).slots.end()) return fail(c, TN_STATUS_NOT_FOUND, "no such slot"), TN_NULL;
    return of(c).add(it->second);
  }
  static int32_t set(tn_ctx* c, const char* name, uint32_t index, tn_tensor t) {
    MiniHost& m = of(c);
    if (!m.valid(t)) return status(c);
    m.slots.at(name + ("#" + std::to_string(index))) = m.value(t);
    return TN_STATUS_OK;
  }
};

MiniHost::MiniHost() {
  table_.struct_size = sizeof table_;
  table_.abi_major = TN_ABI_MAJOR;
  table_.product = "mini";
  table_.version = "1";
  table_.self = this;
  table_.get_extension = MiniCalls::get_extension;
  table_.log = MiniCalls::log;
  table_.alloc = MiniCalls::alloc;
  table_.free = MiniCalls::release;
  table_.cancelled = MiniCalls::cancelled;
  ops_.struct_size = sizeof ops_;
  ops_.find = MiniCalls::find;
  ops_.apply = MiniCalls::apply;
  ops_.scalar = MiniCalls::scalar;
  ops_.constant = MiniCalls::scalar;
  ops_.from_host = MiniCalls::from_host;
  ops_.type = MiniCalls::type;
  ops_.emit = MiniCalls::emit;
  ops_.emit_value = MiniCalls::emit_value;
  ops_.custom_gradient = MiniCalls::custom_gradient;
  ops_.fail = MiniCalls::fail;
  ops_.status = MiniCalls::status;
  state_ = {sizeof state_, 0, MiniCalls::declare, MiniCalls::get, MiniCalls::set, nullptr};
  ctx_.struct_size = sizeof ctx_;
  ctx_.flags = TN_CTX_TRAIN;
  ctx_.host = &table_;
  ctx_.ops = &ops_;
  ctx_.self = this;
  ctx_.device_type = TN_DEVICE_CPU;
}

void MiniHost::begin(const std::vector<Value>& in) {
  ++generation_;
  values_.clear();
  inputs_.clear();
  runtime_structure.clear();
  outcome_ = {};
  ctx_.options = options.data();
  ctx_.n_options = static_cast<uint32_t>(options.size());
  for (const Value& v : in) inputs_.push_back(v.shape.empty() && v.data.empty() ? TN_NULL : add(v));
}
Outcome MiniHost::end(int32_t code) {
  if (outcome_.code == TN_STATUS_OK) outcome_.code = code;
  return outcome_;
}
tn_tensor MiniHost::add(Value v) {
  values_.push_back(std::move(v));
  return generation_ << 32 | values_.size();
}
bool MiniHost::valid(tn_tensor t) const {
  return t != TN_NULL && t >> 32 == generation_ && (t & 0xffffffffu) <= values_.size();
}
size_t MiniHost::index_of(tn_tensor t) const { return static_cast<size_t>(t & 0xffffffffu) - 1; }

Loaded::Loaded(const std::string& path, const MiniHost& host) {
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    error = dlerror();
    return;
  }
  const auto entry = reinterpret_cast<tn_entry_fn>(dlsym(library, TN_ENTRY_NAME));
  if (!entry || entry(host.table(), &plugin) != TN_STATUS_OK) error = path + ": no entry, or it failed";
}
Loaded::~Loaded() {
  if (plugin && TN_HAS(plugin, deinit)) plugin->deinit();
}

Instance::Instance(MiniHost& host, const tn_descriptor* d, const std::map<std::string, tn_value>& given)
    : host_(host), d_(d) {
  host.options.clear();
  host.slots.clear();
  for (uint32_t i = 0; i < d->n_options; ++i) {
    const auto it = given.find(d->options[i]->name);
    host.options.push_back({d->options[i]->name, it == given.end() ? d->options[i]->fallback : it->second});
  }
  created = host.call({}, [&](tn_ctx* c, auto&) { return d->create ? d->create(c, &inst_) : TN_STATUS_OK; });
}
Instance::~Instance() {
  if (created.code == TN_STATUS_OK && d_->destroy) d_->destroy(inst_);
}

Outcome Instance::loss(const std::map<std::string, Value>& in) {
  std::vector<Value> values;
  for (uint32_t i = 0; i < d_->n_roles; ++i) {
    const auto it = in.find(d_->roles[i]->name);
    values.push_back(it == in.end() ? Value{} : it->second);
  }
  return host_.call(values, [&](tn_ctx* c, const std::vector<tn_tensor>& ids) {
    std::vector<tn_named> named;
    for (uint32_t i = 0; i < d_->n_roles; ++i) named.push_back({d_->roles[i]->name, ids[i]});
    return static_cast<const tn_loss*>(d_->vtable)->build(inst_, c, named.data(), d_->n_roles);
  });
}

Outcome Instance::step(const std::vector<Value>& grads, int64_t count, double lr) {
  const auto* vtable = static_cast<const tn_optimizer*>(d_->vtable);
  const size_t n = host_.params.size();
  std::vector<Value> in = host_.params;
  const std::vector<std::string> names(n, "p");
  if (!ready_ && vtable->init) {
    const Outcome o = host_.call(in, [&](tn_ctx* c, const std::vector<tn_tensor>& ids) {
      std::vector<tn_named> named;
      for (size_t i = 0; i < n; ++i) named.push_back({names[i].c_str(), ids[i]});
      return vtable->init(inst_, c, named.data(), static_cast<uint32_t>(n));
    });
    if (o.code != TN_STATUS_OK) return o;
  }
  ready_ = true;
  in.insert(in.end(), grads.begin(), grads.end());
  host_.ctx_.lr = lr;
  return host_.call(in, [&](tn_ctx* c, const std::vector<tn_tensor>& ids) {
    std::vector<const char*> names_c;
    for (const auto& s : names) names_c.push_back(s.c_str());
    std::vector<tn_tensor> updated(ids.begin(), ids.begin() + static_cast<int64_t>(n));
    const tn_step s{sizeof(tn_step), static_cast<uint32_t>(n), names_c.data(), ids.data(),
                    ids.data() + n,  updated.data(),           count, TN_NULL};
    const int32_t code = vtable->step(inst_, c, &s);
    if (code == TN_STATUS_OK)
      for (size_t i = 0; i < n; ++i) host_.params[i] = host_.value(updated[i]);
    return code;
  });
}

tn_value real(double v) {
  tn_value x{TN_VALUE_F64, 0, {}};
  x.as.f64 = v;
  return x;
}
tn_value integer(int64_t v) {
  tn_value x{TN_VALUE_I64, 0, {}};
  x.as.i64 = v;
  return x;
}
tn_value boolean(bool v) {
  tn_value x{TN_VALUE_BOOL, 0, {}};
  x.as.i64 = v;
  return x;
}
tn_value text(const char* v) {
  tn_value x{TN_VALUE_STR, static_cast<uint32_t>(std::strlen(v)), {}};
  x.as.str = v;
  return x;
}
tn_value reals(const std::vector<double>& v) {
  tn_value x{TN_VALUE_F64S, static_cast<uint32_t>(v.size()), {}};
  x.as.f64s = v.data();
  return x;
}
Value tensor(const Shape& shape, const std::vector<double>& data, tn_dtype dtype) {
  return {dtype, shape, data};
}

}  // namespace abi_test
