// Load balancing of sparse mixtures of experts by a bias in the selection, without an auxiliary loss, and the plain router
// it is compared with.
//
//   Han & Zhong 2025, "A Theoretical Framework for Auxiliary-Loss-Free Load Balancing of Sparse Mixture-of-Experts in
//   Large-Scale AI Models", arXiv 2512.03915; Wang et al. 2024, "Auxiliary-Loss-Free Load Balancing Strategy for
//   Mixture-of-Experts", arXiv 2408.15664
//
// T tokens, E experts, K of them for each token, L = T K / E; s_ik: score of expert k for token i (sigmoid, or softmax over
// k); p_k: bias of expert k, not trained by gradient; A_k: its load, the tokens that chose it.
//
//   selection   x_ik = 1 for the K largest s_ik + p_k of token i (of equal ones the lower k); multiplicative: s_ik p_k
//   gate        g_ik = s_ik x_ik, without the bias; normalize_gates: g_ik / (sum_k g_ik + 1e-20)
//   update      after the n-th training step, e_k = L - A_k (normalize_error: 1 - A_k / L):
//               sign: p_k += u sign(e_k)   constant: u e_k   inverse: (u / n) e_k   inverse_sqrt: (u / sqrt(n)) e_k
//
// It is primal-dual: x maximises Lag(x, p) = sum_ik s_ik x_ik + sum_k p_k (A_k - L) at p, and the update is a step of
// length u against A - L, a subgradient of the dual D(p) = max_x Lag(x, p). All tokens are routed, none is dropped. The bias
// stays as it is in evaluation.
//
// aux_alpha > 0 adds the loss alpha sum_k f_k P_k of the baseline (plugins/losses/moe_load_balance.cpp); the metric max_vio is
// (max_k A_k - L) / L.
//
// The probe `default` takes fixed scores: `iterations` updates from p = 0, and the value of the best balanced assignment.
#include "alf_lb.hpp"

#include "balanced_assignment.hpp"

namespace {

using tn::Tensor;

void check_logits(const tn::Build& b, Tensor logits) { b.check(all(is_finite(logits)), "a logit of the router is not finite"); }

class AlfLb {
 public:
  struct OnScores {
    static constexpr const char* name = "default";
    int64_t top_k, iterations;
    alf::BiasUpdate update;
    explicit OnScores(tn::Setup& s)
        : top_k(s.integer("top_k", 2, "K").at_least(1)), iterations(s.integer("iterations", 1, "updates of the bias").at_least(1)), update(s) {
      s.input("scores", "[T, E]").rank(2);
    }
    void run(tn::Build& b) const {
      const Tensor scores = b["scores"];
      Tensor p = zeros_like(narrow(scores, 0, 0, 1));  // [1, E]
      std::vector<Tensor> biases, loads, values;
      for (int64_t n = 1; n <= iterations; ++n) {
        const alf::Selection x = alf::select(scores + p, top_k);
        biases.push_back(p);
        loads.push_back(unsqueeze(x.load, 0));
        values.push_back(unsqueeze(alf::lagrangian(scores, x, squeeze(p, 0)), 0));
        p = p + update(x.load, tn::scalar_like(p, static_cast<double>(n)));
      }
      b.emit("bias_before", concat(biases));
      b.emit("load", cast(concat(loads), TN_I64));
      b.emit("lagrangian", concat(values));
      b.emit("final_bias", squeeze(p, 0));
      b.emit("max_vio_first", alf::max_violation(squeeze(loads[0], 0)));
      if (const auto best = alf::balanced_value(to_host(scores), scores.dim(0), scores.dim(1), top_k)) b.emit("optimal_value", *best);
    }
  };
  using Probes = tn::List<OnScores>;

  explicit AlfLb(tn::Setup& s)
      : top_k_(s.integer("top_k", 2, "K, experts a token").at_least(1)),
        scores_(s),
        gates_(s),
        update_(s),
        multiplicative_(static_cast<std::string>(s.text("bias_mode", "additive", "how scores and bias are joined in the selection",
                                                        {"additive", "multiplicative"})) == "multiplicative"),
        aux_alpha_(s.real("aux_alpha", 0, "weight of the auxiliary loss").at_least(0).finite()),
        aux_normalize_(s.flag("aux_normalize", true, "the auxiliary loss sees scores that sum to 1")) {
    s.input("logits", "[T, E]").rank(2);
  }

  void init(tn::Init& i) const {
    const Tensor z = i["logits"];
    const tn_dtype t = z.dtype() == TN_F64 ? TN_F64 : TN_F32;  // in bf16 an increment of 0.001 would be lost
    i.state("bias", {z.dim(1)}, multiplicative_ ? 1 : 0, t);
    i.state("load", {z.dim(1)}, 0, t);  // of the training passes since the last update
    i.state("updates", {}, 0, t);       // n
  }

  void build(tn::Build& b) {
    const Tensor z = b["logits"], p = b.state("bias");
    check_logits(b, z);
    if (z.dim(1) != p.dim(0))
      throw tn::Error("the bias is of " + std::to_string(p.dim(0)) + " experts, the logits of " + std::to_string(z.dim(1)));
    const Tensor scores = scores_(z), wide = cast_like(stop_gradient(scores), p);
    const alf::Selection x = alf::select(multiplicative_ ? wide * p : wide + p, top_k_);
    b.emit("indices", x.indices);
    b.emit("gates", gates_(scores, x.indices));
    b.emit("load", x.load);
    b.metric("max_vio", alf::max_violation(x.load));
    if (aux_alpha_ > 0) {
      const Tensor raw = alf::balance_loss(scores, cast_like(x.load, z), false) * aux_alpha_;
      const Tensor normalized = scores_.sum_to_one() ? raw : alf::balance_loss(scores, cast_like(x.load, z), true) * aux_alpha_;
      for (const char* name : {"aux_loss", "aux"}) b.emit(name, raw);  // the short names are for grad:logits_from_aux
      for (const char* name : {"aux_loss_normalized", "aux_normalized"}) b.emit(name, normalized);
      b.part("balance", aux_normalize_ ? normalized : raw);
    }
    b.state("load") = b.state("load") + x.load;
    routed_ = routed_ || b.train();
  }

  void after_step(tn::Ctx& c) {
    if (!update_.enabled()) return;
    if (!routed_) {
      c.raw->host->log(c.raw->host, TN_LOG_WARNING, "router 'alf_lb': no token was routed since the last update; the bias stays as it is");
      return;
    }
    routed_ = false;
    const Tensor load = c.state("load"), n = c.state("updates") + cast_like(any(load > 0.0), load);
    c.state("bias") = c.state("bias") + update_(load, maximum(n, 1.0));
    c.state("load") = zeros_like(load);
    c.state("updates") = n;
  }

 private:
  int64_t top_k_;
  alf::Scores scores_;
  alf::Gates gates_;
  alf::BiasUpdate update_;
  bool multiplicative_;
  double aux_alpha_;
  bool aux_normalize_;
  bool routed_ = false;  // in training, since the last update
};

// Without a bias.
class TopK {
 public:
  explicit TopK(tn::Setup& s) : top_k_(s.integer("top_k", 2, "K, experts a token").at_least(1)), scores_(s), gates_(s) {
    s.input("logits", "[T, E]").rank(2);
  }
  void build(tn::Build& b) const {
    const Tensor z = b["logits"];
    check_logits(b, z);
    const Tensor scores = scores_(z);
    const alf::Selection x = alf::select(scores, top_k_);
    b.emit("indices", x.indices);
    b.emit("gates", gates_(scores, x.indices));
    b.emit("load", x.load);
    b.metric("max_vio", alf::max_violation(x.load));
  }

 private:
  int64_t top_k_;
  alf::Scores scores_;
  alf::Gates gates_;
};

}  // namespace

TN_PLUGIN("Tenon", "1.0",
          tn::router<AlfLb>("alf_lb", "The largest scores, balanced by a bias that follows the loads", "Wang et al. 2024, arXiv 2408.15664"),
          tn::router<TopK>("topk", "The largest scores"))
