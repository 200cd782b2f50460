// The steps of auxiliary-loss-free load balancing that routers, layers and the experiment on fixed scores share.
//
// z [T, E]: logits of T tokens for E experts, s: their scores, p [E]: biases, K: experts a token, A [E]: loads, how many
// tokens chose each expert, L = T K / E: the balanced load.
#pragma once

#include <string>

#include "tenon_plugin.hpp"

namespace alf {

using tn::Tensor;

// s = sigmoid(z), or softmax over the experts.
class Scores {
 public:
  explicit Scores(tn::Setup& s)
      : softmax_(static_cast<std::string>(s.text("gate", "sigmoid", "how logits become scores", {"sigmoid", "softmax"})) == "softmax") {}
  Tensor operator()(Tensor logits) const { return softmax_ ? softmax(logits) : sigmoid(logits); }
  bool sum_to_one() const { return softmax_; }

 private:
  bool softmax_;
};

struct Selection {
  Tensor indices;  // i64 [T, K], by falling value; of equal values the lower index first
  Tensor load;     // [E], of the values' type
};

// The K largest of each row of the biased scores, a constant of the graph.
inline Selection select(Tensor biased, int64_t k) {
  const int64_t experts = biased.dim(1);
  if (k > experts) throw tn::Error("top_k is " + std::to_string(k) + ", but there are only " + std::to_string(experts) + " experts");
  const Tensor indices = tn::top_k(stop_gradient(biased), k)[1];
  return {indices, cast_like(tn::bincount(flatten(indices), experts), biased)};
}

// g_ik = s_ik of the chosen experts, without the bias: [T, K].
class Gates {
 public:
  explicit Gates(tn::Setup& s) : normalize_(s.flag("normalize_gates", false, "the gates of a token are made to sum to 1")) {}
  Tensor operator()(Tensor scores, Tensor indices) const {
    const Tensor g = take_along_axis(scores, indices);
    return normalize_ ? g / (sum(g, -1, true) + 1e-20) : g;
  }

 private:
  bool normalize_;
};

// What a bias is moved by after a step: u times the error L - A, its sign, or with the n-th step's u/n, u/sqrt(n).
class BiasUpdate {
 public:
  explicit BiasUpdate(tn::Setup& s)
      : rule_(s.text("update_rule", "sign", "from the error L - A of a step to the bias", {"sign", "constant", "inverse", "inverse_sqrt", "none"})),
        rate_(s.real("update_rate", 0.001, "u").at_least(0).finite()),
        relative_(s.flag("normalize_error", true, "the error is 1 - A / L, so that u does not depend on the number of tokens")),
        center_(s.flag("center_bias", false, "the mean of the bias is kept")) {}

  bool enabled() const { return rule_ != "none"; }
  // load: A [E], n: rank 0, from 1. Without tokens nothing moves.
  Tensor operator()(Tensor load, Tensor n) const {
    const Tensor balanced = mean(load);
    Tensor error = balanced - load;
    if (relative_) error = error / where(balanced > 0.0, balanced, 1.0);
    if (rule_ == "sign") error = sign(error);
    if (rule_ == "inverse") error = error / n;
    if (rule_ == "inverse_sqrt") error = error / sqrt(n);
    const Tensor step = error * rate_;
    return center_ ? step - mean(step) : step;
  }

 private:
  std::string rule_;
  double rate_;
  bool relative_, center_;
};

// sum_k f_k P_k: f_k = (E / (K T)) A_k, constant; P_k = mean over tokens of s_ik, or with `normalize` of s_ik / sum_k s_ik.
inline Tensor balance_loss(Tensor scores, Tensor load, bool normalize) {
  const Tensor a = stop_gradient(load), f = a / mean(a);
  return sum(f * mean(normalize ? scores / sum(scores, -1, true) : scores, 0));
}

// (max A - L) / L; 0 without tokens.
inline Tensor max_violation(Tensor load) {
  const Tensor balanced = mean(load);
  return (max(load) - balanced) / where(balanced > 0.0, balanced, 1.0);
}

// Lag(x, p) = sum_ik s_ik x_ik + sum_k p_k (A_k - L) of the assignment x with loads A.
inline Tensor lagrangian(Tensor scores, const Selection& x, Tensor bias) {
  return sum(take_along_axis(scores, x.indices)) + sum(bias * (x.load - mean(x.load)));
}

}  // namespace alf
