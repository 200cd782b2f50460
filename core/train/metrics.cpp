#include "core/train/metrics.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "core/base/nearest.h"

namespace tenon {
namespace {

Result<const HostArray*> role(const RoleArrays& arrays, std::string_view name) {
  if (const auto it = arrays.find(name); it != arrays.end() && it->second) return it->second;
  return not_found("needs the role '" + std::string(name) + "', which is not bound");
}

std::string describe(const HostArray& a) { return std::string(name_of(a.dtype())) + to_string(a.shape()); }

// ---- Mean loss
// ------------------------------------------------------------------------------------------------------

class MeanLoss final : public Metric {
 public:
  explicit MeanLoss(double (*map)(double)) : map_(map) {}

  Status update(const RoleArrays& arrays, int64_t count) override {
    TN_ASSIGN(const HostArray* loss, role(arrays, "loss"));
    if (loss->shape().rank() == 0) {
      if (count < 1) return Status::ok();
      sum_ += loss->at(0) * static_cast<double>(count);
      count_ += count;
      return Status::ok();
    }
    for (int64_t i = 0; i < loss->numel(); ++i) sum_ += loss->at(i);
    count_ += loss->numel();
    return Status::ok();
  }
  Result<double> value() const override {
    if (count_ == 0) return bad_state("has seen no samples");
    return map_(sum_ / static_cast<double>(count_));
  }
  void reset() override { sum_ = 0, count_ = 0; }

 private:
  double (*map_)(double);
  double sum_ = 0;
  int64_t count_ = 0;
};

Result<std::unique_ptr<Metric>> make_mean_loss(const Options& options, double (*map)(double)) {
  TN_RETURN_IF_ERROR(OptionBinder(options).finish());
  return std::unique_ptr<Metric>(std::make_unique<MeanLoss>(map));
}

// ---- Classification
// -------------------------------------------------------------------------------------------------

struct ClassOptions {
  double threshold = 0;
  int64_t ignore_index = -100, k = 5;
  std::string average = "auto";
};

// Outputs and labels as rows: `width` scores each; width 1 is binary.
struct Rows {
  const HostArray *outputs, *labels;
  int64_t count, width;
  bool soft;  // labels have the shape of outputs: the class is where they are largest
};

Result<Rows> class_rows(const RoleArrays& arrays) {
  TN_ASSIGN(const HostArray* outputs, role(arrays, "outputs"));
  TN_ASSIGN(const HostArray* labels, role(arrays, "labels"));
  const int rank = outputs->shape().rank();
  const int64_t n = outputs->numel(), m = labels->numel();
  const int64_t width = rank >= 2 ? outputs->shape().back() : 1;
  if (rank >= 1 && width >= 1 && m == n / width) return Rows{outputs, labels, m, width, false};
  if (rank >= 2 && labels->shape() == outputs->shape()) return Rows{outputs, labels, n / width, width, true};
  return invalid("outputs " + describe(*outputs) + " and labels " + describe(*labels) +
                 " do not fit: labels must be [..] or as outputs where outputs are [..,C]");
}

int64_t largest(const HostArray& a, int64_t row, int64_t width) {
  int64_t best = 0;
  for (int64_t c = 1; c < width; ++c)
    if (a.at(row * width + c) > a.at(row * width + best)) best = c;
  return best;
}

// The class of a row's label, -1 when it is to be ignored.
Result<int64_t> label_of(const Rows& rows, int64_t i, const ClassOptions& o) {
  if (rows.soft) return largest(*rows.labels, i, rows.width);
  const double v = rows.labels->at(i);
  if (v == static_cast<double>(o.ignore_index)) return -1;
  if (rows.width == 1) return v > 0;
  if (v >= 0 && v < static_cast<double>(rows.width) && std::floor(v) == v) return static_cast<int64_t>(v);
  return invalid("label " + std::to_string(i) + " is " + std::to_string(v) + ", expected a class in 0.." +
                 std::to_string(rows.width - 1));
}

int64_t predicted(const Rows& rows, int64_t i, const ClassOptions& o) {
  return rows.width == 1 ? rows.outputs->at(i) > o.threshold : largest(*rows.outputs, i, rows.width);
}

class Accuracy final : public Metric {
 public:
  Accuracy(ClassOptions o, bool top_k) : o_(std::move(o)), top_k_(top_k) {}

  Status update(const RoleArrays& arrays, int64_t) override {
    TN_ASSIGN(const Rows rows, class_rows(arrays));
    if (top_k_ && rows.width < o_.k)
      return invalid("k is " + std::to_string(o_.k) + ", but there are " + std::to_string(rows.width) +
                     " classes");
    for (int64_t i = 0; i < rows.count; ++i) {
      TN_ASSIGN(const int64_t label, label_of(rows, i, o_));
      if (label < 0) continue;
      ++count_;
      right_ += top_k_ ? among_top(rows, i, label) : predicted(rows, i, o_) == label;
    }
    return Status::ok();
  }
  Result<double> value() const override {
    if (count_ == 0) return bad_state("has seen no samples");
    return static_cast<double>(right_) / static_cast<double>(count_);
  }
  void reset() override { right_ = count_ = 0; }

 private:
  // Among equal scores the lower class comes first, as argmax has it. A NaN score is never among the top.
  bool among_top(const Rows& rows, int64_t i, int64_t label) const {
    const double score = rows.outputs->at(i * rows.width + label);
    int64_t before = 0;
    for (int64_t c = 0; c < rows.width; ++c) {
      const double other = rows.outputs->at(i * rows.width + c);
      before += other > score || (other == score && c < label);
    }
    return !std::isnan(score) && before < o_.k;
  }

  ClassOptions o_;
  bool top_k_;
  int64_t right_ = 0, count_ = 0;
};

Result<std::unique_ptr<Metric>> make_accuracy(const Options& options) {
  ClassOptions o;
  TN_RETURN_IF_ERROR(
      OptionBinder(options).get("threshold", o.threshold).get("ignore_index", o.ignore_index).finish());
  return std::unique_ptr<Metric>(std::make_unique<Accuracy>(o, false));
}

Result<std::unique_ptr<Metric>> make_top_k(const Options& options) {
  ClassOptions o;
  TN_RETURN_IF_ERROR(OptionBinder(options).get("k", o.k).get("ignore_index", o.ignore_index).finish());
  if (o.k < 1) return invalid("k is " + std::to_string(o.k) + ", must be at least 1");
  return std::unique_ptr<Metric>(std::make_unique<Accuracy>(o, true));
}

// Precision, recall, F1 and the geometric mean of recalls from true positives, false positives and false negatives of each class.
class FScore final : public Metric {
 public:
  enum class Kind { precision, recall, f1, g_mean };
  FScore(Kind kind, ClassOptions o) : kind_(kind), o_(std::move(o)) {}

  Status update(const RoleArrays& arrays, int64_t) override {
    TN_ASSIGN(const Rows rows, class_rows(arrays));
    const auto classes = static_cast<size_t>(std::max<int64_t>(rows.width, 2));
    if (o_.average == "binary" && classes != 2)
      return invalid("average \"binary\" needs two classes, there are " + std::to_string(classes));
    if (!counts_.empty() && counts_.size() != classes)
      return invalid("the number of classes changed between batches");
    counts_.resize(classes);
    for (int64_t i = 0; i < rows.count; ++i) {
      TN_ASSIGN(const int64_t label, label_of(rows, i, o_));
      if (label < 0) continue;
      const auto truth = static_cast<size_t>(label), guess = static_cast<size_t>(predicted(rows, i, o_));
      ++seen_;
      if (truth == guess) {
        ++counts_[truth].true_positive;
      } else {
        ++counts_[guess].false_positive;
        ++counts_[truth].false_negative;
      }
    }
    return Status::ok();
  }

  Result<double> value() const override {
    if (seen_ == 0) return bad_state("has seen no samples");
    if (kind_ == Kind::g_mean) return geometric_mean_of_recalls();
    if (o_.average == "binary" || (o_.average == "auto" && counts_.size() == 2)) return of(counts_[1]);
    double sum = 0;
    int64_t present = 0;  // as scikit-learn: only classes that occur as a label or a prediction
    for (const Counts& c : counts_) {
      if (c.true_positive + c.false_positive + c.false_negative == 0) continue;
      sum += of(c);
      ++present;
    }
    return sum / static_cast<double>(present);
  }
  void reset() override { counts_.clear(), seen_ = 0; }

 private:
  struct Counts {
    int64_t true_positive = 0, false_positive = 0, false_negative = 0;
  };
  double of(const Counts& c) const {
    const auto tp = static_cast<double>(c.true_positive);
    const auto fp = static_cast<double>(c.false_positive), fn = static_cast<double>(c.false_negative);
    const double above = kind_ == Kind::f1 ? 2 * tp : tp;
    const double below = kind_ == Kind::f1 ? 2 * tp + fp + fn : kind_ == Kind::precision ? tp + fp : tp + fn;
    return below > 0 ? above / below : 0;
  }
  double geometric_mean_of_recalls() const {
    double product = 1, present = 0;
    for (const Counts& c : counts_) {
      const int64_t positives = c.true_positive + c.false_negative;
      if (positives == 0) continue;
      product *= static_cast<double>(c.true_positive) / static_cast<double>(positives);
      ++present;
    }
    return std::pow(product, 1 / present);
  }

  Kind kind_;
  ClassOptions o_;
  std::vector<Counts> counts_;
  int64_t seen_ = 0;
};

Result<std::unique_ptr<Metric>> make_f_score(const Options& options, FScore::Kind kind) {
  ClassOptions o;
  TN_RETURN_IF_ERROR(OptionBinder(options)
                         .get("average", o.average)
                         .get("threshold", o.threshold)
                         .get("ignore_index", o.ignore_index)
                         .finish());
  TN_RETURN_IF_ERROR(check_choice("average", o.average, {"auto", "binary", "macro"}));
  return std::unique_ptr<Metric>(std::make_unique<FScore>(kind, o));
}

Result<std::unique_ptr<Metric>> make_g_mean(const Options& options) {
  ClassOptions o;
  TN_RETURN_IF_ERROR(OptionBinder(options).get("threshold", o.threshold).get("ignore_index", o.ignore_index).finish());
  return std::unique_ptr<Metric>(std::make_unique<FScore>(FScore::Kind::g_mean, o));
}

// Area under the ROC curve as the rank statistic of Mann and Whitney: the chance that a positive scores above
// a negative, a tie counting half. Keeps all scores.
class Auc final : public Metric {
 public:
  Status update(const RoleArrays& arrays, int64_t) override {
    TN_ASSIGN(const Rows rows, class_rows(arrays));
    if (rows.width > 2) return invalid("is for two classes, outputs have " + std::to_string(rows.width));
    for (int64_t i = 0; i < rows.count; ++i) {
      TN_ASSIGN(const int64_t label, label_of(rows, i, {}));
      if (label < 0) continue;
      const double score =
          rows.width == 1 ? rows.outputs->at(i) : rows.outputs->at(2 * i + 1) - rows.outputs->at(2 * i);
      if (std::isnan(score)) return bad_state("the score of sample " + std::to_string(i) + " is NaN");
      scores_.emplace_back(score, label == 1);
    }
    return Status::ok();
  }

  Result<double> value() const override {
    std::vector<std::pair<double, bool>> s = scores_;
    std::sort(s.begin(), s.end());
    double positives = 0, rank_sum = 0;
    for (size_t i = 0; i < s.size();) {
      size_t end = i, tied = 0;
      for (; end < s.size() && s[end].first == s[i].first; ++end) tied += s[end].second;
      rank_sum +=
          static_cast<double>(tied) * static_cast<double>(i + 1 + end) / 2;  // the mean rank of i+1 .. end
      positives += static_cast<double>(tied);
      i = end;
    }
    const double negatives = static_cast<double>(s.size()) - positives;
    if (positives == 0 || negatives == 0) return invalid("is undefined: all samples are of one class");
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives);
  }
  void reset() override { scores_.clear(); }

 private:
  std::vector<std::pair<double, bool>> scores_;
};

Result<std::unique_ptr<Metric>> make_auc(const Options& options) {
  TN_RETURN_IF_ERROR(OptionBinder(options).finish());
  return std::unique_ptr<Metric>(std::make_unique<Auc>());
}

// ---- Regression
// -----------------------------------------------------------------------------------------------------

struct Pairs {
  const HostArray *outputs, *labels;
  int64_t width;  // outputs of a sample
};

Result<Pairs> value_pairs(const RoleArrays& arrays) {
  TN_ASSIGN(const HostArray* outputs, role(arrays, "outputs"));
  TN_ASSIGN(const HostArray* labels, role(arrays, "labels"));
  const auto squeezed = [](Shape s) {
    if (s.rank() > 1 && s.back() == 1) s.pop_back();
    return s;
  };
  const Shape shape = squeezed(outputs->shape());
  if (!(shape == squeezed(labels->shape())))
    return invalid("outputs " + describe(*outputs) + " and labels " + describe(*labels) +
                   " must have the same shape");
  return Pairs{outputs, labels, shape.rank() > 1 ? shape.back() : 1};
}

class MeanError final : public Metric {
 public:
  explicit MeanError(bool squared) : squared_(squared) {}
  Status update(const RoleArrays& arrays, int64_t) override {
    TN_ASSIGN(const Pairs p, value_pairs(arrays));
    for (int64_t i = 0; i < p.outputs->numel(); ++i) {
      const double d = p.outputs->at(i) - p.labels->at(i);
      sum_ += squared_ ? d * d : std::abs(d);
    }
    count_ += p.outputs->numel();
    return Status::ok();
  }
  Result<double> value() const override {
    if (count_ == 0) return bad_state("has seen no samples");
    return sum_ / static_cast<double>(count_);
  }
  void reset() override { sum_ = 0, count_ = 0; }

 private:
  bool squared_;
  double sum_ = 0;
  int64_t count_ = 0;
};

Result<std::unique_ptr<Metric>> make_mean_error(const Options& options, bool squared) {
  TN_RETURN_IF_ERROR(OptionBinder(options).finish());
  return std::unique_ptr<Metric>(std::make_unique<MeanError>(squared));
}

// R2 = 1 - SS_res / SS_tot of each output; SS_tot by Welford's update, so that large means lose nothing.
class R2 final : public Metric {
 public:
  Status update(const RoleArrays& arrays, int64_t) override {
    TN_ASSIGN(const Pairs p, value_pairs(arrays));
    if (!sums_.empty() && sums_.size() != static_cast<size_t>(p.width))
      return invalid("the number of outputs changed between batches");
    sums_.resize(static_cast<size_t>(p.width));
    for (int64_t i = 0; i < p.outputs->numel(); ++i) {
      Sums& s = sums_[static_cast<size_t>(i % p.width)];
      const double y = p.labels->at(i), residual = y - p.outputs->at(i);
      s.n += 1;
      const double before = y - s.mean;
      s.mean += before / s.n;
      s.total += before * (y - s.mean);
      s.residual += residual * residual;
    }
    return Status::ok();
  }
  Result<double> value() const override {
    if (sums_.empty() || sums_[0].n < 2) return invalid("needs at least two samples");
    double sum = 0;
    for (const Sums& s : sums_) sum += s.total > 0 ? 1 - s.residual / s.total : s.residual == 0 ? 1 : 0;
    return sum / static_cast<double>(sums_.size());
  }
  void reset() override { sums_.clear(); }

 private:
  struct Sums {
    double n = 0, mean = 0, total = 0, residual = 0;
  };
  std::vector<Sums> sums_;
};

Result<std::unique_ptr<Metric>> make_r2(const Options& options) {
  TN_RETURN_IF_ERROR(OptionBinder(options).finish());
  return std::unique_ptr<Metric>(std::make_unique<R2>());
}

// ---- Retrieval
// ---------------------------------------------------------------------------------------------------------------

// Recall@k by leaving one out: whether a row of the same label is among the k most similar others (cosine).
class RecallAtK final : public Metric {
 public:
  explicit RecallAtK(int64_t k) : k_(k) {}

  Status update(const RoleArrays& arrays, int64_t) override {
    TN_ASSIGN(const HostArray* x, role(arrays, "outputs"));
    TN_ASSIGN(const HostArray* y, role(arrays, "labels"));
    if (x->shape().rank() != 2 || y->shape() != Shape{x->shape()[0]})
      return invalid("wants embeddings [N, D] and labels [N], got " + describe(*x) + " and " + describe(*y));
    if (!labels_.empty() && x->shape()[1] != width_)
      return invalid("embeddings of width " + std::to_string(x->shape()[1]) + " after some of width " + std::to_string(width_));
    width_ = x->shape()[1];
    for (int64_t i = 0; i < x->shape()[0]; ++i) {
      double square = 0;
      for (int64_t j = 0; j < width_; ++j) square += x->at(i * width_ + j) * x->at(i * width_ + j);
      if (!std::isfinite(square)) return invalid("an embedding is not finite");
      for (int64_t j = 0; j < width_; ++j)
        rows_.push_back(static_cast<float>(x->at(i * width_ + j) / std::max(std::sqrt(square), 1e-12)));
      labels_.push_back(y->at(i));
    }
    return Status::ok();
  }
  Result<double> value() const override {
    if (labels_.empty()) return bad_state("has seen no samples");
    const size_t n = labels_.size(), width = static_cast<size_t>(width_);
    int64_t hits = 0;
    std::vector<float> similar(n);
    for (size_t i = 0; i < n; ++i) {
      float best = -2;  // of its own label
      for (size_t j = 0; j < n; ++j) {
        float sum = 0;
        for (size_t c = 0; c < width; ++c) sum += rows_[i * width + c] * rows_[j * width + c];
        similar[j] = sum;
        if (j != i && labels_[j] == labels_[i]) best = std::max(best, sum);
      }
      int64_t above = 0;
      for (size_t j = 0; j < n; ++j) above += labels_[j] != labels_[i] && similar[j] > best;
      hits += best > -2 && above < k_;
    }
    return static_cast<double>(hits) / static_cast<double>(n);
  }
  void reset() override {
    rows_.clear();
    labels_.clear();
  }

 private:
  int64_t k_, width_ = 0;
  std::vector<float> rows_;  // of length 1
  std::vector<double> labels_;
};

Result<std::unique_ptr<Metric>> make_recall_at_k(const Options& options) {
  int64_t k = 1;
  TN_RETURN_IF_ERROR(OptionBinder(options).get("k", k).finish());
  if (k < 1) return invalid("k is " + std::to_string(k) + "; it must be at least 1");
  return std::unique_ptr<Metric>(std::make_unique<RecallAtK>(k));
}

// ---- Balance of experts
// ---------------------------------------------------------------------------------------------

// From how many tokens each expert got, over all batches: how much more than its share the busiest one got, (max - mean) / mean,
// or how many got none.
class ExpertLoads final : public Metric {
 public:
  enum class Kind { max_violation, idle };
  explicit ExpertLoads(Kind kind) : kind_(kind) {}
  Status update(const RoleArrays& arrays, int64_t) override {
    TN_ASSIGN(const HostArray* load, role(arrays, "load"));
    if (load->shape().rank() != 1 || (!loads_.empty() && load->numel() != static_cast<int64_t>(loads_.size())))
      return invalid("wants the load of each expert, got " + describe(*load));
    loads_.resize(static_cast<size_t>(load->numel()));
    for (size_t e = 0; e < loads_.size(); ++e) loads_[e] += load->at(static_cast<int64_t>(e));
    return Status::ok();
  }
  Result<double> value() const override {
    double total = 0, most = 0;
    for (double n : loads_) total += n, most = std::max(most, n);
    if (total <= 0) return bad_state("has seen no tokens");
    if (kind_ == Kind::idle) return static_cast<double>(std::count(loads_.begin(), loads_.end(), 0));
    const double share = total / static_cast<double>(loads_.size());
    return (most - share) / share;
  }
  void reset() override { loads_.clear(); }

 private:
  Kind kind_;
  std::vector<double> loads_;
};

Result<std::unique_ptr<Metric>> make_expert_loads(const Options& options, ExpertLoads::Kind kind) {
  TN_RETURN_IF_ERROR(OptionBinder(options).finish());
  return std::unique_ptr<Metric>(std::make_unique<ExpertLoads>(kind));
}

// ---- Distribution of numbers
// ---------------------------------------------------------------------------------------------

// What the numbers of all batches look like beside a normal distribution. Keeps all of them.
class Distribution final : public Metric {
 public:
  enum class Kind { kurtosis, peak, near_zero };
  Distribution(Kind kind, double fraction) : kind_(kind), fraction_(fraction) {}

  Status update(const RoleArrays& arrays, int64_t) override {
    bool bound = false;
    for (const auto& [name, a] : arrays) {
      if (!name.starts_with("values") || !a) continue;
      bound = true;
      for (int64_t i = 0; i < a->numel(); ++i) v_.push_back(a->at(i));
    }
    return bound ? Status::ok() : not_found("needs the role 'values', which is not bound");
  }
  Result<double> value() const override {
    if (v_.empty()) return bad_state("has seen no numbers");
    const auto n = static_cast<double>(v_.size());
    double mean = 0, second = 0, fourth = 0, largest = 0;
    for (double v : v_) mean += v / n;
    for (double v : v_) {
      const double square = (v - mean) * (v - mean);
      second += square / n;
      fourth += square * square / n;
      largest = std::max(largest, std::abs(v));
    }
    if (!(second > 0) || !std::isfinite(fourth)) return invalid("is undefined: the numbers are all equal, or not finite");
    const double std = std::sqrt(second);
    if (kind_ == Kind::kurtosis) return fourth / (second * second);
    if (kind_ == Kind::peak) return largest / std;
    return static_cast<double>(std::count_if(v_.begin(), v_.end(), [&](double v) { return std::abs(v) < fraction_ * std; })) / n;
  }
  void reset() override { v_.clear(); }

 private:
  Kind kind_;
  double fraction_;
  std::vector<double> v_;
};

Result<std::unique_ptr<Metric>> make_distribution(const Options& options, Distribution::Kind kind) {
  double fraction = 0.1;
  OptionBinder bind(options);
  if (kind == Distribution::Kind::near_zero) bind.get("fraction", fraction);
  TN_RETURN_IF_ERROR(bind.finish());
  if (!(fraction > 0)) return invalid("fraction must be above 0");
  return std::unique_ptr<Metric>(std::make_unique<Distribution>(kind, fraction));
}

constexpr std::string_view kScores = "outputs,labels";

}  // namespace

std::span<const MetricInfo> metrics() {
  using O = const Options&;
  static constexpr MetricInfo all[] = {
      {"loss", "loss", "mean loss", false, [](O o) { return make_mean_loss(o, [](double m) { return m; }); }},
      {"perplexity", "loss", "exp of the mean loss per token", false,
       [](O o) { return make_mean_loss(o, [](double m) { return std::exp(m); }); }},
      {"bits_per_char", "loss", "mean loss per token in bits", false,
       [](O o) { return make_mean_loss(o, [](double m) { return m / std::numbers::ln2; }); }},
      {"accuracy", kScores, "share of right predictions", true, make_accuracy},
      {"top_k", kScores, "share of labels among the k highest scores", true, make_top_k},
      {"precision", kScores, "true positives of all predicted positives", true,
       [](O o) { return make_f_score(o, FScore::Kind::precision); }},
      {"recall", kScores, "true positives of all positives", true,
       [](O o) { return make_f_score(o, FScore::Kind::recall); }},
      {"f1", kScores, "harmonic mean of precision and recall", true,
       [](O o) { return make_f_score(o, FScore::Kind::f1); }},
      {"g_mean", kScores, "geometric mean of the recalls of all classes", true, make_g_mean},
      {"auc", kScores, "area under the ROC curve", true, make_auc},
      {"mse", kScores, "mean squared error", false, [](O o) { return make_mean_error(o, true); }},
      {"mae", kScores, "mean absolute error", false, [](O o) { return make_mean_error(o, false); }},
      {"r2", kScores, "coefficient of determination", true, make_r2},
      {"recall_at_k", kScores, "share of embeddings with one of their label among the k nearest", true, make_recall_at_k},
      {"max_vio", "load", "how much more than its share the busiest expert gets", false,
       [](O o) { return make_expert_loads(o, ExpertLoads::Kind::max_violation); }},
      {"idle_experts", "load", "number of experts that no token goes to", false,
       [](O o) { return make_expert_loads(o, ExpertLoads::Kind::idle); }},
      {"kurtosis", "values", "fourth moment over squared variance; 3 for a normal distribution", false,
       [](O o) { return make_distribution(o, Distribution::Kind::kurtosis); }},
      {"peak", "values", "largest magnitude over standard deviation", false,
       [](O o) { return make_distribution(o, Distribution::Kind::peak); }},
      {"near_zero", "values", "share of magnitudes below a fraction of the standard deviation", false,
       [](O o) { return make_distribution(o, Distribution::Kind::near_zero); }},
  };
  return all;
}

Result<const MetricInfo*> find_metric(std::string_view id) {
  std::vector<std::string_view> ids;
  for (const MetricInfo& info : metrics()) {
    if (info.id == id) return &info;
    ids.push_back(info.id);
  }
  return not_found("no metric '" + std::string(id) + "'" + did_you_mean(id, ids));
}

Result<std::unique_ptr<Metric>> make_metric(std::string_view id, const Options& options) {
  TN_ASSIGN(const MetricInfo* info, find_metric(id));
  auto made = info->make(options);
  if (!made) return std::move(made).status().at("metric '" + std::string(id) + "'");
  return made;
}

}  // namespace tenon
