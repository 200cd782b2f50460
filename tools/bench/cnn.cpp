// Convolution, batch norm and ReLU, twice at each of three resolutions.
#include <array>

#include "tools/bench/values.h"
#include "tools/bench/workload.h"

namespace tenon::bench {
namespace {

Result<std::unique_ptr<Workload>> cnn(const Setup& setup, int64_t batch, int64_t size,
                                      const std::array<int, 3>& channels) {
  std::string model;
  for (const int c : channels) {
    for (int i = 0; i < 2; ++i)
      model += "layer { conv2d { channels: " + std::to_string(c) +
               " kernel: 3 padding: 1 bias: false } } layer { batch_norm {} } layer { relu {} } ";
    model += c == channels.back() ? "layer { global_avg_pool {} } " : "layer { max_pool { kernel: 2 } } ";
  }
  return recipe_workload(setup,
                         "model { " + model +
                             R"(layer { linear { units: 10 } } }
    loss { id: "cross_entropy" }
    optimizer { id: "sgd" options { lr: 0.1 momentum: 0.9 } }
  )",
                         {{"x", data("x", {batch, 3, size, size})}, {"y", integers("y", {batch}, 10)}});
}

}  // namespace

Result<std::unique_ptr<Workload>> cnn_cifar(const Setup& setup) { return cnn(setup, 64, 32, {32, 64, 128}); }
Result<std::unique_ptr<Workload>> cnn_odd(const Setup& setup) { return cnn(setup, 37, 30, {13, 27, 51}); }

}  // namespace tenon::bench
