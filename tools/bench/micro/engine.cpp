// What a step costs beside its kernels: building the graph (target: 150 ns a node), deriving it, running a
// known plan (target: 1 us a kernel), and calling a plugin.
#include <benchmark/benchmark.h>

#include <filesystem>

#include "backends/cpu/cpu.h"
#include "core/graph/grad.h"
#include "core/ops/ops.h"
#include "core/plugin/loss.h"
#include "core/runtime.h"
#include "tools/bench/process.h"
#include "tools/bench/values.h"

namespace tenon::bench {
namespace {

const auto kPerItem = benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert;

std::unique_ptr<Runtime> one_thread() {
  auto backend = make_cpu_backend();
  backend->set_threads(1);
  return std::make_unique<Runtime>(std::move(backend));
}

Array ones(Runtime& runtime, const Shape& shape) {
  return Array::from_host(runtime.backend(), uniform("x", shape, 1, 0)).value();
}

// A perceptron with `layers` layers: matmul, bias and activation each.
Tensor perceptron(Graph& graph, const Array& x, const Array& w, const Array& b, int64_t layers) {
  Tensor y = graph.input(x);
  const Tensor weight = graph.input(w), bias = graph.input(b);
  for (int64_t i = 0; i < layers; ++i) y = relu(matmul(y, weight) + bias);
  return sum(y);
}

void build_graph(benchmark::State& state) {
  const auto runtime = one_thread();
  const Array x = ones(*runtime, {4, 8}), w = ones(*runtime, {8, 8}), b = ones(*runtime, {8});
  Graph graph(*runtime);
  size_t nodes = 0;
  for (auto _ : state) {
    graph.reset();
    benchmark::DoNotOptimize(perceptron(graph, x, w, b, state.range(0)));
    nodes = graph.nodes().size();
  }
  state.counters["per_node"] = benchmark::Counter(static_cast<double>(nodes), kPerItem);
}
BENCHMARK(build_graph)->Name("graph/build/layers")->Arg(3)->Arg(100);

// Forward and derivatives; per node of the whole graph.
void build_derivatives(benchmark::State& state) {
  const auto runtime = one_thread();
  const Array x = ones(*runtime, {4, 8}), w = ones(*runtime, {8, 8}), b = ones(*runtime, {8});
  Graph graph(*runtime);
  size_t nodes = 0;
  for (auto _ : state) {
    graph.reset();
    const Tensor y = perceptron(graph, x, w, b, state.range(0));
    benchmark::DoNotOptimize(grad(y, {{graph.input(w), graph.input(b)}}));
    nodes = graph.nodes().size();
  }
  state.counters["per_node"] = benchmark::Counter(static_cast<double>(nodes), kPerItem);
}
BENCHMARK(build_derivatives)->Name("graph/build_with_derivatives/layers")->Arg(3)->Arg(100);

// A chain of kernels of one element, which no pass joins: what is measured is the way to them.
void plan_hit(benchmark::State& state) {
  const auto runtime = one_thread();
  const Array x = ones(*runtime, {1});
  Graph graph(*runtime);
  Tensor y = graph.input(x);
  for (int64_t i = 0; i < state.range(0); ++i) y = cumsum(y, 0);
  if (const auto r = graph.eval({&y, 1}); !r) return state.SkipWithError(r.status().message().c_str());
  const int64_t before = runtime->stats().kernels;
  for (auto _ : state) benchmark::DoNotOptimize(graph.eval({&y, 1}));
  const auto kernels =
      static_cast<double>(runtime->stats().kernels - before) / static_cast<double>(state.iterations());
  state.counters["per_kernel"] = benchmark::Counter(kernels, kPerItem);
}
BENCHMARK(plan_hit)->Name("plan/hit/kernels")->Arg(1)->Arg(24)->Arg(256);

// Making a plan for a graph that is not known.
void plan_miss(benchmark::State& state) {
  auto backend = make_cpu_backend();
  backend->set_threads(1);
  Runtime runtime(std::move(backend), {.plan_cache_bytes = 0});
  const Array x = ones(runtime, {4, 8}), w = ones(runtime, {8, 8}), b = ones(runtime, {8});
  const std::vector<Array> others{ones(runtime, {1}), ones(runtime, {2})};
  Graph graph(runtime);
  size_t i = 0;
  for (auto _ : state) {
    graph.reset();
    const Tensor y = perceptron(graph, x, w, b, state.range(0));
    // The last plan is always kept, so every other evaluation is of another graph.
    const std::vector<Tensor> outputs{y, graph.input(others[i++ % 2])};
    benchmark::DoNotOptimize(graph.eval(outputs));
  }
}
BENCHMARK(plan_miss)->Name("plan/miss/layers")->Arg(3)->Unit(benchmark::kMicrosecond);

// From the host into a plugin and back: the graph of a loss appended through the ABI.
void plugin_call(benchmark::State& state) {
  const auto runtime = one_thread();
  Catalog catalog;
  const std::string folder = std::filesystem::path(this_program()).parent_path().string() + "/plugins";
  if (const Status s = catalog.add_folder(folder); !s.is_ok())
    return state.SkipWithError(s.message().c_str());
  auto loss = LossPlugin::create(catalog, "mse", "mse", {});
  if (!loss) return state.SkipWithError(loss.status().message().c_str());
  const Array x = ones(*runtime, {4, 1}), y = ones(*runtime, {4, 1});
  Graph graph(*runtime);
  size_t nodes = 0;
  for (auto _ : state) {
    graph.reset();
    const std::vector<NamedTensor> roles{{"prediction", graph.input(x)}, {"target", graph.input(y)}};
    if (const auto r = (*loss)->build(graph, {}, roles, nullptr); !r)
      return state.SkipWithError(r.status().message().c_str());
    nodes = graph.nodes().size();
  }
  state.counters["per_node"] = benchmark::Counter(static_cast<double>(nodes), kPerItem);
}
BENCHMARK(plugin_call)->Name("plugin/loss/mse");

}  // namespace
}  // namespace tenon::bench

BENCHMARK_MAIN();
