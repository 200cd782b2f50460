// Normalisation. Variances are those of the population (divided by n); f32, f64, bf16 (computed in f32).
#pragma once

#include "core/graph/graph.h"

namespace tenon {

// x: [.., C]  gamma, beta: [C]  ->  (x - mean) / sqrt(var + eps) gamma + beta over the last axis.
Tensor layer_norm(Tensor x, Tensor gamma, Tensor beta, double eps = 1e-5);
// x: [.., C]  gamma: [C]  ->  x / sqrt(mean(x^2) + eps) gamma over the last axis.
Tensor rms_norm(Tensor x, Tensor gamma, double eps = 1e-6);
// x: [B, C, ..]  gamma, beta: [C] (or both null)  ->  normalised over each of `groups` equal runs of channels
// and all trailing axes.
Tensor group_norm(Tensor x, int64_t groups, Tensor gamma, Tensor beta, double eps = 1e-5);

struct BatchNorm {
  Tensor y;     // x's shape
  Tensor mean;  // [C]
  Tensor var;   // [C], of the population; running statistics conventionally use n / (n - 1) times it
};
// Training: x: [B, C, ..]  gamma, beta: [C], with the statistics of this batch over all axes but the second.
// Beside f32 parameters x may be bf16: y and the statistics are f32 then, the derivative in x is bf16.
BatchNorm batch_norm(Tensor x, Tensor gamma, Tensor beta, double eps = 1e-5);
// Evaluation: with given statistics, mean, var: [C].
Tensor batch_norm_eval(Tensor x, Tensor gamma, Tensor beta, Tensor mean, Tensor var, double eps = 1e-5);

}  // namespace tenon
