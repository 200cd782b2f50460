// Transforms of layout and type: one_hot, reshape, cast.
#include <cmath>

#include "core/data/transform_util.h"

namespace tenon {
namespace {

class OneHot final : public ColumnTransform {
 public:
  OneHot() : ColumnTransform("one_hot") {}
  int64_t classes = 0;
  std::string to;

  bool needs_fit() const override { return classes == 0; }
  Status fit(const Dataset& train) override {
    TN_ASSIGN(const HostArray* y, find(train));
    if (!is_integer(y->dtype())) return fail("must be integers, is " + std::string(name_of(y->dtype())));
    double most = -1;
    for (int64_t i = 0; i < y->numel(); ++i) most = std::max(most, y->at(i));
    if (most < 0 || most >= 1e6)
      return fail("the largest label is " + std::to_string(static_cast<int64_t>(most)) +
                  ", not a class number");
    learned_ = static_cast<int64_t>(most) + 1;
    return Status::ok();
  }

  Status apply(Columns& columns, uint64_t) const override {
    TN_ASSIGN(HostArray * y, find(columns));
    if (y->shape().rank() != 1 || !is_integer(y->dtype()))
      return fail("must be integers [N], is " + std::string(name_of(y->dtype())) + to_string(y->shape()));
    const int64_t n = y->numel(), c = classes ? classes : learned_;
    TN_RETURN_IF_ERROR(check_labels(*y, c, column).at(where()));
    HostArray out(DType::f32, Shape{n, c});
    for (int64_t i = 0; i < n; ++i)
      out.as<float>()[static_cast<size_t>(i * c) + static_cast<size_t>(y->at(i))] = 1;
    columns.insert_or_assign(to.empty() ? column : to, std::move(out));
    return Status::ok();
  }

  Columns state() const override {
    Columns s;
    s.emplace("classes", HostArray::of(std::vector<int64_t>{classes ? classes : learned_}));
    return s;
  }
  Status load(const Columns& state) override {
    const auto it = state.find("classes");
    if (it == state.end() || it->second.numel() != 1 || it->second.at(0) < 1)
      return fail("its stored state is damaged or of another transform");
    learned_ = static_cast<int64_t>(it->second.at(0));
    return Status::ok();
  }

 private:
  int64_t learned_ = 0;
};

class Reshape final : public ColumnTransform {
 public:
  Reshape() : ColumnTransform("reshape") {}
  std::vector<int64_t> shape{-1};

  Status apply(Columns& columns, uint64_t) const override {
    TN_ASSIGN(HostArray * x, find(columns));
    int64_t row = 1, fixed = 1;
    for (int a = 1; a < x->shape().rank(); ++a) row *= x->shape()[a];
    for (int64_t d : shape)
      if (d > 0) fixed *= d;
    Shape out{x->shape()[0]};
    for (int64_t d : shape) out.push_back(d > 0 ? d : row / fixed);
    if (out.numel() != x->numel() || row == 0)
      return fail("samples of shape " + to_string(Shape(std::span<const int64_t>(x->shape()).subspan(1))) +
                  " can't become " + to_string(Shape(std::span<const int64_t>(shape))));
    *x = std::move(*x).reshaped(out);
    return Status::ok();
  }
};

class Cast final : public ColumnTransform {
 public:
  Cast() : ColumnTransform("cast") {}
  DType dtype = DType::f32;

  Status apply(Columns& columns, uint64_t) const override {
    TN_ASSIGN(HostArray * x, find(columns));
    if (is_integer(dtype) && is_floating(x->dtype())) TN_RETURN_IF_ERROR(check_fits(*x));
    *x = map_elements(*x, dtype, [](double v, size_t) { return v; });
    return Status::ok();
  }

 private:
  // Converting NaN or a value beyond the type's range would be undefined.
  Status check_fits(const HostArray& x) const {
    const double low = dtype == DType::u8 ? 0 : dtype == DType::i32 ? -2147483648.0 : -9.2e18;
    const double high = dtype == DType::u8 ? 255 : dtype == DType::i32 ? 2147483647.0 : 9.2e18;
    for (int64_t i = 0; i < x.numel(); ++i)
      if (!(x.at(i) >= low && x.at(i) <= high))
        return fail("element " + std::to_string(i) + " does not fit into " + std::string(name_of(dtype)));
    return Status::ok();
  }
};

}  // namespace

TransformResult make_one_hot(const Options& options) {
  auto t = std::make_unique<OneHot>();
  TN_RETURN_IF_ERROR(
      OptionBinder(options).get("column", t->column).get("classes", t->classes).get("to", t->to).finish());
  if (t->classes < 0 || t->classes > 1'000'000) return invalid("classes must be in 0..1000000 (0: learned)");
  return TransformResult(std::move(t));
}

TransformResult make_reshape(const Options& options) {
  auto t = std::make_unique<Reshape>();
  std::vector<double> shape{-1};
  TN_RETURN_IF_ERROR(OptionBinder(options).get("column", t->column).get("shape", shape).finish());
  t->shape.clear();
  int unknown = 0;
  for (double d : shape) {
    if (std::floor(d) != d || d < -1 || d == 0 || d > 1e9)
      return invalid("shape must hold sizes from 1, and at most one -1");
    unknown += d < 0;
    t->shape.push_back(static_cast<int64_t>(d));
  }
  if (unknown > 1 || shape.size() > kMaxRank - 1) return invalid("shape must have at most one -1 and 7 axes");
  double product = 1;
  for (double d : shape) product *= std::abs(d);
  if (product > 1e15) return invalid("shape has too many elements");
  return TransformResult(std::move(t));
}

TransformResult make_cast(const Options& options) {
  auto t = std::make_unique<Cast>();
  std::string dtype = "f32";
  TN_RETURN_IF_ERROR(OptionBinder(options).get("column", t->column).get("dtype", dtype).finish());
  TN_RETURN_IF_ERROR(check_choice("dtype", dtype, {"f32", "f64", "bf16", "i32", "i64", "u8", "bool"}));
  t->dtype = *dtype_from_name(dtype);
  return TransformResult(std::move(t));
}

}  // namespace tenon
