// Transforms of numbers, feature by feature: standardize, minmax, normalize_channels, impute; scale; and a linear teacher.
#include <algorithm>
#include <cmath>

#include "core/base/random.h"
#include "core/data/transform_util.h"

namespace tenon {
namespace {

// The features of a column [N, F, inner...]: element e belongs to feature (e / inner) % count.
struct Layout {
  int64_t count = 1, inner = 1;
  size_t feature(size_t e) const { return e / static_cast<size_t>(inner) % static_cast<size_t>(count); }
};

// Every element of a row is a feature of its own.
Layout by_element(const HostArray& x) {
  Layout l;
  for (int a = 1; a < x.shape().rank(); ++a) l.count *= x.shape()[a];
  l.count = std::max<int64_t>(l.count, 1);
  return l;
}

// Axis 1 holds the features.
Layout by_channel(const HostArray& x) {
  Layout l;
  if (x.shape().rank() > 1) l.count = std::max<int64_t>(x.shape()[1], 1);
  for (int a = 2; a < x.shape().rank(); ++a) l.inner *= x.shape()[a];
  l.inner = std::max<int64_t>(l.inner, 1);
  return l;
}

// (x - shift) / divide + add, with shift and divide learned for each feature.
class PerFeature : public ColumnTransform {
 public:
  using ColumnTransform::ColumnTransform;
  bool needs_fit() const override { return !given_; }

  Status fit(const Dataset& train) override {
    TN_ASSIGN(const HostArray* x, find(train));
    TN_RETURN_IF_ERROR(check_finite(*x, column, train.schema.feature_names).at(where()));
    if (x->numel() == 0) return fail("there is nothing to learn from: the training part is empty");
    const Layout l = layout(*x);
    shift_.assign(static_cast<size_t>(l.count), 0);
    divide_.assign(static_cast<size_t>(l.count), 1);
    learn(*x, l);
    return Status::ok();
  }

  Status apply(Columns& columns, uint64_t) const override {
    TN_ASSIGN(HostArray * x, find(columns));
    const Layout l = layout(*x);
    if (static_cast<size_t>(l.count) != shift_.size())
      return fail("has " + std::to_string(l.count) + " features here, " + std::to_string(shift_.size()) +
                  " where it was fitted");
    // Elements come in order, so that the feature need not be divided out of each one's number.
    size_t f = 0;
    int64_t left = l.inner;
    *x = map_elements(*x, real_type(x->dtype()), [&](double v, size_t) {
      const double y = (v - shift_[f]) / divide_[f] + add_;
      if (--left == 0) {
        left = l.inner;
        if (++f == shift_.size()) f = 0;
      }
      return y;
    });
    return Status::ok();
  }

  Columns state() const override {
    Columns s;
    s.emplace("shift", HostArray::of(shift_));
    s.emplace("divide", HostArray::of(divide_));
    return s;
  }

  Status load(const Columns& state) override {
    const auto shift = state.find("shift"), divide = state.find("divide");
    if (shift == state.end() || divide == state.end() || shift->second.dtype() != DType::f64 ||
        divide->second.dtype() != DType::f64 || shift->second.numel() != divide->second.numel())
      return fail("its stored state is damaged or of another transform");
    shift_.assign(shift->second.as<double>().begin(), shift->second.as<double>().end());
    divide_.assign(divide->second.as<double>().begin(), divide->second.as<double>().end());
    return Status::ok();
  }

 protected:
  virtual Layout layout(const HostArray& x) const { return by_element(x); }
  virtual void learn(const HostArray& x, const Layout& l) = 0;

  std::vector<double> shift_, divide_;
  double add_ = 0;
  bool given_ = false;
};

// Mean and population standard deviation, in two passes; 0 becomes 1, as in scikit-learn's StandardScaler.
class Standardize : public PerFeature {
 public:
  using PerFeature::PerFeature;
  explicit Standardize(bool channels)
      : PerFeature(channels ? "normalize_channels" : "standardize"), channels_(channels) {}
  void give(const std::vector<double>& mean, const std::vector<double>& std) {
    shift_ = mean;
    divide_ = std;
    given_ = true;
  }

 protected:
  Layout layout(const HostArray& x) const override { return channels_ ? by_channel(x) : by_element(x); }
  void learn(const HostArray& x, const Layout& l) override {
    const double per_feature = static_cast<double>(x.numel() / l.count);
    std::vector<double> square(shift_.size(), 0);
    for (int64_t e = 0; e < x.numel(); ++e) shift_[l.feature(static_cast<size_t>(e))] += x.at(e);
    for (double& m : shift_) m /= per_feature;
    for (int64_t e = 0; e < x.numel(); ++e) {
      const size_t f = l.feature(static_cast<size_t>(e));
      square[f] += (x.at(e) - shift_[f]) * (x.at(e) - shift_[f]);
    }
    for (size_t f = 0; f < square.size(); ++f) {
      const double deviation = std::sqrt(square[f] / per_feature);
      // Below the rounding of the mean itself, the feature is constant.
      divide_[f] = deviation > 1e-12 * std::abs(shift_[f]) && deviation > 0 ? deviation : 1;
    }
  }

 private:
  bool channels_ = false;
};

class MinMax final : public PerFeature {
 public:
  MinMax(double low, double high) : PerFeature("minmax"), range_(high - low) { add_ = low; }

 protected:
  void learn(const HostArray& x, const Layout& l) override {
    std::vector<double> high(shift_.size(), -HUGE_VAL);
    std::fill(shift_.begin(), shift_.end(), HUGE_VAL);
    for (int64_t e = 0; e < x.numel(); ++e) {
      const size_t f = l.feature(static_cast<size_t>(e));
      shift_[f] = std::min(shift_[f], x.at(e));
      high[f] = std::max(high[f], x.at(e));
    }
    for (size_t f = 0; f < high.size(); ++f)
      divide_[f] = (high[f] > shift_[f] ? high[f] - shift_[f] : 1) / range_;
  }

 private:
  double range_;
};

class Scale final : public ColumnTransform {
 public:
  Scale(double factor, double offset) : ColumnTransform("scale"), factor_(factor), offset_(offset) {}
  Status apply(Columns& columns, uint64_t) const override {
    TN_ASSIGN(HostArray * x, find(columns));
    *x = map_elements(*x, real_type(x->dtype()), [&](double v, size_t) { return v * factor_ + offset_; });
    return Status::ok();
  }

 private:
  double factor_, offset_;
};

class Impute final : public ColumnTransform {
 public:
  explicit Impute(bool median) : ColumnTransform("impute"), median_(median) {}
  bool needs_fit() const override { return true; }

  Status fit(const Dataset& train) override {
    TN_ASSIGN(const HostArray* x, find(train));
    const Layout l = by_element(*x);
    fill_.assign(static_cast<size_t>(l.count), 0);
    for (int64_t f = 0; f < l.count; ++f) {
      std::vector<double> v;
      for (int64_t e = f; e < x->numel(); e += l.count)
        if (!std::isnan(x->at(e))) v.push_back(x->at(e));
      if (v.empty())
        return fail("feature " + std::to_string(f) + " has no value at all in the training part; drop it");
      fill_[static_cast<size_t>(f)] = middle(v);
    }
    return Status::ok();
  }

  Status apply(Columns& columns, uint64_t) const override {
    TN_ASSIGN(HostArray * x, find(columns));
    const Layout l = by_element(*x);
    if (static_cast<size_t>(l.count) != fill_.size())
      return fail("has " + std::to_string(l.count) + " features here, " + std::to_string(fill_.size()) +
                  " where it was fitted");
    if (is_floating(x->dtype()))
      *x = map_elements(*x, x->dtype(),
                        [&](double v, size_t e) { return std::isnan(v) ? fill_[l.feature(e)] : v; });
    return Status::ok();
  }

  Columns state() const override {
    Columns s;
    s.emplace("fill", HostArray::of(fill_));
    return s;
  }
  Status load(const Columns& state) override {
    const auto it = state.find("fill");
    if (it == state.end() || it->second.dtype() != DType::f64)
      return fail("its stored state is damaged or of another transform");
    fill_.assign(it->second.as<double>().begin(), it->second.as<double>().end());
    return Status::ok();
  }

 private:
  double middle(std::vector<double>& v) const {
    const size_t n = v.size();
    if (median_) {
      std::sort(v.begin(), v.end());
      return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
    }
    double sum = 0;
    for (double d : v) sum += d;
    return sum / static_cast<double>(n);
  }

  bool median_;
  std::vector<double> fill_;
};

// Regression with a known solution: y = x w, w ~ N(0, 1/features), drawn from the seed.
class LinearTeacher final : public ColumnTransform {
 public:
  explicit LinearTeacher(uint64_t seed) : ColumnTransform("linear_teacher"), seed_(seed) {}

  Status apply(Columns& columns, uint64_t) const override {
    TN_ASSIGN(const HostArray* x, find(columns));
    if (x->shape().rank() != 2) return fail("has shape " + to_string(x->shape()) + ", must be a table");
    const int64_t rows = x->shape()[0], features = x->shape()[1];
    Philox random(seed_, "linear_teacher");
    std::vector<double> w(static_cast<size_t>(features));
    for (double& v : w) v = random.normal() / std::sqrt(static_cast<double>(features));
    HostArray y(real_type(x->dtype()), Shape{rows});
    for (int64_t i = 0; i < rows; ++i) {
      double sum = 0;
      for (int64_t j = 0; j < features; ++j) sum += x->at(i * features + j) * w[static_cast<size_t>(j)];
      y.set(i, sum);
    }
    columns.insert_or_assign("y", std::move(y));
    return Status::ok();
  }

 private:
  uint64_t seed_;
};

}  // namespace

TransformResult make_linear_teacher(const Options& options) {
  int64_t seed = 0;
  std::string column = "x";
  TN_RETURN_IF_ERROR(OptionBinder(options).get("column", column).get("seed", seed).finish());
  auto t = std::make_unique<LinearTeacher>(static_cast<uint64_t>(seed));
  t->column = column;
  return TransformResult(std::move(t));
}

TransformResult make_standardize(const Options& options) {
  auto t = std::make_unique<Standardize>(false);
  TN_RETURN_IF_ERROR(OptionBinder(options).get("column", t->column).finish());
  return TransformResult(std::move(t));
}

TransformResult make_normalize_channels(const Options& options) {
  auto t = std::make_unique<Standardize>(true);
  std::vector<double> mean, std;
  TN_RETURN_IF_ERROR(
      OptionBinder(options).get("column", t->column).get("mean", mean).get("std", std).finish());
  if (mean.size() != std.size())
    return invalid("mean and std must have one number for each channel, or neither be given");
  for (double s : std)
    if (!(s > 0)) return invalid("every std must be above 0");
  if (!mean.empty()) t->give(mean, std);
  return TransformResult(std::move(t));
}

TransformResult make_minmax(const Options& options) {
  double low = 0, high = 1;
  std::string column = "x";
  TN_RETURN_IF_ERROR(OptionBinder(options).get("column", column).get("low", low).get("high", high).finish());
  if (!(low < high)) return invalid("low must be below high");
  auto t = std::make_unique<MinMax>(low, high);
  t->column = column;
  return TransformResult(std::move(t));
}

TransformResult make_scale(const Options& options) {
  double factor = 1, offset = 0;
  std::string column = "x";
  TN_RETURN_IF_ERROR(
      OptionBinder(options).get("column", column).get("factor", factor).get("offset", offset).finish());
  if (!std::isfinite(factor) || !std::isfinite(offset)) return invalid("factor and offset must be finite");
  auto t = std::make_unique<Scale>(factor, offset);
  t->column = column;
  return TransformResult(std::move(t));
}

TransformResult make_impute(const Options& options) {
  std::string column = "x", with = "median";
  TN_RETURN_IF_ERROR(OptionBinder(options).get("column", column).get("with", with).finish());
  TN_RETURN_IF_ERROR(check_choice("with", with, {"median", "mean"}));
  auto t = std::make_unique<Impute>(with == "median");
  t->column = column;
  return TransformResult(std::move(t));
}

}  // namespace tenon
