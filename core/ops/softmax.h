// Softmax and the loss built on it. f32, f64, bf16 (computed in f32).
#pragma once

#include "core/graph/graph.h"

namespace tenon {

Tensor softmax(Tensor x, int axis = -1);
Tensor log_softmax(Tensor x, int axis = -1);
// Derivatives, from the output y of the op and the cotangent dy: y (dy - sum(dy y)) and dy - exp(y) sum(dy).
Tensor softmax_grad(Tensor y, Tensor dy, int axis = -1);
Tensor log_softmax_grad(Tensor y, Tensor dy, int axis = -1);

struct CrossEntropyOptions {
  double label_smoothing = 0;   // s in [0, 1]: target (1 - s) onehot + s / C
  int64_t ignore_index = -100;  // this label has loss and gradient zero; every other must lie in [0, C)
};
// logits: [.., C]  labels: i32 or i64 [..]  ->  [..]: -sum_c target_c log softmax(logits)_c for each sample.
Tensor cross_entropy(Tensor logits, Tensor labels, const CrossEntropyOptions& options = {});
// dloss: [..] -> logits' shape: (softmax(logits) - target) dloss, the derivative of cross_entropy.
Tensor cross_entropy_grad(Tensor logits, Tensor labels, Tensor dloss,
                          const CrossEntropyOptions& options = {});

}  // namespace tenon
