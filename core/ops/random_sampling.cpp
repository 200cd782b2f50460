// Draws whose kernels are algorithms: gamma (rejection), permutation (sorting) and categorical (Gumbel-max).
#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "core/ops/random.h"
#include "core/ops/random_ops.h"

namespace tenon {
namespace {

using random::key_of;
using random::open_unit;
using random::Stream;

Status infer_gamma(const InferArgs& a) {
  TN_RETURN_IF_ERROR(random::check_key("random_gamma", a.in[0]));
  if (!is_floating(a.in[1].dtype))
    return invalid("random_gamma: alpha must be floating, got " + to_string(a.in[1]));
  a.out = {a.in[1]};
  return Status::ok();
}

// Marsaglia & Tsang, "A simple method for generating gamma variables", 2000: with d = alpha - 1/3, c = 1 /
// sqrt(9 d), accept d (1 + c x)^3 for normal x. Below alpha = 1: gamma(alpha + 1) U^(1/alpha). Each element
// has its own stream.
double gamma_variate(uint64_t key, uint64_t element, double alpha) {
  const auto open_pair = [&](uint64_t block) {
    const auto b = philox(key, element, block);
    return std::pair(open_unit(join_words(b[0], b[1])), open_unit(join_words(b[2], b[3])));
  };
  const double boost = alpha < 1 ? std::pow(open_pair(philox_domain::kDraw).first, 1 / alpha) : 1;
  const double d = (alpha < 1 ? alpha + 1 : alpha) - 1.0 / 3, c = 1 / std::sqrt(9 * d);
  for (uint64_t block = philox_domain::kAttempt;; block += 2) {
    const auto [u1, u2] = open_pair(block);
    const double x = std::sqrt(-2 * std::log(u1)) * std::cos(6.283185307179586 * u2);
    const double t = 1 + c * x, v = t * t * t;
    const double u = open_pair(block + 1).first;
    if (v > 0 && std::log(u) < 0.5 * x * x + d - d * v + d * std::log(v)) return boost * d * v;
  }
}

Status plain_gamma(const KernelArgs& a) {
  const uint64_t key = key_of(a.in[0]);
  return dispatch(a.in[1].dtype, [&](auto t) -> Status {
    using T = decltype(t);
    const auto alpha = dense<T>(a.in[1]);
    for (size_t i = 0; i < alpha.size(); ++i) {
      const auto shape = static_cast<double>(load(T(alpha[i])));
      if (!(shape > 0 && std::isfinite(shape)))
        return invalid("random_gamma: alpha at element " + std::to_string(i) + " is " +
                       std::to_string(shape) + "; it must be positive and finite");
      a.out[0].template as<T>()[i] = store<T>(gamma_variate(key, i, shape));
    }
    return Status::ok();
  });
}

std::vector<Sample> gamma_samples() {  // alpha is constant: a draw has no derivative here
  return {{{random::sample_key(), sample_f64({3, 4}, 0.1, 5)}, {}, {1}},
          {{random::sample_key(), sample_f64({}, 0.5, 2)}, {}, {1}},
          {{random::sample_key(), sample_f64({0}, 0.5, 2)}, {}, {1}}};
}

constexpr AttrSpec kPermutationAttrs[] = {{"n", AttrKind::i64, true}};

Status infer_permutation(const InferArgs& a) {
  TN_RETURN_IF_ERROR(random::check_key("random_permutation", a.in[0]));
  if (a.attrs.i("n") < 0)
    return invalid("random_permutation: n is " + std::to_string(a.attrs.i("n")) + "; it can't be negative");
  a.out = {{DType::i64, {a.attrs.i("n")}}};
  return Status::ok();
}

// The order of n random 64-bit numbers.
Status plain_permutation(const KernelArgs& a) {
  Stream stream(key_of(a.in[0]));
  const auto n = static_cast<size_t>(a.attrs.i("n"));
  std::vector<std::pair<uint64_t, int64_t>> ranked(n);
  for (size_t i = 0; i < n; ++i) ranked[i] = {stream.bits64(i), static_cast<int64_t>(i)};
  std::sort(ranked.begin(), ranked.end());
  for (size_t i = 0; i < n; ++i) a.out[0].as<int64_t>()[i] = ranked[i].second;
  return Status::ok();
}

std::vector<Sample> permutation_samples() {
  return {{{random::sample_key()}, AttrList().i(9)},
          {{random::sample_key()}, AttrList().i(1)},
          {{random::sample_key()}, AttrList().i(0)}};
}

Status infer_categorical(const InferArgs& a) {
  TN_RETURN_IF_ERROR(random::check_key("random_categorical", a.in[0]));
  Shape shape = a.in[1].shape;
  if (shape.empty() || shape.back() == 0 || !is_floating(a.in[1].dtype))
    return invalid("random_categorical: wants floating logits [.., C] with C > 0, got " + to_string(a.in[1]));
  shape.pop_back();
  a.out = {{DType::i64, shape}};
  return Status::ok();
}

// argmax_c logits[c] - log(-log u_c): the Gumbel-max trick.
Status plain_categorical(const KernelArgs& a) {
  Stream stream(key_of(a.in[0]));
  return dispatch(a.in[1].dtype, [&](auto t) {
    using T = decltype(t);
    const auto logits = dense<T>(a.in[1]);
    const auto classes = static_cast<size_t>(a.in[1].shape.back());
    for (size_t row = 0; row < logits.size() / classes; ++row) {
      int64_t best = 0;
      double best_score = -std::numeric_limits<double>::infinity();
      for (size_t c = 0; c < classes; ++c) {
        const size_t i = row * classes + c;
        const double score =
            static_cast<double>(load(T(logits[i]))) - std::log(-std::log(open_unit(stream.bits64(i))));
        if (score > best_score) {
          best = static_cast<int64_t>(c);
          best_score = score;
        }
      }
      a.out[0].template as<int64_t>()[row] = best;
    }
    return Status::ok();
  });
}

std::vector<Sample> categorical_samples() {
  return {{{random::sample_key(), sample_f64({5, 3}, -1, 1)}},
          {{random::sample_key(), sample_f64({4}, -1, 1)}},
          {{random::sample_key(), sample_f64({0, 2}, -1, 1)}}};
}

}  // namespace

constinit const OpDef kGamma = {.id = "random_gamma/1",
                                .min_in = 2,
                                .max_in = 2,
                                .infer = infer_gamma,
                                .plain = plain_gamma,
                                .samples = gamma_samples};
constinit const OpDef kPermutation = {.id = "random_permutation/1",
                                      .attrs = kPermutationAttrs,
                                      .infer = infer_permutation,
                                      .plain = plain_permutation,
                                      .samples = permutation_samples};
constinit const OpDef kCategorical = {.id = "random_categorical/1",
                                      .min_in = 2,
                                      .max_in = 2,
                                      .infer = infer_categorical,
                                      .plain = plain_categorical,
                                      .samples = categorical_samples};

Tensor random_gamma(Tensor key, Tensor alpha) {
  return key.valid() ? key.graph().apply(kGamma, {key, alpha}) : Tensor();
}

Tensor random_permutation(Tensor key, int64_t n) {
  return key.valid() ? key.graph().apply(kPermutation, {key}, AttrList().i(n)) : Tensor();
}

Tensor random_categorical(Tensor key, Tensor logits) {
  return key.valid() ? key.graph().apply(kCategorical, {key, logits}) : Tensor();
}

}  // namespace tenon
