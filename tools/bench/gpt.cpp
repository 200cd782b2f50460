// A small GPT, the same with a mixture of experts in each block, and one of odd sizes.
#include "tools/bench/values.h"
#include "tools/bench/workload.h"

namespace tenon::bench {
namespace {

struct Sizes {
  int64_t batch, context;
  int32_t vocabulary;
};

Result<std::unique_ptr<Workload>> gpt(const Setup& setup, const Sizes& s, const std::string& layers) {
  return recipe_workload(setup,
                         "model { layer { gpt { vocab: " + std::to_string(s.vocabulary) +
                             " context: " + std::to_string(s.context) + " " + layers + R"( } } }
    loss { id: "cross_entropy" }
    optimizer { id: "adamw" options { lr: 0.001 weight_decay: 0.01 } }
  )",
                         {{"x", integers("x", {s.batch, s.context}, s.vocabulary)},
                          {"y", integers("y", {s.batch, s.context}, s.vocabulary)}});
}

}  // namespace

Result<std::unique_ptr<Workload>> gpt_char(const Setup& setup) {
  return gpt(setup, {16, 128, 96}, "layers: 4 heads: 4 width: 128");
}
Result<std::unique_ptr<Workload>> moe_gpt_char(const Setup& setup) {
  return gpt(setup, {16, 128, 96}, "layers: 4 heads: 4 width: 128 moe { experts: 8 top_k: 2 hidden: 128 }");
}
Result<std::unique_ptr<Workload>> gpt_odd(const Setup& setup) {
  return gpt(setup, {5, 96, 101}, "layers: 3 heads: 5 width: 300");
}

}  // namespace tenon::bench
