// Scaled dot-product attention (Vaswani et al. 2017, eq. 1).
#pragma once

#include "core/graph/graph.h"

namespace tenon {

struct AttentionOptions {
  bool causal = false;  // query t sees keys 0 .. t + S - T (T <= S): the last query sees all of them
  double scale = 0;     // of the products q k^T; 0: 1 / sqrt(D)
};

struct Attention {
  Tensor out;        // [.., T, Dv]
  Tensor logsumexp;  // [.., T]: log of the sum of the exponentiated scores; f32 where the rest is bf16
};

// q: [.., T, D]  k: [.., S, D]  v: [.., S, Dv]  mask: broadcasts to [.., T, S], or null; equal leading
// dimensions (conventionally [B, H]) and dtypes. scores = scale q k^T + mask, out = softmax(scores) v. A mask
// of -infinity hides a key; a query that sees none gives zeros. f32, f64, bf16 (computed in f32).
Tensor scaled_dot_product_attention(Tensor q, Tensor k, Tensor v, const AttentionOptions& options = {},
                                    Tensor mask = {});
Attention attention(Tensor q, Tensor k, Tensor v, const AttentionOptions& options = {}, Tensor mask = {});

}  // namespace tenon
