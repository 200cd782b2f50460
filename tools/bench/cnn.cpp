// Convolution, batch norm and ReLU, twice at each of three resolutions.
#include "tools/bench/values.h"
#include "tools/bench/workload.h"

namespace tenon::bench {

Result<std::unique_ptr<Workload>> cnn_cifar(const Setup& setup) {
  return recipe_workload(setup, R"(
    model {
      layer { conv2d { channels: 32 kernel: 3 padding: 1 bias: false } } layer { batch_norm {} } layer { relu {} }
      layer { conv2d { channels: 32 kernel: 3 padding: 1 bias: false } } layer { batch_norm {} } layer { relu {} }
      layer { max_pool { kernel: 2 } }
      layer { conv2d { channels: 64 kernel: 3 padding: 1 bias: false } } layer { batch_norm {} } layer { relu {} }
      layer { conv2d { channels: 64 kernel: 3 padding: 1 bias: false } } layer { batch_norm {} } layer { relu {} }
      layer { max_pool { kernel: 2 } }
      layer { conv2d { channels: 128 kernel: 3 padding: 1 bias: false } } layer { batch_norm {} } layer { relu {} }
      layer { conv2d { channels: 128 kernel: 3 padding: 1 bias: false } } layer { batch_norm {} } layer { relu {} }
      layer { global_avg_pool {} }
      layer { linear { units: 10 } }
    }
    loss { id: "cross_entropy" }
    optimizer { id: "sgd" options { lr: 0.1 momentum: 0.9 } }
  )",
                         {{"x", data("x", {64, 3, 32, 32})}, {"y", integers("y", {64}, 10)}});
}

}  // namespace tenon::bench
