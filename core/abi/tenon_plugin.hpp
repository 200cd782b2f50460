// C++17 sugar over tenon_plugin.h: headers only, nothing to link. A loss in it:
//
//   struct Squared {
//     double scale;
//     explicit Squared(tn::Setup& s) : scale(s.real("scale", 1, "factor").above(0)) {  // schema and value
//       s.input("prediction", "[B, ..]");
//       s.input("target", "[B, ..]");
//     }
//     void build(tn::Build& b) const { b.loss(mean(square(b["prediction"] - b["target"])) * scale); }
//   };
//   TN_PLUGIN("me", "1.0", tn::loss<Squared>("org.example.squared", "Scaled squared error"))
//
// The constructor runs when the plugin is described (with the defaults) and for each instance, so it only
// declares. Numbers in arithmetic are runtime scalars: they may differ in every step. Throw tn::Error to fail
// with a message; every exception is caught at the boundary.
//
// What the class of each kind has:
//   loss reweighter router module    void build(tn::Build&)
//   parametrization          void build(tn::Build&)                  and, if it can, void invert(tn::Build&)
//   optimizer                void step(tn::Step&)                    or one of, also in addition,
//                            void step(tn::Step&, const tn::Closure&)
//                            void step(tn::Step&, const tn::Objectives&)
//                            void project(tn::Step&)
//   attack                   void build(tn::Build&, const tn::Target&)
//   quantizer                void build(tn::Build&, const tn_site&)  and, where it has them,
//                            void init(tn::Init&, const tn_site&)
//                            const std::vector<int64_t>& choices(const tn_site&)
//   aggregator               void aggregate(tn::Ctx&, const tn_round&)
//   procedure                void run(tn::Ctx&)
//   kernel                   n_in, n_out, device; infer, compose, run, maybe vjp; see KernelOf
// and what any class may have besides, picked up when present:
//   void init(tn::Init&)     declares state, or an optimizer's slots
//   void on_epoch(tn::Ctx&), void after_step(tn::Ctx&)
//   static constexpr uint32_t version, void save(tn::Bytes&) const, void load(tn::Bytes&, uint32_t version)
//   static constexpr bool elementwise, or bool is_elementwise() const    optimizers: a group may be one vector
//   static constexpr uint32_t caps = TN_CAP_.. | TN_CAP_..
//   static constexpr const char* first_order_reason      why a second derivative is refused
//   using Probes = tn::List<A, B>    named pure functions, for checks: classes with a static constexpr
//                                    name, a constructor from Setup& and void run(tn::Build&)
#pragma once

#include "tenon_kinds.hpp"
#include "tenon_options.hpp"
#include "tenon_reduction.hpp"

namespace tn {

// ---- From classes to tables ----

namespace detail {

#define TN_DETECT_(name, expression)      \
  template <class T, class = void>        \
  struct has_##name : std::false_type {}; \
  template <class T>                      \
  struct has_##name<T, std::void_t<decltype(expression)>> : std::true_type {};
TN_DETECT_(init, std::declval<T&>().init(std::declval<Init&>()))
TN_DETECT_(on_epoch, std::declval<T&>().on_epoch(std::declval<Ctx&>()))
TN_DETECT_(after_step, std::declval<T&>().after_step(std::declval<Ctx&>()))
TN_DETECT_(save, std::declval<const T&>().save(std::declval<Bytes&>()))
TN_DETECT_(step, std::declval<T&>().step(std::declval<Step&>()))
TN_DETECT_(closure_step, std::declval<T&>().step(std::declval<Step&>(), std::declval<const Closure&>()))
TN_DETECT_(multi_step, std::declval<T&>().step(std::declval<Step&>(), std::declval<const Objectives&>()))
TN_DETECT_(project, std::declval<T&>().project(std::declval<Step&>()))
TN_DETECT_(invert, std::declval<T&>().invert(std::declval<Build&>()))
TN_DETECT_(site_init, std::declval<T&>().init(std::declval<Init&>(), std::declval<const tn_site&>()))
TN_DETECT_(choices, std::declval<T&>().choices(std::declval<const tn_site&>()))
TN_DETECT_(probes, std::declval<typename T::Probes>())
TN_DETECT_(caps, T::caps)
TN_DETECT_(first_order, T::first_order_reason)
TN_DETECT_(elementwise, T::elementwise)
TN_DETECT_(is_elementwise, std::declval<const T&>().is_elementwise())
TN_DETECT_(replaces, T::replaces)
TN_DETECT_(kernel_vjp, std::declval<const T&>().vjp(std::declval<const std::vector<Tensor>&>(), std::declval<const std::vector<Tensor>&>(),
                                                    std::declval<const std::vector<Tensor>&>()))
TN_DETECT_(scratch, std::declval<T&>().scratch_bytes(std::declval<const tn_type* const*>(), 0u))
#undef TN_DETECT_

template <class T>
T& self(void* inst) {
  return *static_cast<T*>(inst);
}

// Every wrapper fences its call; a table names only those whose member the class has.
template <class T>
struct Hooks {
  static int32_t init(void* inst, tn_ctx* c, const tn_named* in, uint32_t n) {
    return fence(c, [&] {
      if constexpr (has_init<T>::value) {
        Init i(c, in, n);
        self<T>(inst).init(i);
      }
    });
  }
  static int32_t on_epoch(void* inst, tn_ctx* c) {
    return fence(c, [&] {
      if constexpr (has_on_epoch<T>::value) {
        Ctx x{c};
        self<T>(inst).on_epoch(x);
      }
    });
  }
  static int32_t after_step(void* inst, tn_ctx* c) {
    return fence(c, [&] {
      if constexpr (has_after_step<T>::value) {
        Ctx x{c};
        self<T>(inst).after_step(x);
      }
    });
  }
  static constexpr tn_hooks table{sizeof(tn_hooks), 0, has_init<T>::value ? init : nullptr,
                                  has_on_epoch<T>::value ? on_epoch : nullptr,
                                  has_after_step<T>::value ? after_step : nullptr};
};

template <class T>
struct ByteState {
  static int32_t save(void* inst, tn_ctx* c, const tn_stream* to) {
    return fence(c, [&] {
      Bytes b{to};
      self<T>(inst).save(b);
    });
  }
  static int32_t load(void* inst, tn_ctx* c, uint32_t version, const tn_stream* from, uint64_t bytes) {
    return fence(c, [&] {
      Bytes b{from, bytes};
      self<T>(inst).load(b, version);
    });
  }
  static constexpr tn_bytes table{sizeof(tn_bytes), T::version, save, load};
};

template <class T>
struct BuildOf {
  static int32_t build(void* inst, tn_ctx* c, const tn_named* in, uint32_t n) {
    return fence(c, [&] {
      Build b(c, in, n);
      self<T>(inst).build(b);
    });
  }
  static int32_t invert(void* inst, tn_ctx* c, const tn_named* in, uint32_t n) {
    return fence(c, [&] {
      if constexpr (has_invert<T>::value) {
        Build b(c, in, n);
        self<T>(inst).invert(b);
      }
    });
  }
  static constexpr tn_loss loss{sizeof(tn_loss), 0, build};
  static constexpr tn_reweighter reweighter{sizeof(tn_reweighter), 0, build};
  static constexpr tn_router router{sizeof(tn_router), 0, build};
  static constexpr tn_module module{sizeof(tn_module), 0, build};
  static constexpr tn_parametrization parametrization{sizeof(tn_parametrization), 0, build,
                                                      has_invert<T>::value ? invert : nullptr};
};

template <class T>
struct OptimizerOf {
  static int32_t step(void* inst, tn_ctx* c, const tn_step* s) {
    return fence(c, [&] {
      if constexpr (has_step<T>::value) {
        Step x(c, s);
        self<T>(inst).step(x);
      }
    });
  }
  static int32_t closure_step(void* inst, tn_ctx* c, const tn_step* s, const tn_closure* f) {
    return fence(c, [&] {
      Step x(c, s);
      self<T>(inst).step(x, Closure{c, f});
    });
  }
  static int32_t multi_step(void* inst, tn_ctx* c, const tn_step* s, const tn_objectives* o) {
    return fence(c, [&] {
      Step x(c, s);
      self<T>(inst).step(x, Objectives{c, o, s->n});
    });
  }
  static int32_t project(void* inst, tn_ctx* c, const tn_step* s) {
    return fence(c, [&] {
      Step x(c, s);
      self<T>(inst).project(x);
    });
  }
  static constexpr uint32_t flags() {
    if constexpr (has_elementwise<T>::value) return T::elementwise ? TN_OPT_ELEMENTWISE : 0;
    return 0;
  }
  static int32_t is_elementwise(void* inst) {
    if constexpr (has_is_elementwise<T>::value) return self<T>(inst).is_elementwise() ? 1 : 0;
    return 0;
  }
  static constexpr tn_optimizer table{sizeof(tn_optimizer), flags(),
                                      has_init<T>::value ? Hooks<T>::init : nullptr,
                                      has_step<T>::value ? step : nullptr,
                                      has_is_elementwise<T>::value ? is_elementwise : nullptr};
};
template <class T>
inline constexpr tn_optimizer_closure closure_table{sizeof(tn_optimizer_closure), 0,
                                                    OptimizerOf<T>::closure_step};
template <class T>
inline constexpr tn_optimizer_multi_loss multi_table{sizeof(tn_optimizer_multi_loss), 0,
                                                     OptimizerOf<T>::multi_step};
template <class T>
inline constexpr tn_optimizer_projection projection_table{sizeof(tn_optimizer_projection), 0,
                                                          OptimizerOf<T>::project};

template <class T>
struct AttackOf {
  static int32_t build(void* inst, tn_ctx* c, const tn_attack_target* t, const tn_named* in, uint32_t n) {
    return fence(c, [&] {
      Build b(c, in, n);
      self<T>(inst).build(b, Target{c, t});
    });
  }
  static constexpr tn_attack table{sizeof(tn_attack), 0, build};
};

template <class T>
struct QuantizerOf {
  static int32_t init(void* inst, tn_ctx* c, const tn_site* site, const tn_named* in, uint32_t n) {
    return fence(c, [&] {
      if constexpr (has_site_init<T>::value) {
        Init i(c, in, n);
        self<T>(inst).init(i, *site);
      }
    });
  }
  static int32_t build(void* inst, tn_ctx* c, const tn_site* site, const tn_named* in, uint32_t n) {
    return fence(c, [&] {
      Build b(c, in, n);
      self<T>(inst).build(b, *site);
    });
  }
  // The class returns a reference to a list of its own.
  static int32_t choices(void* inst, tn_ctx* c, const tn_site* site, const int64_t** values, uint32_t* n) {
    return fence(c, [&] {
      if constexpr (has_choices<T>::value) {
        const std::vector<int64_t>& v = self<T>(inst).choices(*site);
        *values = v.data();
        *n = static_cast<uint32_t>(v.size());
      }
    });
  }
  static constexpr tn_quantizer table{sizeof(tn_quantizer),
                                      0,
                                      has_site_init<T>::value ? init : nullptr,
                                      build,
                                      has_choices<T>::value ? choices : nullptr,
                                      nullptr};
};

template <class T>
struct AggregatorOf {
  static int32_t aggregate(void* inst, tn_ctx* c, const tn_round* round) {
    return fence(c, [&] {
      Ctx x{c};
      self<T>(inst).aggregate(x, *round);
    });
  }
  static constexpr tn_aggregator table{sizeof(tn_aggregator), 0, aggregate};
};

template <class T>
struct ProcedureOf {
  static int32_t run(void* inst, tn_ctx* c) {
    return fence(c, [&] {
      Ctx x{c};
      self<T>(inst).run(x);
    });
  }
  static constexpr tn_procedure table{sizeof(tn_procedure), 0, run};
};

template <class T>
struct KernelOf {
  static int32_t infer(void* inst, tn_ctx* c, const tn_type* const* in, uint32_t n_in, tn_type* const* out,
                       uint32_t n_out) {
    return fence(c, [&] { self<T>(inst).infer(in, n_in, out, n_out); });
  }
  static int32_t compose(void* inst, tn_ctx* c, const tn_tensor* in, uint32_t n_in, tn_tensor* out,
                         uint32_t n_out) {
    return fence(c, [&] {
      std::vector<Tensor> x;
      for (uint32_t i = 0; i < n_in; ++i) x.push_back({c, in[i]});
      const std::vector<Tensor> y = self<T>(inst).compose(x);
      for (uint32_t i = 0; i < n_out && i < y.size(); ++i) out[i] = y[i].id;
    });
  }
  // The derivative with respect to each input, null tensors for zero; y: outputs, cotangents: of the outputs.
  static int32_t vjp(void* inst, tn_ctx* c, const tn_tensor* in, uint32_t n_in, const tn_tensor* y, const tn_tensor* cotangents,
                     uint32_t n_out, tn_tensor* out) {
    return fence(c, [&] {
      if constexpr (has_kernel_vjp<T>::value) {
        std::vector<Tensor> x, ys, cs;
        for (uint32_t i = 0; i < n_in; ++i) x.push_back({c, in[i]});
        for (uint32_t i = 0; i < n_out; ++i) ys.push_back({c, y[i]}), cs.push_back({c, cotangents[i]});
        const std::vector<Tensor> d = self<T>(inst).vjp(x, ys, cs);
        for (uint32_t i = 0; i < n_in && i < d.size(); ++i) out[i] = d[i].id;
      }
    });
  }
  static uint64_t scratch(void* inst, const tn_type* const* in, uint32_t n) {
    if constexpr (has_scratch<T>::value) return self<T>(inst).scratch_bytes(in, n);
    return 0;
  }
  static int32_t run(void* inst, const tn_kernel_call* call) {
    try {
      return self<T>(inst).run(*call);
    } catch (...) {
      return TN_STATUS_INTERNAL;
    }
  }
  static constexpr const char* replaces() {
    if constexpr (has_replaces<T>::value) return T::replaces;
    return nullptr;
  }
  static constexpr tn_kernel table{sizeof(tn_kernel),
                                   T::n_in,
                                   T::n_out,
                                   T::device,
                                   replaces(),
                                   infer,
                                   compose,
                                   has_kernel_vjp<T>::value ? vjp : nullptr,
                                   has_scratch<T>::value ? scratch : nullptr,
                                   run};
};

// ---- Descriptors and the module ----

struct ProbeData {
  tn_probe spec{};
  Schema schema;
};
struct ProbeTable {
  tn_probes table{};
  OwnedList<ProbeData> probes;
  std::vector<const tn_probe*> list;
};
template <class T>
struct ProbesOf {
  inline static ProbeTable* table = nullptr;
};

struct Entry {
  tn_descriptor descriptor{};
  Schema schema;
  ProbeTable probes;
};

template <class P>
int32_t run_probe(tn_ctx* c, const tn_named* in, uint32_t n) {
  return fence(c, [&] {
    Setup s(c);
    P probe(s);
    Build b(c, in, n);
    probe.run(b);
  });
}
template <class P>
void add_probe(ProbeTable& to) {
  ProbeData& d = to.probes.add();
  Setup s(&d.schema);
  P example(s);
  d.schema.finish();
  d.spec.struct_size = sizeof(tn_probe);
  d.spec.name = P::name;
  d.spec.options = d.schema.option_list.data();
  d.spec.n_options = static_cast<uint32_t>(d.schema.option_list.size());
  d.spec.roles = d.schema.roles.items.data();
  d.spec.n_roles = static_cast<uint32_t>(d.schema.roles.items.size());
  d.spec.run = run_probe<P>;
  to.list.push_back(&d.spec);
}
template <class... P>
void add_probes(ProbeTable& to, List<P...>) {
  (add_probe<P>(to), ...);
  to.table = {sizeof(tn_probes), static_cast<uint32_t>(to.list.size()), to.list.data()};
}

template <class T, bool hooks_init>
const void* get_extension(const char* id) {
  const auto is = [id](const char* other) { return std::strcmp(id, other) == 0; };
  if constexpr ((hooks_init && has_init<T>::value) || has_on_epoch<T>::value || has_after_step<T>::value)
    if (is(TN_EXT_HOOKS)) return &Hooks<T>::table;
  if constexpr (has_save<T>::value)
    if (is(TN_EXT_BYTES)) return &ByteState<T>::table;
  if constexpr (has_probes<T>::value)
    if (is(TN_EXT_PROBE)) return &ProbesOf<T>::table->table;
  if constexpr (has_closure_step<T>::value)
    if (is(TN_EXT_CLOSURE)) return &closure_table<T>;
  if constexpr (has_multi_step<T>::value)
    if (is(TN_EXT_MULTI_LOSS)) return &multi_table<T>;
  if constexpr (has_project<T>::value)
    if (is(TN_EXT_PROJECTION)) return &projection_table<T>;
  return nullptr;
}
template <class T>
int32_t create(tn_ctx* c, void** inst) {
  return fence(c, [&] {
    Setup s(c);
    *inst = new T(s);
  });
}
template <class T>
void destroy(void* inst) {
  delete static_cast<T*>(inst);
}

struct Description {
  const char *id, *help, *paper;
  void (*fill)(Entry&);
};

template <class T, bool hooks_init>
void fill(Entry& e, const char* kind, const void* vtable) {
  Setup s(&e.schema);
  T example(s);
  e.schema.finish();
  tn_descriptor& d = e.descriptor;
  d.struct_size = sizeof d;
  d.kind = kind;
  d.vtable = vtable;
  d.options = e.schema.option_list.data();
  d.n_options = static_cast<uint32_t>(e.schema.option_list.size());
  d.roles = e.schema.roles.items.data();
  d.n_roles = static_cast<uint32_t>(e.schema.roles.items.size());
  d.create = create<T>;
  d.destroy = destroy<T>;
  d.get_extension = get_extension<T, hooks_init>;
  if constexpr (has_caps<T>::value) d.caps |= T::caps;
  if constexpr (has_init<T>::value || has_save<T>::value) d.caps |= TN_CAP_STATEFUL;
  if constexpr (has_first_order<T>::value) {
    d.caps |= TN_CAP_FIRST_ORDER;
    d.second_order_reason = T::first_order_reason;
  }
  if constexpr (has_probes<T>::value) {
    add_probes(e.probes, typename T::Probes{});
    ProbesOf<T>::table = &e.probes;
  }
}

struct Module {
  tn_plugin table{};
  OwnedList<Entry> entries;
  std::vector<const tn_descriptor*> list;
  void add(const Description& d) {
    Entry& e = entries.add();
    e.descriptor.id = d.id;
    e.descriptor.help = d.help;
    e.descriptor.paper = d.paper;
    d.fill(e);
    list.push_back(&e.descriptor);
  }
};
struct Loaded {
  inline static Module* module = nullptr;  // made by the first load, freed by the last deinit
  inline static int count = 0;
  static void deinit() {
    if (--count > 0) return;
    delete module;
    module = nullptr;
  }
};

template <class... D>
int32_t enter(const tn_plugin** out, const char* vendor, const char* version,
              const D&... descriptions) noexcept {
  try {
    if (!Loaded::module) {
      Module* m = new Module;
      Loaded::module = m;
      (m->add(descriptions), ...);
      m->table.struct_size = sizeof(tn_plugin);
      m->table.abi_minor = TN_ABI_MINOR;
      m->table.vendor = vendor;
      m->table.version = version;
      m->table.descriptors = m->list.data();
      m->table.n_descriptors = static_cast<uint32_t>(m->list.size());
      m->table.deinit = Loaded::deinit;
    }
    ++Loaded::count;
    ++loads;
    *out = &Loaded::module->table;
    return TN_STATUS_OK;
  } catch (...) {
    delete Loaded::module;
    Loaded::module = nullptr;
    return TN_STATUS_INTERNAL;
  }
}

}  // namespace detail

// ---- Registration ----
// TN_PLUGIN("vendor", "1.0", tn::loss<A>(id, help, paper), tn::optimizer<B>(id, help), ...)

#define TN_KIND_(name, kind, hooks_init, ...)                                               \
  template <class T>                                                                        \
  detail::Description name(const char* id, const char* help, const char* paper = nullptr) { \
    return {id, help, paper, [](detail::Entry& e) {                                         \
              static constexpr auto& vtable = __VA_ARGS__;                                  \
              detail::fill<T, hooks_init>(e, kind, &vtable);                                \
            }};                                                                             \
  }
TN_KIND_(loss, TN_KIND_LOSS, true, detail::BuildOf<T>::loss)
TN_KIND_(reweighter, TN_KIND_REWEIGHTER, true, detail::BuildOf<T>::reweighter)
TN_KIND_(parametrization, TN_KIND_PARAMETRIZATION, true, detail::BuildOf<T>::parametrization)
TN_KIND_(router, TN_KIND_ROUTER, true, detail::BuildOf<T>::router)
TN_KIND_(module, TN_KIND_MODULE, true, detail::BuildOf<T>::module)
TN_KIND_(optimizer, TN_KIND_OPTIMIZER, false, detail::OptimizerOf<T>::table)
TN_KIND_(attack, TN_KIND_ATTACK, true, detail::AttackOf<T>::table)
TN_KIND_(quantizer, TN_KIND_QUANTIZER, false, detail::QuantizerOf<T>::table)
TN_KIND_(aggregator, TN_KIND_AGGREGATOR, true, detail::AggregatorOf<T>::table)
TN_KIND_(procedure, TN_KIND_PROCEDURE, true, detail::ProcedureOf<T>::table)
TN_KIND_(kernel, TN_KIND_KERNEL, false, detail::KernelOf<T>::table)
#undef TN_KIND_

}  // namespace tn

#define TN_PLUGIN(vendor, version, ...)                                                 \
  extern "C" TN_EXPORT int32_t tenon_plugin_v1(const tn_host*, const tn_plugin** out) { \
    return ::tn::detail::enter(out, vendor, version, __VA_ARGS__);                      \
  }
