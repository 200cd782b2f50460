// Self-distillation of networks: each round trains a fresh student on the ground truth and on the student before it.
// Borup & Andersen 2021, "Even your Teacher Needs Guidance: Ground-Truth Targets Dampen Regularization Imposed by
// Self-Distillation", arXiv 2102.13088.
//
// Fit 1 is trained on the targets alone. Fit t > 1 minimises
//   alpha_t/N sum (q - targets)^2 + (1 - alpha_t)/N sum (q - p)^2        (the loss distillation_mse)
// where p are the outputs of fit t - 1 on the training part, computed once in evaluation mode. How alpha_t is found:
//   fixed      given
//   grid       the best on the validation part of 0, 0.1, .. 1: eleven trainings, and the student's own
//   two_model  the closed form of kernel regression, which holds for a network only approximately. With f the validation
//              outputs of fit 1 (it is the student of alpha = 1), g those of a student trained with alpha = 0, y the targets,
//                alpha* = <y - g, f - g> / |f - g|^2   (1 where f = g), clipped to [0, 1]
//              One training beside the student's own.
//
// The recipe says how one model is trained (optimizer, train.steps, and distillation_mse with `targets` bound to y); every
// training starts from fresh weights, fresh optimizer slots and step 0. The procedure gives the loss its columns `teacher` and
// `alpha`. A network without weight penalty or early stopping just copies its teacher. Errors are mean square errors of
// act(outputs) to the targets. The round to use is chosen on the validation part.
#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "tenon_plugin.hpp"

namespace {

using Numbers = std::vector<double>;

// alpha*: y targets, f and g the predictions of the students of alpha 1 and 0.
double optimal_alpha(const Numbers& y, const Numbers& f, const Numbers& g) {
  if (y.size() != f.size() || y.size() != g.size()) throw tn::Error("targets and predictions differ in size");
  double product = 0, square = 0;
  for (size_t i = 0; i < y.size(); ++i) {
    product += (y[i] - g[i]) * (f[i] - g[i]);
    square += (f[i] - g[i]) * (f[i] - g[i]);
  }
  return square == 0 ? 1 : product / square;
}

class SelfDistillation {
 public:
  explicit SelfDistillation(tn::Setup& s)
      : steps_(s.integer("steps", 6, "fits, the first included").at_least(1).at_most(1000)),
        estimate_(s.text("estimate", "two_model", "how the weight of the ground truth is found", {"two_model", "grid", "fixed"})),
        alpha_(s.reals("alpha", "estimate fixed: the weight, or one for each fit (the first is not used)", {0.35}).at_least(0).at_most(1)),
        clip_(s.flag("clip_alpha", true, "estimate two_model: clip the weight to [0, 1]")),
        softmax_(s.text("activation", "softmax", "of the model's outputs, as the loss has it", {"softmax", "none"}).current == "softmax"),
        same_start_(s.flag("same_start", true, "every model starts from the same fresh weights")) {
    if (alpha_.empty() || (alpha_.size() > 1 && alpha_.size() < static_cast<size_t>(steps_)))
      throw tn::Error("alpha has " + std::to_string(alpha_.size()) + " entries for " + std::to_string(steps_) + " steps");
  }

  void run(tn::Ctx& c) {
    const tn::Data data{c};
    if (estimate_ != "fixed" && data.count("val") == 0) throw tn::Error("estimate '" + estimate_ + "' needs validation data");
    const Numbers targets = data.values("train", "y");
    for (const Round& r : rounds_) report(c, r);  // of a run that goes on
    while (static_cast<int64_t>(rounds_.size()) < steps_) {
      Round r;
      r.number = static_cast<double>(rounds_.size());
      if (rounds_.empty()) {
        train(c, r, targets, 1);
        if (estimate_ == "two_model") first_ = predictions(c, "val");
      } else {
        const Numbers teacher = tn::Fit{c}.predict("train");
        r.alpha = weight(c, r, teacher);
        train(c, r, teacher, r.alpha);
      }
      for (size_t p = 0; p < 3; ++p) r.error[p] = data.count(kParts[p]) ? error(c, kParts[p]) : 0;
      rounds_.push_back(r);
      report(c, r);
      c.progress(static_cast<int64_t>(rounds_.size()), steps_, "fits");
      if (c.extension<tn_session_api>(TN_EXT_SESSION).checkpoint(c.raw, 0)) throw tn::Error("the checkpoint could not be written");
    }
    if (data.count("val") == 0) return;
    const auto better = [](const Round& a, const Round& b) { return a.error[1] < b.error[1]; };
    const auto best = std::min_element(rounds_.begin(), rounds_.end(), better);
    c.report("best/round", best->number);
    if (data.count("test")) c.report("best/test/mse", best->error[2]);
  }

  // The rounds so far and the first model's validation outputs; the last student is the checkpoint's model.
  static constexpr uint32_t version = 1;
  void save(tn::Bytes& b) const {
    b.put(static_cast<uint64_t>(rounds_.size()));
    for (const Round& r : rounds_) b.put(r);
    b.put(static_cast<uint64_t>(first_.size()));
    for (double v : first_) b.put(v);
  }
  void load(tn::Bytes& b, uint32_t stored) {
    if (stored != version) throw tn::Error("stored state has the unknown version " + std::to_string(stored));
    std::vector<Round> rounds;
    Numbers first;
    for (uint64_t n = b.get<uint64_t>(); n > 0; --n) rounds.push_back(b.get<Round>());
    for (uint64_t n = b.get<uint64_t>(); n > 0; --n) first.push_back(b.get<double>());
    rounds_ = std::move(rounds);
    first_ = std::move(first);
  }

  // targets, pred_alpha1, pred_alpha0 -> alpha, not clipped, and what it is for equal predictions
  struct OptimalAlpha {
    static constexpr const char* name = "optimal_alpha";
    explicit OptimalAlpha(tn::Setup& s) {
      s.input("targets", "y, of any shape");
      s.input("pred_alpha1", "f, predictions of the student of alpha = 1");
      s.input("pred_alpha0", "g, predictions of the student of alpha = 0");
    }
    void run(tn::Build& b) const {
      const Numbers y = to_host(b["targets"]), f = to_host(b["pred_alpha1"]), g = to_host(b["pred_alpha0"]);
      b.emit("alpha", optimal_alpha(y, f, g));
      b.emit("alpha_when_equal_predictions", optimal_alpha(y, f, f));
    }
  };
  using Probes = tn::List<OptimalAlpha>;

 private:
  static constexpr const char* kParts[] = {"train", "val", "test"};
  struct Round {
    double number = 0, alpha = 1, estimate = 1, trainings = 0, error[3] = {};  // errors: of kParts
  };

  // One training from fresh weights, towards targets and teacher (the targets themselves in the first).
  void train(const tn::Ctx& c, Round& r, const Numbers& teacher, double alpha) const {
    const tn::Fit fit{c};
    const int64_t n = tn::Data{c}.count("train"), outputs = static_cast<int64_t>(teacher.size()) / n;
    if (r.number > 0) {
      fit.set_column("train", "teacher", teacher, outputs > 1 ? tn::Dims{n, outputs} : tn::Dims{n});
      fit.set_column("train", "alpha", Numbers(static_cast<size_t>(n), alpha), {n});
    }
    const auto& rng = c.extension<tn_rng_api>(TN_EXT_RNG);
    const uint64_t key = rng.key(c.raw, "weights");
    {
      tn::Session s(c);
      const tn::Model model{s};
      model.reinitialize(same_start_ ? key : rng.split(key, static_cast<uint64_t>(r.number)));
      model.train_only({}, true);
      s.run();
    }
    fit.train(0, c.total_steps());
    ++r.trainings;
  }

  double weight(const tn::Ctx& c, Round& r, const Numbers& teacher) const {
    if (estimate_ == "fixed") return alpha_.size() == 1 ? alpha_[0] : alpha_[rounds_.size()];
    if (estimate_ == "two_model") {
      train(c, r, teacher, 0);
      r.estimate = optimal_alpha(tn::Data{c}.values("val", "y"), first_, predictions(c, "val"));
      return clip_ ? std::clamp(r.estimate, 0.0, 1.0) : r.estimate;
    }
    double best = 0, least = HUGE_VAL;
    for (int k = 0; k <= 10; ++k) {
      train(c, r, teacher, k / 10.0);
      const double e = error(c, "val");
      if (e < least) least = e, best = k / 10.0;
    }
    return best;
  }

  Numbers predictions(const tn::Ctx& c, const char* part) const {
    Numbers q = tn::Fit{c}.predict(part);
    const auto n = static_cast<size_t>(tn::Data{c}.count(part)), outputs = q.size() / n;
    for (size_t i = 0; softmax_ && i < n; ++i) {
      const auto row = q.begin() + static_cast<std::ptrdiff_t>(i * outputs), end = row + static_cast<std::ptrdiff_t>(outputs);
      const double top = *std::max_element(row, end);
      double total = 0;
      for (auto v = row; v != end; ++v) total += *v = std::exp(*v - top);
      for (auto v = row; v != end; ++v) *v /= total;
    }
    return q;
  }
  double error(const tn::Ctx& c, const char* part) const {
    const Numbers q = predictions(c, part), y = tn::Data{c}.values(part, "y");
    if (q.size() != y.size())
      throw tn::Error("the model gives " + std::to_string(q.size()) + " numbers for the " + part + " part, the targets are " +
                      std::to_string(y.size()) + "; class numbers are converted with the transform one_hot (column: \"y\")");
    double sum = 0;
    for (size_t i = 0; i < y.size(); ++i) sum += (q[i] - y[i]) * (q[i] - y[i]);
    return sum / static_cast<double>(y.size());
  }

  void report(const tn::Ctx& c, const Round& r) const {
    const std::string round = "round" + std::to_string(static_cast<int64_t>(r.number)) + "/";
    for (size_t p = 0; p < 3; ++p) {
      const std::string part = kParts[p];
      if (tn::Data{c}.count(kParts[p]) == 0) continue;
      c.report((part + "/mse").c_str(), r.error[p]);
      c.report((round + part + "/mse").c_str(), r.error[p]);
      c.report((part + "/ratio").c_str(), r.error[p] / rounds_[0].error[p]);
      c.report((part + "/better").c_str(), r.error[p] < rounds_[0].error[p]);
    }
    c.report((round + "alpha").c_str(), r.alpha);
    if (estimate_ == "two_model") c.report((round + "alpha_estimate").c_str(), r.estimate);
    c.report((round + "trainings").c_str(), r.trainings);
  }

  int64_t steps_;
  std::string estimate_;
  Numbers alpha_;
  bool clip_, softmax_, same_start_;
  std::vector<Round> rounds_;
  Numbers first_;  // validation predictions of the first model
};

}  // namespace

TN_PLUGIN("Tenon", "1.0",
          tn::procedure<SelfDistillation>("self_distillation", "Rounds of students that learn from the ground truth and a teacher",
                                          "Borup & Andersen 2021, arXiv 2102.13088"))
