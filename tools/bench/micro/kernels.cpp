// Single kernels of the CPU backend, as a plan runs them: time, FLOP/s and bytes/s.
#include <benchmark/benchmark.h>

#include "backends/cpu/cpu.h"
#include "core/ops/ops.h"
#include "core/runtime.h"
#include "tools/bench/cost.h"
#include "tools/bench/profile.h"
#include "tools/bench/values.h"

namespace tenon::bench {
namespace {

using Build = Tensor (*)(const std::vector<Tensor>&);

struct Case {
  const char* name;
  std::vector<Shape> inputs;
  Build build;
  int32_t classes = 0;  // > 0: the last input holds integers below it
};

Tensor chain(const std::vector<Tensor>& in) { return tanh(in[0] * in[1] + in[2]) * 0.5 + 1; }

const Case kCases[] = {
    {"matmul", {{128, 784}, {784, 512}}, [](const auto& in) { return matmul(in[0], in[1]); }},
    {"matmul", {{1024, 1024}, {1024, 1024}}, [](const auto& in) { return matmul(in[0], in[1]); }},
    {"matmul_transposed",
     {{2048, 128}, {512, 128}},
     [](const auto& in) { return matmul(in[0], in[1], false, true); }},
    {"linear",
     {{64, 123}, {64, 123}, {64}},
     [](const auto& in) { return relu(linear(in[0], in[1], in[2])); }},
    {"conv3x3",
     {{64, 32, 32, 32}, {32, 32, 3, 3}},
     [](const auto& in) {
       return conv2d(in[0], in[1], {.padding = {1, 1}});
     }},
    {"attention",
     {{16, 4, 128, 32}, {16, 4, 128, 32}, {16, 4, 128, 32}},
     [](const auto& in) { return scaled_dot_product_attention(in[0], in[1], in[2], {.causal = true}); }},
    {"chain", {{1 << 10}, {1 << 10}, {1 << 10}}, chain},
    {"chain", {{1 << 22}, {1 << 22}, {1 << 22}}, chain},
    {"bias", {{2048, 512}, {512}}, [](const auto& in) { return in[0] + in[1]; }},
    {"gelu", {{2048, 512}}, [](const auto& in) { return gelu(in[0]); }},
    {"softmax", {{2048, 96}}, [](const auto& in) { return softmax(in[0]); }},
    {"softmax", {{256, 100000}}, [](const auto& in) { return softmax(in[0]); }},
    {"layer_norm",
     {{2048, 128}, {128}, {128}},
     [](const auto& in) { return layer_norm(in[0], in[1], in[2]); }},
    {"cross_entropy",
     {{4096, 1000}, {4096}},
     [](const auto& in) { return cross_entropy(in[0], in[1]); },
     1000},
    {"sum_rows", {{4096, 1000}}, [](const auto& in) { return sum(in[0], {1}); }},
    {"sum_columns", {{4096, 1000}}, [](const auto& in) { return sum(in[0], {0}); }},
    {"embedding", {{100000, 128}, {2048}}, [](const auto& in) { return embedding(in[0], in[1]); }, 100000},
};

void run(benchmark::State& state, const Case& c, int threads) {
  Profile profile;
  auto backend = make_cpu_backend();
  backend->set_threads(threads);
  Runtime runtime(profiled(std::move(backend), profile));
  std::vector<Array> arrays;
  for (size_t i = 0; i < c.inputs.size(); ++i) {
    const std::string name = "input" + std::to_string(i);
    const bool integer = c.classes > 0 && i + 1 == c.inputs.size();
    arrays.push_back(Array::from_host(runtime.backend(), integer ? integers(name, c.inputs[i], c.classes)
                                                                 : data(name, c.inputs[i]))
                         .value());
  }
  Graph graph(runtime);
  std::vector<Tensor> in;
  for (const Array& a : arrays) in.push_back(graph.input(a));
  const Tensor y = c.build(in);
  for (int warm = 0; warm < 3; ++warm)
    if (const auto r = graph.eval({&y, 1}); !r) return state.SkipWithError(r.status().message().c_str());
  // Kernels alone, not what is around them.
  profile.start();
  double before = 0;
  for (auto _ : state) {
    benchmark::DoNotOptimize(graph.eval({&y, 1}));
    double seconds = 0;
    for (const Profile::Row& r : profile.rows()) seconds += r.seconds;
    state.SetIterationTime(seconds - before);
    before = seconds;
  }
  Cost cost;
  for (const Profile::Row& r : profile.rows()) cost.flops += r.cost.flops, cost.bytes += r.cost.bytes;
  const auto rate = benchmark::Counter::kIsIterationInvariantRate;
  state.counters["FLOP/s"] = benchmark::Counter(cost.flops, rate);
  state.counters["B/s"] = benchmark::Counter(cost.bytes, rate);
}

const bool kRegistered = [] {
  for (const Case& c : kCases)
    for (const int threads : {1, 2}) {
      std::string name = std::string("kernel/") + c.name;
      for (const Shape& s : c.inputs) name += to_string(s);
      std::erase(name, ' ');
      benchmark::RegisterBenchmark((name + "/threads:" + std::to_string(threads)).c_str(), run, c, threads)
          ->UseManualTime();
    }
  return true;
}();

}  // namespace
}  // namespace tenon::bench
