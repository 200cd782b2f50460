// Square loss with a teacher: the ground truth and the predictions of an earlier model, weighted.
// Borup & Andersen 2021, "Even your Teacher Needs Guidance: Ground-Truth Targets Dampen Regularization Imposed by
// Self-Distillation", arXiv 2102.13088, for networks.
//
//   q = act(scores), p = act_teacher(teacher), N = numbers in scores
//   loss = alpha/N sum (q - targets)^2 + (1 - alpha)/N sum (q - p)^2
//
// alpha weighs the ground truth (some papers weigh the teacher with it). Without a teacher the loss is the first term with
// alpha = 1: the first model. With softmax the loss is the square loss on probabilities. A bound `alpha` takes the place of
// the option, so that a procedure can change it from round to round.
#include "tenon_plugin.hpp"

namespace {

using tn::Tensor;

class DistillationMse {
 public:
  explicit DistillationMse(tn::Setup& s)
      : alpha_(s.real("alpha", 0.35, "weight of the ground truth; the teacher's is 1 - alpha").at_least(0).at_most(1)),
        softmax_(s.text("activation", "softmax", "of the scores", {"softmax", "none"}).current == "softmax"),
        softmax_teacher_(s.text("teacher_activation", "softmax", "of the teacher", {"softmax", "none"}).current == "softmax") {
    s.input("scores", "[B, C], or [B] with activation none");
    s.input("targets", "of the scores' shape: numbers, or probabilities", tn::anything);
    s.input("teacher", "of the scores' shape: the teacher's outputs, before teacher_activation").optional().constant();
    s.input("alpha", "[B] in place of the option").optional().constant().rank(1);
  }

  void build(tn::Build& b) const {
    const Tensor scores = b["scores"];
    if (softmax_ && scores.rank() < 2) throw tn::Error("scores have shape " + text(scores.shape()) + "; softmax wants [B, C]");
    const Tensor q = softmax_ ? softmax(scores) : scores;
    const Tensor truth = squares(q, targets(b["targets"], scores));
    Tensor losses = truth;
    if (const Tensor given = b["teacher"]) {
      const Tensor teacher = same_shape(given, scores, "teacher"), p = softmax_teacher_ ? softmax(teacher) : teacher;
      const Tensor imitation = squares(q, p);
      if (const Tensor alpha = b["alpha"]) losses = mix(cast_like(alpha, q), truth, imitation);
      else losses = truth * alpha_ + imitation * (1 - alpha_);
    }
    b.per_sample(losses);
    b.loss(mean(losses));
  }

 private:
  static Tensor same_shape(Tensor x, Tensor scores, const char* what) {
    const tn::Dims a = x.shape(), s = scores.shape();
    const bool column = s.n == a.n + 1 && s.at[s.n - 1] == 1;  // [B] against [B, 1]
    bool same = s.n == a.n || column;
    for (uint32_t i = 0; i < a.n && same; ++i) same = s.at[i] == a.at[i];
    if (!same) throw tn::Error(std::string(what) + " has shape " + text(a) + ", the scores " + text(s) + "; they must be equal");
    return cast_like(column ? unsqueeze(x, -1) : x, scores);
  }
  Tensor targets(Tensor y, Tensor scores) const {
    const tn_dtype t = y.dtype();
    if (softmax_ && t != TN_F32 && t != TN_F64 && t != TN_BF16)
      throw tn::Error("targets are class numbers, probabilities are needed; convert them with the transform one_hot (column: \"y\")");
    return same_shape(y, scores, "targets");
  }
  // The mean over the outputs of each sample: [B].
  static Tensor squares(Tensor q, Tensor target) {
    tn::Dims outputs;
    for (int i = 1; i < q.rank(); ++i) outputs.at[outputs.n++] = i;
    const Tensor square_error = square(q - target);
    return outputs.n ? mean(square_error, outputs) : square_error;
  }
  static Tensor mix(Tensor alpha, Tensor truth, Tensor imitation) {
    if (alpha.dim(0) != truth.dim(0))
      throw tn::Error("alpha has shape " + text(alpha.shape()) + " for " + std::to_string(truth.dim(0)) + " samples");
    return truth * alpha + imitation * (1.0 - alpha);
  }

  double alpha_;
  bool softmax_, softmax_teacher_;
};

}  // namespace

TN_PLUGIN("Tenon", "1.0",
          tn::loss<DistillationMse>("distillation_mse", "Square loss on targets and on a teacher's outputs",
                                    "Borup & Andersen 2021, arXiv 2102.13088"))
