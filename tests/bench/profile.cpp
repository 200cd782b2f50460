// The profile: what kernels cost, sums, and the trace.
#include "tools/bench/profile.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "backends/cpu/cpu.h"
#include "backends/reference/reference.h"
#include "core/graph/grad.h"
#include "core/io/file.h"
#include "core/ops/ops.h"
#include "core/runtime.h"
#include "tests/io/temp_folder.h"
#include "tests/support/device.h"
#include "tools/bench/profile_report.h"
#include "tools/bench/values.h"

namespace tenon::bench {
namespace {

using Catch::Matchers::WithinRel;

std::unique_ptr<Backend> device() {
  const char* name = std::getenv("TENON_TEST_DEVICE");
  return name && std::string_view(name) == "reference" ? make_reference_backend() : make_cpu_backend();
}

// What one evaluation of `build` does, kernel by kernel.
std::vector<Profile::Row> profile_of(const std::function<Tensor(Graph&)>& build) {
  Profile profile;
  Runtime runtime(profiled(device(), profile), test::options());
  Graph graph(runtime);
  profile.start();
  const Tensor y = build(graph);
  const auto values = graph.eval({&y, 1});
  INFO(values.status().message());
  REQUIRE(values.is_ok());
  profile.stop();
  return profile.rows();
}

Tensor input(Graph& g, const char* name, const Shape& shape) {
  return g.input(Array::from_host(g.backend(), data(name, shape)).value());
}

const Profile::Row& row_with(const std::vector<Profile::Row>& rows, std::string_view op) {
  for (const Profile::Row& r : rows)
    if (r.ops.find(op) != std::string::npos) return r;
  FAIL("no kernel does " << op);
  return rows[0];
}

TEST_CASE("a product of [37, 5] and [5, 11] is 2 x 37 x 5 x 11 operations") {
  for (const bool transposed : {false, true}) {
    const auto rows = profile_of([&](Graph& g) {
      return matmul(input(g, "a", transposed ? Shape{5, 37} : Shape{37, 5}), input(g, "b", {5, 11}),
                    transposed);
    });
    const Profile::Row& r = row_with(rows, "matmul");
    CHECK(r.calls == 1);
    CHECK(r.seconds > 0);
    CHECK(r.cost.flops == 2 * 37 * 5 * 11);
    CHECK(r.cost.bytes == 4 * (37 * 5 + 5 * 11 + 37 * 11));
    CHECK(r.shapes.ends_with("f32[5, 11] -> f32[37, 11]"));
  }
}

TEST_CASE("a convolution and both of its derivatives do the same work") {
  // Each of 2 x 6 x 5 x 4 outputs meets 3 x 3 x 3 weights.
  const double flops = 2.0 * (2 * 6 * 5 * 4) * (3 * 3 * 3);
  Profile profile;
  Runtime runtime(profiled(device(), profile), test::options());
  Graph g(runtime);
  profile.start();
  const Tensor x = input(g, "x", {2, 3, 7, 6}), w = input(g, "w", {6, 3, 3, 3});
  const Tensor y = sum(square(conv2d(x, w)));
  REQUIRE(g.eval(grad(y, {{x, w}})).is_ok());
  for (const char* op : {"conv2d", "conv2d_input_grad", "conv2d_weight_grad"}) {
    INFO(op);
    for (const Profile::Row& r : profile.rows())
      if (r.ops == op) CHECK(r.cost.flops == flops);
    row_with(profile.rows(), op);
  }
}

TEST_CASE("causal attention does half of the products") {
  const auto flops = [](bool causal) {
    const auto rows = profile_of([&](Graph& g) {
      const Shape s{2, 3, 16, 8};
      return scaled_dot_product_attention(input(g, "q", s), input(g, "k", s), input(g, "v", s),
                                          {.causal = causal});
    });
    return row_with(rows, "attention").cost.flops;
  };
  CHECK(flops(false) == 2.0 * (2 * 3 * 16 * 16) * (8 + 8));
  CHECK(flops(true) == flops(false) / 2);
}

TEST_CASE("a broadcast operand is read once") {
  const auto rows = profile_of([](Graph& g) { return input(g, "x", {100, 30}) + input(g, "b", {30}); });
  const Profile::Row& r = row_with(rows, "add");
  CHECK(r.cost.flops == 100 * 30);
  CHECK(r.cost.bytes == 4 * (100 * 30 + 30 + 100 * 30));
}

TEST_CASE("profiled steps are the same steps, and their times add up") {
  const auto step = [](Runtime& runtime) {
    Graph g(runtime);
    const Tensor x = input(g, "x", {40, 20}), w = input(g, "w", {20, 10});
    const Tensor y = mean(square(relu(matmul(x, w)) + 1));
    return std::pair(g.eval(std::vector{y, grad(y, {{w}})[0]}).value(), Status::ok());
  };
  Profile profile;
  Runtime plain(device(), test::options()), timed(profiled(device(), profile), test::options());
  const auto expected = step(plain).first;
  const auto s = profile_steps(timed, profile, 5, [&](int64_t) {
    const auto got = step(timed).first;
    for (size_t i = 0; i < got.size(); ++i) {
      const HostArray a = got[i].to_host().value(), b = expected[i].to_host().value();
      REQUIRE(std::memcmp(a.data(), b.data(), a.size_bytes()) == 0);
    }
    return Status::ok();
  });
  INFO(s.status().message());
  REQUIRE(s.is_ok());
  // The planner decides as it does without the profile.
  CHECK(profile.counts().kernels == 5 * plain.stats().kernels);
  CHECK(profile.counts().kernels == s->stats.kernels);
  CHECK(s->stats.plan_misses == 0);
  CHECK(profile.counts().compiled == 0);
  double ms = 0;
  for (const Profile::Row& r : profile.rows()) {
    CHECK(r.calls % 5 == 0);
    ms += r.seconds * 1e3;
  }
  CHECK_THAT(s->kernel_ms, WithinRel(ms / 5, 1e-9));
  CHECK(s->kernel_ms < s->step_ms);
  CHECK(s->limits.flops_per_second > 1e6);
  CHECK(s->limits.bytes_per_second > 1e6);
  const std::string table = table_of(profile, *s);
  CHECK(table.find("matmul") != std::string::npos);
  CHECK(table.find("a step, the mean of 5") != std::string::npos);
}

TEST_CASE("the trace holds every kernel and every step, in their times") {
  Profile profile;
  Runtime runtime(profiled(device(), profile), test::options());
  const auto s = profile_steps(runtime, profile, 3, [&](int64_t) {
    Graph g(runtime);
    const Tensor y = sum(matmul(input(g, "x", {8, 8}), input(g, "w", {8, 8})));
    return g.eval({&y, 1}).status();
  });
  REQUIRE(s.is_ok());
  const test::TempFolder folder;
  const std::string path = folder.file("trace.json");
  REQUIRE(profile.write_trace(path).is_ok());
  const auto trace = nlohmann::json::parse(read_bytes(path).value());
  std::map<int, double> end;  // of the last event on each track
  int64_t kernels = 0, steps = 0;
  for (const auto& e : trace.at("traceEvents")) {
    if (e.at("ph") == "M") continue;
    REQUIRE(e.at("ph") == "X");
    (e.at("cat") == "kernel" ? kernels : steps) += 1;
    CHECK(e.at("dur").get<double>() >= 0);
    CHECK(e.at("ts").get<double>() >= end[e.at("tid").get<int>()] - 1e-3);
    end[e.at("tid").get<int>()] = e.at("ts").get<double>() + e.at("dur").get<double>();
    if (e.at("name") == "matmul") CHECK(e.at("args").at("flops") == 2 * 8 * 8 * 8);
  }
  CHECK(kernels == profile.counts().kernels);
  CHECK(steps == 3);
}

}  // namespace
}  // namespace tenon::bench
