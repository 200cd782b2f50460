// Evaluation: updates, the plan cache, passes on and off, flat memory.
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>
#include <fstream>
#include <random>

#include "core/graph/grad.h"
#include "core/ops/ops.h"
#include "core/plan/passes.h"
#include "core/runtime.h"
#include "tests/support/device.h"

namespace tenon {
namespace {

Array array(Runtime& rt, const std::vector<float>& v) {
  return Array::from_host(rt.backend(), HostArray::of<float>(v)).value();
}
std::vector<float> host(const Array& a) {
  const HostArray h = a.to_host().value();
  return {h.as<float>().begin(), h.as<float>().end()};
}
// AddressSanitizer holds freed memory back for a while, to notice who still reads it.
#if defined(__SANITIZE_ADDRESS__)
constexpr bool kMemoryIsKept = true;
#elif defined(__has_feature)
constexpr bool kMemoryIsKept = __has_feature(address_sanitizer);
#else
constexpr bool kMemoryIsKept = false;
#endif
size_t resident_bytes() {
  std::ifstream f("/proc/self/statm");
  size_t total = 0, resident = 0;
  f >> total >> resident;
  return resident * static_cast<size_t>(sysconf(_SC_PAGESIZE));
}

TEST_CASE("an update takes effect after every read of the old value") {
  auto rt = test::runtime();
  Array a = array(*rt, {1, 2, 3}), b = array(*rt, {10, 20, 30});
  Graph g(*rt);
  const Tensor ta = g.input(a), tb = g.input(b);
  // A swap, a sum of both old values, and the old a itself: nothing may see a new value.
  const Tensor outs[] = {ta + tb, ta};
  const Update updates[] = {{a, tb}, {b, ta}};
  auto r = g.eval(outs, updates);
  REQUIRE(r.is_ok());
  CHECK(host((*r)[0]) == std::vector<float>{11, 22, 33});
  CHECK(host((*r)[1]) == std::vector<float>{1, 2, 3});
  CHECK(host(a) == std::vector<float>{10, 20, 30});
  CHECK(host(b) == std::vector<float>{1, 2, 3});
}

TEST_CASE("an update through a view of its own target reads the old value") {
  auto rt = test::runtime();
  Array a = array(*rt, {1, 2, 3, 4});
  Graph g(*rt);
  const Tensor t = g.input(a);
  const Update updates[] = {{a, t + flip(t, {0})}};
  REQUIRE(g.eval({}, updates).is_ok());
  CHECK(host(a) == std::vector<float>{5, 5, 5, 5});
}

TEST_CASE("rows added to an array in place are those of a copy, and nothing reads them too early") {
  for (bool in_place : {true, false})
    for (bool late_reader : {false, true}) {
      CAPTURE(in_place, late_reader);
      RuntimeOptions options = test::options();
      options.pass_inplace = in_place;
      auto rt = test::runtime(options);
      Array a = array(*rt, {1, 2, 3, 4, 5, 6, 7, 8});
      const Array index = Array::from_host(rt->backend(), HostArray::of<int64_t>(std::vector<int64_t>{2, 0, 2})).value();
      Graph g(*rt);
      const Tensor rows = reshape(g.input(a), Shape{4, 2}), at = g.input(index);
      const Tensor old = gather(rows, at, 0);  // rows 2, 0, 2
      const Tensor next = reshape(scatter_add(rows, at, old * 10.0, 0), Shape{8});
      std::vector<Tensor> outs = {sum(old)};
      if (late_reader) outs.push_back(sum(rows * reshape(next, Shape{4, 2})));
      const Update updates[] = {{a, next}};
      auto r = g.eval(outs, updates);
      REQUIRE(r.is_ok());
      CHECK(host((*r)[0]) == std::vector<float>{25});
      if (late_reader) CHECK(host((*r)[1]) == std::vector<float>{1 * 11 + 2 * 22 + 9 + 16 + 5 * 105 + 6 * 126 + 49 + 64});
      CHECK(host(a) == std::vector<float>{11, 22, 3, 4, 105, 126, 7, 8});
    }
}

TEST_CASE("arrays in one buffer are known to overlap") {
  auto rt = test::runtime();
  Array all = array(*rt, {1, 2, 3, 4});
  Array head = all.slice(0, Shape{2});
  Graph g(*rt);
  const Tensor doubled = g.input(all) * 2.0;
  const Tensor outs[] = {g.input(head) * 1.0};
  const Update updates[] = {{all, doubled}};
  auto r = g.eval(outs, updates);
  REQUIRE(r.is_ok());
  CHECK(host((*r)[0]) == std::vector<float>{1, 2});
  CHECK(host(all) == std::vector<float>{2, 4, 6, 8});
  const Update twice[] = {{all, doubled}, {head, g.input(head)}};
  CHECK(!g.eval({}, twice).is_ok());
}

TEST_CASE("a changing number does not miss the plan cache, a changing shape does") {
  auto rt = test::runtime();
  if (rt->options().eager) SKIP("eager mode plans single nodes");
  Array w = array(*rt, {1, 2, 3});
  const auto step = [&](double lr) {
    Graph g(*rt);
    const Tensor t = g.input(w);
    const Update u[] = {{w, t - t * lr}};
    REQUIRE(g.eval({}, u).is_ok());
  };
  step(0.1);
  const int64_t misses = rt->stats().plan_misses;
  for (int i = 1; i < 20; ++i) step(0.1 / i);
  CHECK(rt->stats().plan_misses == misses);
  CHECK(rt->stats().plan_hits >= 19);
  w = array(*rt, {1, 2, 3, 4});
  step(0.1);
  CHECK(rt->stats().plan_misses == misses + 1);
}

TEST_CASE("a value read inside a step is not computed again") {
  auto rt = test::runtime();
  Graph g(*rt);
  const Tensor x = g.input(array(*rt, {1, 2, 3}));
  const Tensor s = sum(x * x);
  CHECK(g.value(s).value() == 14);
  CHECK(rt->stats().reads == 1);
  const Tensor y[] = {x / s};
  auto r = g.eval(y);
  REQUIRE(r.is_ok());
  CHECK(host((*r)[0])[1] == 2.0f / 14.0f);
  CHECK(g.to_host(grad(s, {&x, 1})[0]).value().at(2) == 6);
}

TEST_CASE("ten thousand steps of a small model run at flat memory") {
  auto rt = test::runtime();
  std::mt19937 rng(7);
  std::normal_distribution<float> normal;
  std::vector<float> xs(16 * 8), ws(8 * 4);
  for (float& v : xs) v = normal(rng);
  for (float& v : ws) v = normal(rng);
  Array x = Array::from_host(rt->backend(), HostArray::of<float>(xs, Shape{16, 8})).value();
  Array w = Array::from_host(rt->backend(), HostArray::of<float>(ws, Shape{8, 4})).value();
  Graph g(*rt);
  double first = 0, last = 0;
  const auto step = [&] {
    g.reset();
    const Tensor tw = g.input(w);
    const Tensor loss = mean(square(tanh(matmul(g.input(x), tw))));
    const Tensor dw = grad(loss, {&tw, 1})[0];
    const Tensor outs[] = {loss};
    const Update u[] = {{w, tw - dw * 0.01}};
    auto r = g.eval(outs, u);
    REQUIRE(r.is_ok());
    return r.value()[0].to_host().value().at(0);
  };
  const int steps = rt->options().eager ? 1000 : 10000;
  for (int i = 0; i < 200; ++i) first = step();
  const size_t before = resident_bytes();
  for (int i = 200; i < steps; ++i) last = step();
  if (!kMemoryIsKept) CHECK(resident_bytes() <= before + (size_t{1} << 20));
  CHECK(last < first);
}

TEST_CASE("each planner pass changes nothing but speed") {
  const auto run = [](RuntimeOptions options) {
    auto rt = test::runtime(options);
    Array x = array(*rt, {0.5f, -1.25f, 2, 3, -0.125f, 7});
    Graph g(*rt);
    const Tensor t = reshape(g.input(x), Shape{2, 3});
    const Tensor one = broadcast_to(g.constant(1), t.shape());
    const Tensor a = exp(t * one) - exp(t);  // shared, and x*1
    const Tensor b = tanh(transpose(t)) + transpose(relu(t) * 3.0) + transpose(a);
    const Tensor y = sum(square(b) / (neg(neg(t * t)).valid() ? transpose(neg(neg(t * t)) + 1.0) : b), {1});
    const Tensor dx = grad(sum(y), {&t, 1})[0];
    const Tensor outs[] = {y, dx};
    auto r = g.eval(outs);
    REQUIRE(r.is_ok());
    std::vector<float> v = host((*r)[0]);
    const std::vector<float> d = host((*r)[1]);
    v.insert(v.end(), d.begin(), d.end());
    return v;
  };
  RuntimeOptions base = test::options();
  const std::vector<float> expected = run(base);
  for (const PassInfo& pass : planner_passes()) {
    RuntimeOptions o = base;
    o.*pass.enabled = false;
    CAPTURE(std::string(pass.name));
    CHECK(run(o) == expected);
  }
  base.eager = !base.eager;
  CHECK(run(base) == expected);
}

TEST_CASE("a graph reports the first error, with who was building") {
  auto rt = test::runtime();
  Graph g(*rt);
  Graph::Scope scope(g, "loss 'demo'");
  const Tensor a = g.input(array(*rt, {1, 2, 3})), b = g.input(array(*rt, {1, 2}));
  CHECK(!(a + b).valid());
  CHECK(!((a + b) * a).valid());
  CHECK(g.status().message().starts_with("loss 'demo': add:"));
  CHECK(g.status().message().find("[3]") != std::string::npos);
  CHECK(g.status().message().find("[2]") != std::string::npos);
  CHECK(!g.eval({&a, 1}).is_ok());
}

}  // namespace
}  // namespace tenon
