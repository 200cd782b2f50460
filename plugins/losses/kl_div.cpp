// Kullback-Leibler divergence of the model's distribution from a given one, also for distillation.
//
//   l_i = T^2 sum_c t_ic (log t_ic - log q_ic),   q_i = softmax(logits_i / T)
//
// T: temperature; with target_kind = logits the target is softened by it, too. t log t is 0 at t = 0. The
// mean is over samples (PyTorch's "batchmean", not its "mean"). Hinton, Vinyals & Dean 2015, arXiv
// 1503.02531, section 2 (temperature and T^2).
#include "tenon_plugin.hpp"

namespace {

class KlDiv {
 public:
  explicit KlDiv(tn::Setup& s)
      : temperature_(s.real("temperature", 1, "softens both distributions").above(0).finite()),
        input_kind_(
            s.text("input_kind", "logits", "what the logits input holds", {"logits", "log_probabilities"})),
        target_kind_(s.text("target_kind", "probabilities", "what the target holds",
                            {"probabilities", "log_probabilities", "logits"})),
        reduction_(s) {
    s.input("logits", "[B, .., C] scores, or log-probabilities");
    s.input("target", "of the logits' shape");
  }

  void build(tn::Build& b) const {
    const tn::Tensor x = b["logits"], target = tn::match(b["target"], x);
    const tn::Tensor log_q = input_kind_ == "logits" ? log_softmax(x / temperature_) : x;
    tn::Tensor t, log_t;
    if (target_kind_ == "probabilities") {
      t = target;
      log_t = log(where(t > 0, t, 1));
    } else {
      log_t = target_kind_ == "logits" ? log_softmax(target / temperature_) : target;
      t = exp(log_t);
    }
    reduction_.emit(b, sum(t * (log_t - log_q), -1) * (temperature_ * temperature_));
  }

 private:
  double temperature_;
  std::string input_kind_, target_kind_;
  tn::Reduction reduction_;
};

}  // namespace

TN_PLUGIN("Tenon", "1.0",
          tn::loss<KlDiv>("kl_div",
                          "Kullback-Leibler divergence from given probabilities or a teacher's scores",
                          "Hinton et al. 2015, arXiv 1503.02531"))
