// Running a graph with every pass, without each, without any, and node by node.
#pragma once

#include <catch2/catch_test_macros.hpp>
#include <cstring>
#include <functional>
#include <random>

#include "core/graph/graph.h"
#include "core/plan/passes.h"
#include "tests/support/device.h"

namespace tenon::test {

inline HostArray random_array(std::mt19937& rng, const Shape& shape) {
  std::normal_distribution<float> normal;
  HostArray a(DType::f32, shape);
  for (float& v : a.as<float>()) v = normal(rng);
  return a;
}

struct Ran {
  std::vector<HostArray> values;
  int64_t kernels = 0;
};
using Builder = std::function<std::vector<Tensor>(Graph&, std::span<const Tensor>)>;

inline Ran run(const RuntimeOptions& options, std::span<const HostArray> inputs, const Builder& build) {
  auto rt = runtime(options);
  Graph g(*rt);
  std::vector<Tensor> in;
  for (const HostArray& h : inputs) in.push_back(g.input(Array::from_host(rt->backend(), h).value()));
  const std::vector<Tensor> outputs = build(g, in);
  INFO(g.status().message());
  REQUIRE(g.status().is_ok());
  auto r = g.eval(outputs);
  INFO((r ? std::string() : r.status().message()));
  REQUIRE(r.is_ok());
  Ran ran;
  ran.kernels = rt->stats().kernels;
  for (const Array& a : *r) ran.values.push_back(a.to_host().value());
  return ran;
}

// The same bits with all passes, without each of them, without any, and in eager mode. Returns the run with
// all.
inline Ran check(std::span<const HostArray> inputs, const Builder& build) {
  const RuntimeOptions all = options();
  const Ran expected = run(all, inputs, build);
  const auto compare = [&](const RuntimeOptions& passes) {
    const Ran other = run(passes, inputs, build);
    for (size_t i = 0; i < expected.values.size(); ++i) {
      const HostArray &a = expected.values[i], &b = other.values[i];
      REQUIRE(a.size_bytes() == b.size_bytes());
      CHECK(std::memcmp(a.data(), b.data(), a.size_bytes()) == 0);
    }
  };
  for (const PassInfo& pass : planner_passes()) {
    CAPTURE(std::string(pass.name));
    RuntimeOptions without = all;
    without.*pass.enabled = false;
    compare(without);
  }
  RuntimeOptions none = all;
  REQUIRE(set_passes(none, "-all").is_ok());
  compare(none);
  RuntimeOptions eager = all;
  eager.eager = true;
  compare(eager);
  return expected;
}

}  // namespace tenon::test
