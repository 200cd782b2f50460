// Counter-based random numbers (Philox4x32-10). Element i depends on (key, i) alone: the same numbers for any
// number of threads and on any device. `key` is an i64 tensor of rank 0 (Graph::key); use a key for one call
// only, and derive others with fold_in or, on the host, split_key. Results are constants to differentiation.
#pragma once

#include <span>

#include "core/graph/graph.h"

namespace tenon {

// A new key from an old one and a number: equal to split_key(key, number) on the host.
Tensor fold_in(Tensor key, int64_t number);

// [0, 1), with 24 (f32) or 53 (f64) random bits; bf16 is the f32 number rounded down to 8 bits.
Tensor random_uniform(Tensor key, const Shape& shape, DType dtype = DType::f32);
// Mean 0, variance 1 (Box-Muller).
Tensor random_normal(Tensor key, const Shape& shape, DType dtype = DType::f32);
// Rate 1.
Tensor random_exponential(Tensor key, const Shape& shape, DType dtype = DType::f32);
// -log(-log u): the standard Gumbel distribution.
Tensor random_gumbel(Tensor key, const Shape& shape, DType dtype = DType::f32);
// Integers in [low, high), i64.
Tensor random_integers(Tensor key, const Shape& shape, int64_t low, int64_t high);
// True with probability p, element by element. -> bool, p's shape; or one p for a whole shape.
Tensor random_bernoulli(Tensor key, Tensor p);
Tensor random_bernoulli(Tensor key, const Shape& shape, double p);
// alpha: shape parameters > 0 -> alpha's shape, rate 1 (Marsaglia & Tsang 2000).
Tensor random_gamma(Tensor key, Tensor alpha);
// A uniformly random order of 0 .. n-1, i64 [n].
Tensor random_permutation(Tensor key, int64_t n);
// logits: [.., C] -> i64 [..]: index c with probability softmax(logits)[c] (Gumbel-max).
Tensor random_categorical(Tensor key, Tensor logits);

}  // namespace tenon
