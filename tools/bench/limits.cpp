#include "tools/bench/limits.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <deque>
#include <vector>

#include "backends/cpu/cpu.h"
#include "core/ops/matmul.h"
#include "core/runtime.h"
#include "tools/bench/measure.h"
#include "tools/bench/values.h"

namespace tenon::bench {
namespace {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point t) { return std::chrono::duration<double>(Clock::now() - t).count(); }

Result<double> product_rate(int threads) {
  constexpr int64_t n = 1024;
  auto backend = make_cpu_backend();
  backend->set_threads(threads);
  Runtime runtime(std::move(backend));
  TN_ASSIGN(const Array a, Array::from_host(runtime.backend(), data("a", {n, n})));
  TN_ASSIGN(const Array b, Array::from_host(runtime.backend(), data("b", {n, n})));
  double best = 1e300;
  Graph graph(runtime);
  for (int i = 0; i < 30; ++i) {
    graph.reset();
    const Tensor c = matmul(graph.input(a), graph.input(b));
    const auto start = Clock::now();
    TN_RETURN_IF_ERROR(graph.eval({&c, 1}).status());
    best = std::min(best, seconds_since(start));
  }
  return 2.0 * n * n * n / best;
}

double stream_rate(int threads) {
  constexpr int64_t n = int64_t{1} << 24;
  std::vector<float> a(n, 1), b(n, 2), c(n, 3);
  float *to = a.data(), *x = b.data(), *y = c.data();
  double best = 1e300;
  for (int i = 0; i < 20; ++i) {
    const auto start = Clock::now();
#pragma omp parallel for simd num_threads(threads) schedule(static)
    for (int64_t j = 0; j < n; ++j) to[j] = x[j] + 3.0f * y[j];
    best = std::min(best, seconds_since(start));
  }
  return 12.0 * n / best;
}

}  // namespace

Result<Limits> measure_limits(int threads) {
  TN_ASSIGN(const double flops, product_rate(threads));
  return Limits{.flops_per_second = flops, .bytes_per_second = stream_rate(threads)};
}

Result<double> measure_adamw_loop(int threads, double seconds) {
  constexpr int64_t n = 5'000'000;
  constexpr float lr = 1e-3f, decay = 1e-2f, beta1 = 0.9f, beta2 = 0.999f, eps = 1e-8f;
  struct Tensors {
    float *p, *g, *m, *v;
  };
  // From the backend, so that the loop has the pages that tensors have.
  const auto backend = make_cpu_backend();
  std::deque<Buffer> buffers;
  const auto filled = [&](float value) -> Result<float*> {
    TN_ASSIGN(void* memory, backend->allocate(n * sizeof(float)));
    buffers.emplace_back(*backend, memory, n * sizeof(float));
    std::fill_n(static_cast<float*>(memory), n, value);
    return static_cast<float*>(memory);
  };
  std::vector<Tensors> all(5);
  for (Tensors& t : all) {
    TN_ASSIGN(t.p, filled(1));
    TN_ASSIGN(t.g, filled(0.5f));
    TN_ASSIGN(t.m, filled(0));
    TN_ASSIGN(t.v, filled(0));
  }
  int count = 0;
  const auto step = [&] {
    ++count;
    const float rate = lr / (1 - std::pow(beta1, static_cast<float>(count)));
    const float root = 1 / std::sqrt(1 - std::pow(beta2, static_cast<float>(count)));
    for (const Tensors& t : all) {
      float *p = t.p, *m = t.m, *v = t.v;
      const float* g = t.g;
#pragma omp parallel for simd num_threads(threads) schedule(static)
      for (int64_t i = 0; i < n; ++i) {
        m[i] = beta1 * m[i] + (1 - beta1) * g[i];
        v[i] = beta2 * v[i] + (1 - beta2) * g[i] * g[i];
        p[i] = p[i] * (1 - lr * decay) - rate * m[i] / (std::sqrt(v[i]) * root + eps);
      }
    }
  };
  for (int i = 0; i < 5; ++i) step();
  std::vector<double> ms;
  for (const auto begin = Clock::now(); seconds_since(begin) < seconds || ms.size() < 5;) {
    const auto start = Clock::now();
    step();
    ms.push_back(seconds_since(start) * 1e3);
  }
  return median(std::move(ms));
}

}  // namespace tenon::bench
