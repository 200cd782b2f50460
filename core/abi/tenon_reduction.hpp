// How losses end: the option "reduction" and the optional input "sample_weight", the same for all of them.
#pragma once

#include "tenon_context.hpp"
#include "tenon_options.hpp"

namespace tn {

class Reduction {
 public:
  explicit Reduction(Setup& s)
      : mode_(s.text("reduction", "mean", "mean, sum, or none (one loss per sample)",
                     {"mean", "sum", "none"})) {
    s.input("sample_weight", "[B] weights of the samples; the mean is then the weighted one")
        .optional()
        .rank(1);
  }

  // losses: [B, ..]. weights: of losses' shape, already multiplied into them; the mean divides by their sum
  // (null: by the number of elements). Weights that are all zero give zero, not NaN. Emits the loss and the
  // losses per sample.
  void emit(const Build& b, Tensor losses, Tensor weights = {}) const {
    const int rank = losses.rank();
    Dims rest;  // all axes but the first
    for (int i = 1; i < rank; ++i) rest.at[rest.n++] = i;
    Tensor per_sample = losses;
    if (rank > 1) {
      per_sample = sum(losses, rest);
      if (mode_ != "sum") per_sample = weights ? ratio(per_sample, sum(weights, rest)) : mean(losses, rest);
    }
    b.per_sample(per_sample);
    if (const Tensor given = b["sample_weight"]) {
      Tensor w = cast_like(given, losses);
      for (int i = 1; i < rank; ++i) w = unsqueeze(w, -1);
      losses = losses * w;
      per_sample = per_sample * cast_like(given, losses);
      weights = weights ? weights * w : broadcast_to(w, losses.shape());
    }
    if (mode_ == "none")
      b.loss(per_sample);
    else if (mode_ == "sum")
      b.loss(sum(losses));
    else
      b.loss(weights ? ratio(sum(losses), sum(weights)) : mean(losses));
  }

 private:
  static Tensor ratio(Tensor total, Tensor weight) { return total / maximum(weight, 1e-30); }
  std::string mode_;
};

// target in prediction's dtype and shape: [B] against [B, 1] is reshaped, anything else is an error (never
// broadcast).
inline Tensor match(Tensor target, Tensor prediction) {
  target = cast_like(target, prediction);
  const Dims a = target.shape(), b = prediction.shape();
  if (!target) return target;
  const uint32_t common = a.n < b.n ? a.n : b.n;
  bool equal = true;
  for (uint32_t i = 0; i < common; ++i) equal = equal && a.at[i] == b.at[i];
  for (uint32_t i = common; i < a.n; ++i) equal = equal && a.at[i] == 1;
  for (uint32_t i = common; i < b.n; ++i) equal = equal && b.at[i] == 1;
  if (!equal) throw Error("shapes do not match: prediction " + text(b) + ", target " + text(a));
  return a.n == b.n ? target : reshape(target, b);
}

// Class numbers as indices, with a check that they are in [0, classes); what is outside is clamped, so that the check
// speaks and not the op that uses them.
inline Tensor class_numbers(const Build& b, Tensor labels, int64_t classes) {
  if (classes < 2) throw Error("there is " + std::to_string(classes) + " class; at least 2 are needed");
  labels = as_index(labels);
  const Tensor clamped = minimum(maximum(labels, 0.0), static_cast<double>(classes - 1));
  b.check(all(equal(labels, clamped)), "a label is not the number of a class");
  return clamped;
}

}  // namespace tn
