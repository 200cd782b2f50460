// What a callback knows and can say: context, inputs by role, slots, custom gradients, other models.
#pragma once

#include <cstring>

#include "tenon_tensor.hpp"

namespace tn {

namespace detail {

template <class F>
int32_t fence(tn_ctx* c, F&& f) noexcept {
  try {
    f();
    return c->ops->status(c);
  } catch (const Error& e) {
    return c->ops->fail(c, e.code, e.what());
  } catch (const std::exception& e) {
    return c->ops->fail(c, TN_STATUS_INTERNAL, e.what());
  } catch (...) {
    return c->ops->fail(c, TN_STATUS_INTERNAL, "an exception of unknown type");
  }
}

template <class Table>
const Table& extension(const tn_ctx* c, const char* id) {
  static thread_local struct {
    const tn_host* host;
    uint64_t load;
    const void* table;
  } cache{};
  if (cache.host != c->host || cache.load != loads)
    cache = {c->host, loads, c->host->get_extension(c->host, id)};
  if (!cache.table) throw Error(std::string("this host has no extension ") + id, TN_STATUS_UNSUPPORTED);
  return *static_cast<const Table*>(cache.table);
}
inline const tn_state_api& state(const tn_ctx* c) { return extension<tn_state_api>(c, TN_EXT_STATE); }

}  // namespace detail

// y's value with a derivative of one's own: f(Vjp&) sets v[i] for xs[i] (or leaves it: zero). f is copied as
// bytes, so it must capture numbers only; tensors of the forward pass come back as v.x(i) and v.y.
struct Vjp {
  Tensor y, cotangent;
  Tensor x(size_t i) const { return {y.ctx, xs[i]}; }
  struct Out {
    tn_tensor& id;
    void operator=(Tensor t) { id = t.id; }
  };
  Out operator[](size_t i) { return {out[i]}; }
  const tn_tensor* xs;
  tn_tensor* out;
};

template <class F>
Tensor custom_gradient(Tensor y, const std::vector<Tensor>& xs, F f) {
  static_assert(std::is_trivially_copyable_v<F>, "capture numbers only");
  if (!y) return {};
  std::vector<tn_tensor> ids;
  for (const Tensor& x : xs) ids.push_back(x.id);
  const tn_vjp_fn call = [](const void* user, tn_ctx* c, tn_tensor y_, const tn_tensor* xs_, uint32_t,
                            tn_tensor cot, tn_tensor* out) -> int32_t {
    return detail::fence(c, [&] {
      Vjp v{{c, y_}, {c, cot}, xs_, out};
      (*static_cast<const F*>(user))(v);
    });
  };
  return {y.ctx, y.ctx->ops->custom_gradient(y.ctx, y.id, ids.data(), static_cast<uint32_t>(ids.size()), call,
                                             &f, sizeof f)};
}

// A slot: reads as a tensor, and is set by assignment.
struct Slot {
  Slot(tn_ctx* c, const char* slot, uint32_t i) : ctx(c), name(slot), index(i) {}
  tn_ctx* ctx;
  const char* name;
  uint32_t index;
  operator Tensor() const { return {ctx, detail::state(ctx).get(ctx, name, index)}; }
  void operator=(Tensor t) { detail::state(ctx).set(ctx, name, index, t.id); }
  Slot(const Slot&) = default;
  void operator=(const Slot& other) { *this = static_cast<Tensor>(other); }  // the value, not the reference
};

// What every callback knows.
struct Ctx {
  tn_ctx* raw;

  bool train() const { return raw->flags & TN_CTX_TRAIN; }
  bool replay() const { return raw->flags & TN_CTX_REPLAY; }
  int64_t epoch() const { return raw->epoch; }
  int64_t step_number() const { return raw->step; }
  int64_t total_steps() const { return raw->total_steps; }
  double lr() const { return raw->lr; }
  Tensor key() const { return {raw, raw->key}; }
  Slot state(const char* name) const { return {raw, name, 0}; }

  Tensor scalar(double v, tn_dtype t = TN_F32) const { return {raw, raw->ops->scalar(raw, v, t)}; }
  Tensor constant(double v, tn_dtype t = TN_F32) const { return {raw, raw->ops->constant(raw, v, t)}; }
  Tensor zeros(const Dims& shape, tn_dtype t = TN_F32) const { return broadcast_to(constant(0, t), shape); }
  // 0 .. n-1
  Tensor arange(int64_t n, tn_dtype t = TN_I64) const {
    return cumsum(broadcast_to(constant(1, t), {n}), 0) - constant(1, t);
  }
  Tensor from_host(const double* data, const Dims& shape, tn_dtype t = TN_F64) const {
    int64_t strides[TN_MAX_RANK] = {}, step = 1;
    for (uint32_t i = shape.n; i-- > 0; step *= shape.at[i]) strides[i] = step;
    tn_view v{sizeof(tn_view),
              TN_F64,
              TN_DEVICE_CPU,
              0,
              static_cast<int32_t>(shape.n),
              TN_VIEW_READ_ONLY,
              const_cast<double*>(data),
              shape.at,
              strides};
    return cast(Tensor{raw, raw->ops->from_host(raw, &v)}, t);
  }
  Tensor keep(Tensor t) const { return {raw, raw->ops->keep(raw, t.id)}; }
  void emit(const char* name, Tensor t, int32_t as = TN_OUT_VALUE) const {
    raw->ops->emit(raw, name, t.id, as);
  }
  void emit(const char* name, double v) const {
    tn_value x{TN_VALUE_F64, 0, {}};
    x.as.f64 = v;
    raw->ops->emit_value(raw, name, &x);
  }
  void emit(const char* name, const char* text) const {
    tn_value x{TN_VALUE_STR, static_cast<uint32_t>(std::strlen(text)), {}};
    x.as.str = text;
    raw->ops->emit_value(raw, name, &x);
  }
  void metric(const char* name, Tensor t) const { emit(name, t, TN_OUT_METRIC); }
  // Must hold when the step is evaluated: costs no evaluation of its own.
  void check(Tensor condition, const char* message) const { emit(message, condition, TN_OUT_CHECK); }
  bool cancelled() const { return raw->host->cancelled(raw->host) != 0; }
  // Numbers computed on the host ("test/regret"), and how far a procedure has come.
  void report(const char* name, double value) const {
    extension<tn_metrics_api>(TN_EXT_METRICS).report(raw, name, value);
  }
  void progress(int64_t done, int64_t total, const char* text = nullptr) const {
    extension<tn_metrics_api>(TN_EXT_METRICS).progress(raw, done, total, text);
  }
  template <class Table>
  const Table& extension(const char* id) const {
    return detail::extension<Table>(raw, id);
  }
};

// A callback with inputs by role name. An optional role that is unbound gives a null tensor.
struct Build : Ctx {
  Build(tn_ctx* c, const tn_named* in, uint32_t n) : Ctx{c}, inputs(in), n_inputs(n) {}
  Tensor operator[](const char* role) const {
    for (uint32_t i = 0; i < n_inputs; ++i)
      if (inputs[i].name && !std::strcmp(inputs[i].name, role)) return {raw, inputs[i].tensor};
    return {raw, TN_NULL};
  }
  bool has(const char* role) const { return static_cast<bool>((*this)[role]); }
  // Inputs of a role declared as many(): role0, role1, ...
  std::vector<Tensor> all(const std::string& role) const {
    std::vector<Tensor> v;
    while (Tensor t = (*this)[(role + std::to_string(v.size())).c_str()]) v.push_back(t);
    return v;
  }
  void loss(Tensor t) const { emit("loss", t, TN_OUT_LOSS); }  // rank 0, or [B] (its mean counts)
  void per_sample(Tensor t, const char* name = "per_sample") const { emit(name, t, TN_OUT_PER_SAMPLE); }
  void part(const char* name, Tensor t) const { emit(name, t, TN_OUT_PART); }
  void report(Tensor t) const { emit("report", t, TN_OUT_REPORT); }
  const tn_named* inputs;
  uint32_t n_inputs;
};

// Declares slots. Inputs are those of the first use; an optimizer's are its parameters, by name.
struct Init : Build {
  using Build::Build;
  void state(const char* name, const Dims& shape = {}, double initial = 0, tn_dtype t = TN_F32) const {
    declare(name, TN_SLOT_STATE, shape, initial, t);
  }
  // lr_scale: of the rate of the group that trains it. flags: TN_SLOT_FLAG_*.
  void trainable(const char* name, const Dims& shape = {}, double initial = 0, tn_dtype t = TN_F32, double lr_scale = 1,
                 uint32_t flags = 0) const {
    declare(name, TN_SLOT_TRAINABLE, shape, initial, t, {}, flags, lr_scale);
  }
  void table(const char* name, const Dims& row = {}, double initial = 0, tn_dtype t = TN_F32) const {
    declare(name, TN_SLOT_TABLE, row, initial, t);
  }
  void per_param(const char* name, double initial = 0) const {
    declare(name, TN_SLOT_PER_PARAM, {}, initial, 0);
  }
  void copy_of_param(const char* name) const {
    declare(name, TN_SLOT_PER_PARAM, {}, 0, 0, {}, TN_SLOT_FLAG_FROM_PARAM);
  }
  void state(const char* name, Tensor initial) const {
    declare(name, TN_SLOT_STATE, initial.shape(), 0, initial.dtype(), initial);
  }
  void trainable(const char* name, Tensor initial) const {
    declare(name, TN_SLOT_TRAINABLE, initial.shape(), 0, initial.dtype(), initial);
  }
  void declare(const char* name, int32_t kind, const Dims& shape, double initial, tn_dtype t,
               Tensor from = {}, uint32_t flags = 0, double lr_scale = 1) const {
    tn_slot s{};
    s.struct_size = sizeof s;
    s.kind = kind;
    s.name = name;
    s.dtype = t;
    s.rank = static_cast<int32_t>(shape.n);
    s.shape = shape.at;
    s.initial = initial;
    s.initial_tensor = from.id;
    s.flags = flags;
    s.lr_scale = lr_scale;
    detail::state(raw).declare(raw, &s);
  }
};

// A model of the recipe as a function. name null: the one whose output the plugin gets.
struct Model {
  const Ctx& ctx;
  const char* name = nullptr;
  // flags: TN_MODEL_*. params: instead of its own, in the order of parameters().
  Tensor operator()(Tensor input, uint32_t flags = 0, const std::vector<Tensor>& params = {}) const {
    const tn_named in{nullptr, input.id};
    return apply(&in, 1, flags, params, nullptr);
  }
  // A node inside it by name, such as a hidden representation.
  Tensor inside(const char* wanted, Tensor input, uint32_t flags = 0) const {
    const tn_named in{nullptr, input.id};
    return apply(&in, 1, flags, {}, wanted);
  }
  Tensor apply(const tn_named* in, uint32_t n, uint32_t flags, const std::vector<Tensor>& params,
               const char* wanted) const {
    std::vector<tn_tensor> ids;
    for (const Tensor& p : params) ids.push_back(p.id);
    tn_model_call call{};
    call.struct_size = sizeof call;
    call.flags = flags;
    call.model = name;
    call.in = in;
    call.n_in = n;
    call.params = params.empty() ? nullptr : ids.data();
    call.n_params = static_cast<uint32_t>(params.size());
    call.wanted = wanted ? &wanted : nullptr;
    call.n_wanted = wanted ? 1 : 0;
    tn_tensor out = TN_NULL;
    api().apply(ctx.raw, &call, &out);
    return {ctx.raw, out};
  }
  std::vector<Tensor> parameters() const {
    uint32_t n = 0;
    if (api().parameters(ctx.raw, name, nullptr, 0, &n)) return {};
    std::vector<tn_named> named(n);
    if (api().parameters(ctx.raw, name, named.data(), n, &n)) return {};
    std::vector<Tensor> out;
    for (const tn_named& p : named) out.push_back({ctx.raw, p.tensor});
    return out;
  }
  Tensor flat() const { return {ctx.raw, api().flat(ctx.raw, name)}; }
  void assign_flat(Tensor value) const { api().assign_flat(ctx.raw, name, value.id); }
  // Parameters trained from now on, by name prefix; none: all.
  void train_only(const std::vector<const char*>& prefixes, bool reset_slots = false) const {
    api().train_only(ctx.raw, name, prefixes.data(), static_cast<uint32_t>(prefixes.size()), reset_slots);
  }
  void reinitialize(uint64_t key) const { api().reinitialize(ctx.raw, name, key); }
  const tn_model_api& api() const { return ctx.extension<tn_model_api>(TN_EXT_MODEL); }
};

}  // namespace tn
