// Every kind through the C++ layer, built here by each compiler at hand and mixed in one process.
#include <array>
#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <cstring>

#include "tests/abi/mini_host.h"
#include "tests/abi/shell.h"

using namespace abi_test;

namespace {

const std::string kRoot = TENON_SOURCE_DIR;

struct Kinds {
  explicit Kinds(const std::string& file) : loaded(file, host) {
    INFO(loaded.error);
    REQUIRE(loaded.error.empty());
  }
  const tn_descriptor* operator()(const char* id) const {
    for (uint32_t i = 0; i < loaded.plugin->n_descriptors; ++i)
      if (!std::strcmp(loaded.plugin->descriptors[i]->id, id)) return loaded.plugin->descriptors[i];
    FAIL("no descriptor " << id);
    return nullptr;
  }
  template <class T>
  const T* extension(const char* of, const char* id) const {
    const auto* table = static_cast<const T*>((*this)(of)->get_extension(id));
    REQUIRE(table != nullptr);
    return table;
  }
  // Calls f(instance, ctx, handles of in).
  template <class F>
  Outcome with(const char* id, const std::vector<Value>& in, F&& f) {
    const tn_descriptor* d = (*this)(id);
    Instance instance(host, d);
    REQUIRE(instance.created.code == TN_STATUS_OK);
    return host.call(in, [&](tn_ctx* c, const std::vector<tn_tensor>& t) { return f(instance.raw(), c, t); });
  }
  MiniHost host;
  Loaded loaded;
};

// Stored bytes, and where reading is.
struct Memory {
  std::string bytes;
  size_t at = 0;
  static int32_t read(const tn_stream* s, void* to, uint64_t n) {
    auto& m = *static_cast<Memory*>(s->self);
    if (m.at + n > m.bytes.size()) return TN_STATUS_STATE;
    std::memcpy(to, m.bytes.data() + m.at, n);
    m.at += n;
    return TN_STATUS_OK;
  }
  static int32_t write(const tn_stream* s, const void* from, uint64_t n) {
    static_cast<Memory*>(s->self)->bytes.append(static_cast<const char*>(from), n);
    return TN_STATUS_OK;
  }
  tn_stream stream() { return {sizeof(tn_stream), 0, this, read, write}; }
};

void check_loss(Kinds& k) {
  const tn_descriptor* d = k("running");
  CHECK((d->caps & (TN_CAP_FIRST_ORDER | TN_CAP_WHOLE_BATCH | TN_CAP_STATEFUL)) ==
        (TN_CAP_FIRST_ORDER | TN_CAP_WHOLE_BATCH | TN_CAP_STATEFUL));
  CHECK(std::string(d->second_order_reason) == "its surrogate is linear in the model's output");
  CHECK(d->roles[1]->flags == TN_ROLE_MANY);
  const auto* hooks = k.extension<tn_hooks>("running", TN_EXT_HOOKS);
  REQUIRE(TN_HAS(hooks, on_epoch));
  CHECK_FALSE(TN_HAS(hooks, after_step));
  const auto* bytes = k.extension<tn_bytes>("running", TN_EXT_BYTES);
  CHECK(bytes->version == 3);

  Instance instance(k.host, d);
  const auto in_init =
      k.host.call({}, [&](tn_ctx* c, auto&) { return hooks->init(instance.raw(), c, nullptr, 0); });
  REQUIRE(in_init.code == TN_STATUS_OK);
  const Outcome o = k.host.call({tensor({2}, {1, 3}), tensor({2}, {10, 20})}, [&](tn_ctx* c, const auto& t) {
    const tn_named in[] = {{"prediction", t[0]}, {"part", TN_NULL}, {"part0", t[1]}};
    return static_cast<const tn_loss*>(d->vtable)->build(instance.raw(), c, in, 3);
  });
  INFO(o.message);
  REQUIRE(o.code == TN_STATUS_OK);
  CHECK(o.emitted.at("loss").value.data[0] == 20);  // mean of squares 5, part 15
  CHECK(o.emitted.at("report").value.data[0] == 5);
  CHECK(k.host.slots.at("mean#0").data[0] == 3);  // 0.5 * 1 + 0.5 * 5
  REQUIRE(k.host.derivatives.size() == 1);
  CHECK(k.host.derivatives[0].data == std::vector<double>{2, 6});  // 2 x, for a cotangent of 1

  // Bytes: a round trip; then too short, and of another version.
  Memory memory;
  const tn_stream stream = memory.stream();
  const auto on_host = [&](auto f) { return k.host.call({}, [&](tn_ctx* c, auto&) { return f(c); }); };
  CHECK(on_host([&](tn_ctx* c) { return hooks->on_epoch(instance.raw(), c); }).code == TN_STATUS_OK);
  CHECK(on_host([&](tn_ctx* c) { return bytes->save(instance.raw(), c, &stream); }).code == TN_STATUS_OK);
  REQUIRE(memory.bytes.size() == sizeof(int64_t));
  Instance other(k.host, d);
  CHECK(on_host([&](tn_ctx* c) { return bytes->load(other.raw(), c, 3, &stream, 8); }).code == TN_STATUS_OK);
  Memory again;
  const tn_stream copy = again.stream();
  CHECK(on_host([&](tn_ctx* c) { return bytes->save(other.raw(), c, &copy); }).code == TN_STATUS_OK);
  CHECK(again.bytes == memory.bytes);
  memory.at = 0;
  CHECK(on_host([&](tn_ctx* c) { return bytes->load(other.raw(), c, 3, &stream, 4); }).message ==
        "stored state is too short");
  CHECK(on_host([&](tn_ctx* c) { return bytes->load(other.raw(), c, 9, &stream, 8); }).message ==
        "state of an unknown version");

  const Outcome thrown = k.with("throwing", {}, [&](void* inst, tn_ctx* c, const auto&) {
    return static_cast<const tn_loss*>(k("throwing")->vtable)->build(inst, c, nullptr, 0);
  });
  CHECK(thrown.code == TN_STATUS_INTERNAL);
  CHECK(thrown.message == "an exception of unknown type");
}

void check_probe(Kinds& k) {
  const auto* probes = k.extension<tn_probes>("running", TN_EXT_PROBE);
  REQUIRE(probes->n_probes == 1);
  const tn_probe* p = probes->probes[0];
  CHECK(std::string(p->name) == "transform");
  REQUIRE(p->n_options == 1);
  k.host.options = {{"power", real(3)}};
  const Outcome o = k.host.call({tensor({2}, {1, 2})}, [&](tn_ctx* c, const auto& t) {
    const tn_named in = {"x", t[0]};
    return p->run(c, &in, 1);
  });
  REQUIRE(o.code == TN_STATUS_OK);
  CHECK(o.emitted.at("y").value.data == std::vector<double>{3, 12});
  CHECK(o.texts.at("note") == "done");
}

void check_graph_kinds(Kinds& k) {
  const Outcome weights =
      k.with("normalised", {tensor({2}, {1, 3})}, [&](void* inst, tn_ctx* c, const auto& t) {
        const tn_named in = {"losses", t[0]};
        return static_cast<const tn_reweighter*>(k("normalised")->vtable)->build(inst, c, &in, 1);
      });
  CHECK(weights.emitted.at("weights").value.data == std::vector<double>{0.25, 0.75});

  const auto* p = static_cast<const tn_parametrization*>(k("scaled")->vtable);
  const auto* hooks = k.extension<tn_hooks>("scaled", TN_EXT_HOOKS);
  const Outcome weight = k.with("scaled", {tensor({2}, {1, 3})}, [&](void* inst, tn_ctx* c, const auto& t) {
    const tn_named raw = {"raw", t[0]}, given = {"weight", t[0]};
    if (hooks->init(inst, c, &raw, 1) || p->build(inst, c, &raw, 1)) return c->ops->status(c);
    return p->invert(inst, c, &given, 1);
  });
  INFO(weight.message);
  CHECK(weight.emitted.at("weight").value.data == std::vector<double>{2, 6});
  CHECK(weight.emitted.at("raw").value.data == std::vector<double>{0.5, 1.5});
  CHECK(k.host.declared.at("scale").kind == TN_SLOT_TRAINABLE);

  const tn_attack_target target = {
      sizeof target, 0, nullptr,
      [](const tn_attack_target*, tn_ctx*, tn_tensor x, tn_tensor* per, tn_tensor* out) {
        *per = x;
        *out = x;
        return int32_t{TN_STATUS_OK};
      }};
  const Outcome attacked = k.with("sign", {tensor({2}, {1, 3})}, [&](void* inst, tn_ctx* c, const auto& t) {
    const tn_named in = {"input", t[0]};
    return static_cast<const tn_attack*>(k("sign")->vtable)->build(inst, c, &target, &in, 1);
  });
  CHECK(attacked.emitted.at("x_adv").value.data[1] == Catch::Approx(3.3));

  const auto* q = static_cast<const tn_quantizer*>(k("bits")->vtable);
  const tn_site site = {sizeof(tn_site), TN_SITE_WEIGHT, "fc1.weight", 1, 0, 1};
  const Outcome quantised = k.with("bits", {tensor({2}, {1, 3})}, [&](void* inst, tn_ctx* c, const auto& t) {
    const int64_t* values = nullptr;
    uint32_t n = 0;
    const tn_named in = {"x", t[0]};
    if (q->choices(inst, c, &site, &values, &n) || n != 3 || values[1] != 4)
      return int32_t{TN_STATUS_INTERNAL};
    return q->build(inst, c, &site, &in, 1);
  });
  CHECK(quantised.code == TN_STATUS_OK);
  CHECK(quantised.emitted.at("y").value.data == std::vector<double>{4, 12});

  const Outcome averaged =
      k.with("average", {tensor({2}, {1, 1}), tensor({2, 2}, {1, 2, 3, 4})},
             [&](void* inst, tn_ctx* c, const auto& t) {
               tn_round r{};
               r.struct_size = sizeof r;
               r.params = t[0];
               r.deltas = t[1];
               return static_cast<const tn_aggregator*>(k("average")->vtable)->aggregate(inst, c, &r);
             });
  CHECK(averaged.emitted.at("params").value.data == std::vector<double>{3, 4});

  const Outcome looped = k.with("loop", {}, [&](void* inst, tn_ctx* c, const auto&) {
    return static_cast<const tn_procedure*>(k("loop")->vtable)->run(inst, c);
  });
  CHECK(looped.code == TN_STATUS_UNSUPPORTED);
  CHECK(looped.message == "this host has no extension tenon.session/1");
}

void check_optimizer(Kinds& k) {
  CHECK(static_cast<const tn_optimizer*>(k("searching")->vtable)->step == nullptr);
  const auto step = [&](auto call) {
    std::vector<double> got;
    k.host.ctx_.lr = 0.5;
    const Outcome o = k.with("searching", {tensor({2}, {1, 3})}, [&](void* inst, tn_ctx* c, const auto& t) {
      const char* name = "p";
      tn_tensor updated = t[0];
      const tn_step s{sizeof(tn_step), 1, &name, &t[0], nullptr, &updated, 1, TN_NULL};
      const int32_t code = call(inst, c, s);
      if (code == TN_STATUS_OK) got = k.host.value(updated).data;
      return code;
    });
    INFO(o.message);
    REQUIRE(o.code == TN_STATUS_OK);
    return got;
  };
  const auto* closure = k.extension<tn_optimizer_closure>("searching", TN_EXT_CLOSURE);
  CHECK(step([&](void* inst, tn_ctx* c, const tn_step& s) {
          const tn_closure f{sizeof(tn_closure),
                             1,
                             nullptr,
                             s.names,
                             s.params,
                             [](const tn_closure*, tn_ctx*, const tn_tensor* p, const char*, tn_tensor* out) {
                               *out = p[0];
                               return int32_t{TN_STATUS_OK};
                             },
                             nullptr,
                             nullptr};
          return closure->step(inst, c, &s, &f);
        }) == std::vector<double>{0.5, 1.5});
  const auto* multi = k.extension<tn_optimizer_multi_loss>("searching", TN_EXT_MULTI_LOSS);
  CHECK(step([&](void* inst, tn_ctx* c, const tn_step& s) {
          const char* name = "loss";
          const double weight = 2;
          const tn_objectives o{sizeof(tn_objectives), 1, &name, s.params, s.params, &weight};
          return multi->step(inst, c, &s, &o);
        }) == std::vector<double>{-1, -3});
  const auto* projection = k.extension<tn_optimizer_projection>("searching", TN_EXT_PROJECTION);
  CHECK(step([&](void* inst, tn_ctx* c, const tn_step& s) { return projection->project(inst, c, &s); }) ==
        std::vector<double>{1, 1});
}

void check_kernel(Kinds& k) {
  const auto* d = static_cast<const tn_kernel*>(k("org.example.double/1")->vtable);
  CHECK(d->device_type == TN_DEVICE_CPU);
  CHECK_FALSE(TN_HAS(d, replaces));
  const Outcome o =
      k.with("org.example.double/1", {tensor({3}, {1, 2, 3})}, [&](void* inst, tn_ctx* c, const auto& t) {
        tn_tensor out = TN_NULL;
        const int32_t code = d->compose(inst, c, &t[0], 1, &out, 1);
        if (code == TN_STATUS_OK) c->ops->emit(c, "y", out, TN_OUT_VALUE);
        const std::array<double, 3> x = {1, 2, 3};
        std::array<double, 3> y{};
        const int64_t shape = 3, stride = 1;
        const tn_view in{
            sizeof(tn_view), TN_F64, TN_DEVICE_CPU, 0, 1, TN_VIEW_READ_ONLY, const_cast<double*>(x.data()),
            &shape,          &stride};
        const tn_view result{sizeof(tn_view), TN_F64, TN_DEVICE_CPU, 0, 1, 0, y.data(), &shape, &stride};
        const tn_view *ins = &in, *outs = &result;
        const tn_kernel_call call{
            sizeof(tn_kernel_call), 1, 1, 0, &ins, &outs, nullptr, nullptr, nullptr, nullptr};
        CHECK(d->run(inst, &call) == TN_STATUS_OK);
        CHECK(y == std::array<double, 3>{2, 4, 6});
        return code;
      });
  CHECK(o.emitted.at("y").value.data == std::vector<double>{2, 4, 6});
}

}  // namespace

TEST_CASE("every kind works through the C++ layer, from each compiler, side by side in one process") {
  const Scratch scratch;
  std::vector<std::string> files;
  for (const std::string compiler : {"g++", "clang++"}) {
    if (!have_program(compiler)) continue;
    files.push_back(scratch.path(compiler + ".so"));
    const Ran built = run(
        compiler + " -std=c++17 -O1 -fPIC -shared -fvisibility=hidden -Wall -Wextra -Wconversion -Wshadow" +
        " -Werror -static-libstdc++ -static-libgcc -I" + kRoot + "/core/abi " + kRoot +
        "/tests/abi/kinds/all_kinds.cpp -Wl,--version-script=" + kRoot + "/core/abi/tenon_plugin.map -o " +
        files.back());
    INFO(compiler << ": " << built.output);
    REQUIRE(built.code == 0);
  }
  REQUIRE_FALSE(files.empty());
  std::vector<std::unique_ptr<Kinds>> all;
  for (const auto& f : files) all.push_back(std::make_unique<Kinds>(f));
  for (int round = 0; round < 2; ++round)
    for (auto& k : all) {
      CHECK(k->loaded.plugin->n_descriptors == 11);
      check_loss(*k);
      check_probe(*k);
      check_graph_kinds(*k);
      check_optimizer(*k);
      check_kernel(*k);
    }
}
