// A small GPT, and the same with a mixture of experts in each block.
#include "tools/bench/values.h"
#include "tools/bench/workload.h"

namespace tenon::bench {
namespace {

Columns tokens() { return {{"x", integers("x", {16, 128}, 96)}, {"y", integers("y", {16, 128}, 96)}}; }

}  // namespace

Result<std::unique_ptr<Workload>> gpt_char(const Setup& setup) {
  return recipe_workload(setup, R"(
    model { layer { gpt { layers: 4 heads: 4 width: 128 vocab: 96 context: 128 } } }
    loss { id: "cross_entropy" }
    optimizer { id: "adamw" options { lr: 0.001 weight_decay: 0.01 } }
  )",
                         tokens());
}

Result<std::unique_ptr<Workload>> moe_gpt_char(const Setup& setup) {
  return recipe_workload(setup, R"(
    model {
      layer { gpt { layers: 4 heads: 4 width: 128 vocab: 96 context: 128 moe { experts: 8 top_k: 2 hidden: 128 } } }
    }
    loss { id: "cross_entropy" }
    optimizer { id: "adamw" options { lr: 0.001 weight_decay: 0.01 } }
  )",
                         tokens());
}

}  // namespace tenon::bench
