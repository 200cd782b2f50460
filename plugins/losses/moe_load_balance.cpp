// The auxiliary loss that balances a mixture of experts by gradient, the baseline of plugins/routers/alf_lb.cpp.
//
//   Wang et al. 2024, arXiv 2408.15664, section 2; the form of Switch Transformers, Fedus et al. 2022, arXiv 2101.03961
//
//   alpha sum_k f_k P_k,   f_k = (E / (K T)) A_k (constant),   P_k = (1/T) sum_i s_ik
//
// s_ik: scores of T tokens for E experts; A_k: load of expert k. With softmax scores it is alpha where routing is uniform.
// Raw sigmoid scores can all shrink, which lowers it without balancing: normalize divides s_ik by sum_k s_ik, as DeepSeek-V3.
//
// Bind logits to the router's layer ("model.moe0.router") and load to "model.moe0.load".
#include "../routers/alf_lb.hpp"

namespace {

using tn::Tensor;

class MoeLoadBalance {
 public:
  explicit MoeLoadBalance(tn::Setup& s)
      : alpha_(s.real("alpha", 0.001, "weight").at_least(0).finite()),
        scores_(s),
        normalize_(s.flag("normalize", true, "scores are divided by their sum over the experts (softmax: they sum to 1 as they are)")) {
    s.input("logits", "[T, E] of the router").rank(2);
    s.input("load", "[E] tokens that chose each expert", tn::anything).rank(1);
  }

  void build(tn::Build& b) const {
    const Tensor z = b["logits"], load = b["load"];
    if (z.dim(1) != load.dim(0))
      throw tn::Error("the load is of " + std::to_string(load.dim(0)) + " experts, the logits of " + std::to_string(z.dim(1)));
    b.loss(alf::balance_loss(scores_(z), cast_like(load, z), normalize_ && !scores_.sum_to_one()) * alpha_);
  }

 private:
  double alpha_;
  alf::Scores scores_;
  bool normalize_;
};

}  // namespace

TN_PLUGIN("Tenon", "1.0",
          tn::loss<MoeLoadBalance>("moe_load_balance", "Auxiliary loss that balances a mixture of experts", "Wang et al. 2024, arXiv 2408.15664"))
