// Written by tools/peers/bench_peers.py values: what PyTorch 2.15.0 gives in the first three
// steps of each workload from the values of values.h. The numbers of Workload::outcome(), step by step.
#pragma once

#include <span>
#include <string_view>

namespace tenon::bench {

struct TorchValues {
  std::string_view workload;
  std::span<const double> values;
};

inline constexpr double k_mlp_tabular[] = {0.723347604, 0.702674389, 0.684160709};
inline constexpr double k_mlp_mnist[] = {2.30887032, 2.07681847, 1.86822093};
inline constexpr double k_cnn_cifar[] = {2.3628757, 2.25488281, 2.11138082};
inline constexpr double k_gpt_char[] = {4.70744324, 4.6404376, 4.54755306};
inline constexpr double k_moe_gpt_char[] = {4.71701288, 4.64062023, 4.54206085};
inline constexpr double k_ldr_chain[] = {0.69433558, 1.99823928, 0.69433558, 1.99823928, 0.69433558, 1.99823928};
inline constexpr double k_adamw_25m[] = {-0.0038304355, -0.00815997506, -0.0124894713};
inline constexpr double k_grad_penalty[] = {1.06103349, 1.06047046, 1.059919};
inline constexpr double k_mlp_odd[] = {1.94530058, 1.75649965, 1.5898701};
inline constexpr double k_cnn_odd[] = {2.30443335, 2.22878051, 2.12059855};
inline constexpr double k_gpt_odd[] = {4.79663849, 4.54786587, 4.36163092};

inline constexpr TorchValues kTorchValues[] = {
    {"mlp_tabular", k_mlp_tabular},
    {"mlp_mnist", k_mlp_mnist},
    {"cnn_cifar", k_cnn_cifar},
    {"gpt_char", k_gpt_char},
    {"moe_gpt_char", k_moe_gpt_char},
    {"ldr_chain", k_ldr_chain},
    {"adamw_25m", k_adamw_25m},
    {"grad_penalty", k_grad_penalty},
    {"mlp_odd", k_mlp_odd},
    {"cnn_odd", k_cnn_odd},
    {"gpt_odd", k_gpt_odd},
};

}  // namespace tenon::bench
