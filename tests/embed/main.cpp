// A network learns to tell three clouds of points apart: model, loss, gradient and update from C++.
#include <cstdio>

#include "backends/cpu/cpu.h"
#include "core/data/readers.h"
#include "core/graph/grad.h"
#include "core/nn/layers.h"
#include "core/ops/ops.h"
#include "core/runtime.h"

using namespace tenon;

Result<double> train() {
  Runtime runtime(make_cpu_backend());
  TN_ASSIGN(const Dataset data, make_synthetic({.kind = "blobs", .n = 300}));
  TN_ASSIGN(const Array points, Array::from_host(runtime.backend(), data.columns().at("x")));
  TN_ASSIGN(const Array labels, Array::from_host(runtime.backend(), data.columns().at("y")));
  TN_ASSIGN(const auto model, nn::build(runtime, nn::mlp({.hidden = {16}, .output = 3}), {points.type()}));
  for (int step = 1;; ++step) {
    Graph graph(runtime);
    nn::Context context(graph, /*train=*/true);
    const Tensor loss = mean(cross_entropy(model(context, graph.input(points)), graph.input(labels)));
    std::vector<Tensor> parameters;
    for (const auto& p : model.parameters) parameters.push_back(graph.input(p->value));
    const std::vector<Tensor> gradients = grad(loss, parameters);
    std::vector<Update> updates;
    for (size_t i = 0; i < parameters.size(); ++i)
      updates.push_back({model.parameters[i]->value, parameters[i] - 0.1 * gradients[i]});
    TN_ASSIGN(const std::vector<Array> values, graph.eval(std::span(&loss, 1), updates));
    TN_ASSIGN(const HostArray value, values[0].to_host());
    if (step % 50 == 0) std::printf("step %d: loss %.4f\n", step, value.at(0));
    if (step == 200) return value.at(0);
  }
}

int main() {
  const Result<double> loss = train();
  if (!loss) std::fprintf(stderr, "%s\n", loss.status().message().c_str());
  return loss && *loss < 0.1 ? 0 : 1;
}
