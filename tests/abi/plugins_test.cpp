// What must hold for every built plugin: its symbols, its schema, and how it meets an older host and bad
// input.
#include <algorithm>
#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <filesystem>
#include <set>
#include <sstream>

#include "tests/abi/mini_host.h"
#include "tests/abi/shell.h"

using namespace abi_test;
namespace fs = std::filesystem;

namespace {

const std::string kBuilt = TENON_BINARY_DIR;

std::vector<std::string> built_plugins() {
  std::vector<std::string> out;
  for (const char* folder : {"/plugins", "/examples/c", "/examples/cpp"})
    for (const auto& f : fs::directory_iterator(kBuilt + folder))
      if (f.path().extension() == ".so") out.push_back(f.path().string());
  std::sort(out.begin(), out.end());
  return out;
}

std::vector<std::string> words(const std::string& s) {
  std::istringstream in(s);
  std::vector<std::string> out;
  for (std::string w; in >> w;) out.push_back(w);
  return out;
}

}  // namespace

TEST_CASE("a plugin exports its entry alone and asks the host for no symbol") {
  REQUIRE(have_program("nm"));
  const auto plugins = built_plugins();
  REQUIRE(plugins.size() >= 15);
  for (const std::string& file : plugins) {
    CAPTURE(file);
    const Ran defined = run("nm -D --defined-only -P " + file + " | cut -d' ' -f1");
    CHECK(words(defined.output) == std::vector<std::string>{TN_ENTRY_NAME});
    const Ran undefined = run("nm -D --undefined-only -P " + file);
    CHECK(undefined.output.find("tn_") == std::string::npos);
    CHECK(undefined.output.find("tenon") == std::string::npos);
  }
}

TEST_CASE("descriptors are complete and consistent") {
  const MiniHost host;
  const std::set<std::string> kinds = {
      TN_KIND_LOSS,      TN_KIND_REWEIGHTER, TN_KIND_OPTIMIZER,  TN_KIND_PARAMETRIZATION, TN_KIND_ROUTER,
      TN_KIND_QUANTIZER, TN_KIND_ATTACK,     TN_KIND_AGGREGATOR, TN_KIND_PROCEDURE,       TN_KIND_KERNEL,
      TN_KIND_MODULE};
  std::set<std::string> ids;
  for (const std::string& file : built_plugins()) {
    CAPTURE(file);
    const Loaded loaded(file, host);
    REQUIRE(loaded.error.empty());
    const tn_plugin* p = loaded.plugin;
    CHECK(TN_HAS(p, vendor));
    CHECK(TN_HAS(p, version));
    REQUIRE(p->n_descriptors >= 1);
    for (uint32_t i = 0; i < p->n_descriptors; ++i) {
      const tn_descriptor* d = p->descriptors[i];
      CAPTURE(d->id);
      CHECK(ids.insert(std::string(d->kind) + d->id).second);
      CHECK(kinds.count(d->kind) == 1);
      CHECK(std::string(d->help).find('\n') == std::string::npos);
      CHECK(TN_HAS(d, vtable));
      std::set<std::string> names;
      for (uint32_t k = 0; k < d->n_options; ++k) {
        const tn_option* o = d->options[k];
        CAPTURE(o->name);
        CHECK(names.insert(o->name).second);
        CHECK(TN_HAS(o, help));
        if ((o->flags & TN_OPTION_REQUIRED) || o->fallback.type == TN_VALUE_NONE) continue;  // no default
        CHECK(o->fallback.type == o->type);
        if (o->type == TN_VALUE_F64 && o->flags & TN_OPTION_MIN)
          CHECK((o->flags & TN_OPTION_MIN_OPEN ? o->fallback.as.f64 > o->min : o->fallback.as.f64 >= o->min));
        if (o->n_choices > 0)
          CHECK(std::count_if(o->choices, o->choices + o->n_choices,
                              [&](const char* c) { return std::string(c) == o->fallback.as.str; }) == 1);
      }
      if (std::string(d->kind) == TN_KIND_OPTIMIZER) CHECK(names.count("lr") == 1);
      names.clear();
      for (uint32_t k = 0; k < d->n_roles; ++k) {
        CHECK(names.insert(d->roles[k]->name).second);
        CHECK(TN_HAS(d->roles[k], help));
      }
    }
  }
}

TEST_CASE("an id that a plugin does not know gives no extension") {
  const MiniHost host;
  for (const std::string& file : built_plugins()) {
    CAPTURE(file);
    const Loaded loaded(file, host);
    REQUIRE(loaded.error.empty());
    for (uint32_t i = 0; i < loaded.plugin->n_descriptors; ++i) {
      const tn_descriptor* d = loaded.plugin->descriptors[i];
      if (!TN_HAS(d, get_extension)) continue;
      CHECK(d->get_extension("tenon.no-such/1") == nullptr);
      CHECK(d->get_extension("") == nullptr);
    }
  }
}

TEST_CASE("hello_loss, in C and in C++, computes the same loss") {
  const std::vector<double> x = {0.5, -1, 3, 2}, y = {0, 1, 3, -2};
  double expected = 0;
  for (size_t i = 0; i < 4; ++i) expected += std::log(1 + (x[i] - y[i]) * (x[i] - y[i]) / 2) * 2 / 4;
  for (const char* which : {"/examples/c/hello_loss.so", "/examples/cpp/hello_loss.so"}) {
    CAPTURE(which);
    MiniHost host;
    const Loaded loaded(kBuilt + which, host);
    REQUIRE(loaded.error.empty());
    Instance loss(host, loaded.plugin->descriptors[0], {{"scale", real(2)}});
    const Outcome o = loss.loss({{"prediction", tensor({4}, x)}, {"target", tensor({4}, y)}});
    REQUIRE(o.code == TN_STATUS_OK);
    CHECK(o.emitted.at("loss").value.data[0] == Catch::Approx(expected).epsilon(1e-14));
    const Outcome bad = loss.loss({{"prediction", tensor({4}, x)}, {"target", tensor({3}, {1, 2, 3})}});
    CHECK(bad.code == TN_STATUS_INVALID);
    CHECK(bad.message == "sub/1: shapes do not broadcast");
    CHECK(bad.emitted.empty());
  }
}

TEST_CASE("on a host that lacks an op a plugin fails with the op's name") {
  MiniHost host;
  host.forget_op("log1p/1");
  const Loaded loaded(kBuilt + "/examples/cpp/hello_loss.so", host);
  REQUIRE(loaded.error.empty());
  Instance loss(host, loaded.plugin->descriptors[0]);
  const Outcome o = loss.loss({{"prediction", tensor({2}, {1, 2})}, {"target", tensor({2}, {0, 0})}});
  CHECK(o.code == TN_STATUS_UNSUPPORTED);
  CHECK(o.message == "this host has no op log1p/1");
}

TEST_CASE("two hosts in one process do not mix") {
  const std::map<std::string, Value> in = {{"prediction", tensor({2}, {1, 2})},
                                           {"target", tensor({2}, {0, 0})}};
  MiniHost a, b;
  const Loaded in_a(kBuilt + "/examples/cpp/hello_loss.so", a),
      in_b(kBuilt + "/examples/cpp/hello_loss.so", b);
  REQUIRE(in_a.plugin == in_b.plugin);  // one library, counted
  Instance loss_a(a, in_a.plugin->descriptors[0]), loss_b(b, in_b.plugin->descriptors[0]);
  const double first = loss_a.loss(in).emitted.at("loss").value.data[0];
  b.forget_op("square/1");
  CHECK(loss_b.loss(in).code == TN_STATUS_UNSUPPORTED);
  CHECK(loss_a.loss(in).emitted.at("loss").value.data[0] == first);
}

TEST_CASE("a null input fails without a crash, and an instance may be used again") {
  MiniHost host;
  const Loaded loaded(kBuilt + "/plugins/mse.so", host);
  REQUIRE(loaded.error.empty());
  Instance loss(host, loaded.plugin->descriptors[0]);
  const Outcome missing = loss.loss({{"prediction", tensor({2}, {1, 2})}});
  CHECK(missing.code != TN_STATUS_OK);
  CHECK(missing.emitted.count("loss") == 0);
  const Outcome good = loss.loss({{"prediction", tensor({2}, {1, 2})}, {"target", tensor({2}, {1, 4})}});
  CHECK(good.emitted.at("loss").value.data[0] == 2);
}
