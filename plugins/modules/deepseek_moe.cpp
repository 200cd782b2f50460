// A mixture-of-experts layer with shared experts.
//
//   Dai et al. 2024, "DeepSeekMoE", arXiv 2401.06066; routed as by plugins/routers/alf_lb.cpp
//
//   y_i = x_i + sum over shared experts FFN_s(x_i) + sum over chosen routed experts g_ik FFN_k(x_i)
//   FFN_e(x) = act(x w1_e) w2_e,   logits z_ik = x_i . e_k,   chosen: the K largest s_ik + p_k
//
// S shared experts see every token and don't count in the load; R experts are routed. Tokens are sorted by expert, so that
// each of the two products is one grouped product.
#include "../routers/alf_lb.hpp"

namespace {

using tn::Tensor;

// Rows offsets[e] .. offsets[e+1] of x times w[e]: [N, I], [E, I, O] -> [N, O].
Tensor grouped_matmul(Tensor x, Tensor w, Tensor offsets) {
  static thread_local tn::Op op{"grouped_matmul/1"};
  return op({x, w, offsets}, {tn::attr("transpose_b", int64_t{0})});
}
// Slots by expert, and where each expert's begin.
std::array<Tensor, 2> sort_by_expert(Tensor expert_of_slot, int64_t experts) {
  static thread_local tn::Op op{"sort_by_expert/1"};
  return op.call<2>(&expert_of_slot, 1, {tn::attr("n", experts)});
}

class DeepSeekMoe {
 public:
  explicit DeepSeekMoe(tn::Setup& s)
      : shared_(s.integer("shared_experts", 1, "S, that see every token").at_least(0)),
        routed_(s.integer("routed_experts", 16, "R").at_least(2)),
        top_k_(s.integer("top_k", 2, "K, routed experts a token").at_least(1)),
        scores_(s),
        gates_(s),
        activation_(s.text("activation", "relu", "inside an expert", {"relu", "gelu", "silu"})),
        residual_(s.flag("residual", true, "x is added")) {
    s.input("x", "[T, d]").rank(2);
    s.input("gate_weight", "[R, d] e_k").rank(2);
    s.input("bias", "[R] p, in the selection alone").rank(1).constant();
    s.input("w1", "[S + R, d, h], the shared experts first").rank(3);
    s.input("w2", "[S + R, h, d]").rank(3);
  }

  void build(tn::Build& b) const {
    const Tensor x = b["x"], gate_weight = b["gate_weight"], bias = b["bias"], w1 = b["w1"], w2 = b["w2"];
    const int64_t tokens = x.dim(0), width = x.dim(1), hidden = w1.dim(2);
    expect(gate_weight, "gate_weight", {routed_, width});
    expect(bias, "bias", {routed_});
    expect(w1, "w1", {shared_ + routed_, width, hidden});
    expect(w2, "w2", {shared_ + routed_, hidden, width});

    const Tensor scores = scores_(matmul(x, gate_weight, false, true));
    const alf::Selection chosen = alf::select(scores + bias, top_k_);
    const auto [order, offsets] = sort_by_expert(chosen.indices, routed_);
    const Tensor token_of_slot = flatten(broadcast_to(unsqueeze(b.arange(tokens), 1), {tokens, top_k_}));
    const Tensor token = gather(token_of_slot, order);
    const Tensor inner = activate(grouped_matmul(gather(x, token), narrow(w1, 0, shared_, routed_), offsets));
    const Tensor gate = gather(flatten(gates_(scores, chosen.indices)), order);
    const Tensor routed = grouped_matmul(inner, narrow(w2, 0, shared_, routed_), offsets) * unsqueeze(gate, 1);
    Tensor y = scatter_add(residual_ ? x : zeros_like(x), token, routed);
    if (shared_ > 0) y = y + sum(matmul(activate(matmul(unsqueeze(x, 0), narrow(w1, 0, 0, shared_))), narrow(w2, 0, 0, shared_)), 0);
    b.emit("y", y);
    b.emit("selected", chosen.indices);
    b.emit("load", chosen.load);
  }

 private:
  static void expect(Tensor t, const char* name, const tn::Dims& shape) {
    if (text(t.shape()) != text(shape)) throw tn::Error(std::string(name) + " is " + text(t.shape()) + "; it must be " + text(shape));
  }
  Tensor activate(Tensor x) const { return activation_ == "relu" ? relu(x) : activation_ == "gelu" ? gelu(x) : silu(x); }

  int64_t shared_, routed_, top_k_;
  alf::Scores scores_;
  alf::Gates gates_;
  std::string activation_;
  bool residual_;
};

}  // namespace

TN_PLUGIN("Tenon", "1.0",
          tn::module<DeepSeekMoe>("deepseek_moe", "Mixture of experts with shared experts", "Dai et al. 2024, arXiv 2401.06066"))
