#include "tools/bench/workload.h"

#include <algorithm>

#include "core/base/nearest.h"

namespace tenon::bench {
namespace {

constexpr WorkloadInfo kWorkloads[] = {
    {"mlp_tabular", "MLP 123-64-64-2, batch 64, cross-entropy, AdamW", mlp_tabular},
    {"mlp_mnist", "MLP 784-512-256-10, batch 128, cross-entropy, AdamW", mlp_mnist},
    {"cnn_cifar", "6 convolutions with batch norm on 3x32x32, batch 64, cross-entropy, SGD with momentum",
     cnn_cifar},
    {"gpt_char", "GPT of 4 blocks, width 128, 4 heads, context 128, batch 16, AdamW", gpt_char},
    {"moe_gpt_char", "the same with 8 experts of width 128 and top-2 routing in place of each MLP",
     moe_gpt_char},
    {"ldr_chain", "loss with margin and temperature of logits [4096, 1000], and its gradient", ldr_chain},
    {"adamw_25m", "AdamW on five parameters of 5,000,000, gradients given", adamw_25m},
    {"grad_penalty",
     "MLP 64-256-256-1, batch 256, squared error plus the squared norm of its gradient to x, SGD",
     grad_penalty},
    {"mlp_odd", "MLP 301-300-300-7, batch 37, cross-entropy, AdamW", mlp_odd},
    {"cnn_odd", "6 convolutions of 13, 27 and 51 channels with batch norm on 3x30x30, batch 37", cnn_odd},
    {"gpt_odd", "GPT of 3 blocks, width 300, 5 heads, context 96, vocabulary 101, batch 5, AdamW", gpt_odd},
};

}  // namespace

std::span<const WorkloadInfo> workloads() { return kWorkloads; }

Result<const WorkloadInfo*> find_workload(std::string_view name) {
  std::vector<std::string_view> names;
  for (const WorkloadInfo& w : kWorkloads) {
    if (w.name == name) return &w;
    names.push_back(w.name);
  }
  return invalid("no workload '" + std::string(name) + "'" + did_you_mean(name, names));
}

Status expect_f32(const Setup& setup) {
  return setup.precision == "f32" ? Status::ok()
                                  : invalid("is measured in f32 only, not in " + setup.precision);
}

}  // namespace tenon::bench
