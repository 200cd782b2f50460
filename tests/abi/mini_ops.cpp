#include "tests/abi/mini_ops.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <stdexcept>

namespace abi_test {

int64_t numel(const Shape& s) {
  int64_t n = 1;
  for (int64_t d : s) n *= d;
  return n;
}
int64_t Attributes::i(const std::string& name, int64_t otherwise) const {
  const auto it = values.find(name);
  return it == values.end() ? otherwise : it->second.as.i64;
}
double Attributes::f(const std::string& name, double otherwise) const {
  const auto it = values.find(name);
  return it == values.end() ? otherwise : it->second.as.f64;
}
Shape Attributes::list(const std::string& name) const {
  const auto it = values.find(name);
  return it == values.end() ? Shape{} : Shape(it->second.as.i64s, it->second.as.i64s + it->second.count);
}

namespace {

size_t axis_of(int64_t axis, size_t rank) {
  if (axis < 0) axis += static_cast<int64_t>(rank);
  if (axis < 0 || axis >= static_cast<int64_t>(rank)) throw std::runtime_error("axis out of range");
  return static_cast<size_t>(axis);
}

const std::map<std::string, std::function<double(double)>>& unary_table() {
  static const std::map<std::string, std::function<double(double)>> table = {
      {"neg", [](double x) { return -x; }},
      {"exp", [](double x) { return std::exp(x); }},
      {"log", [](double x) { return std::log(x); }},
      {"log1p", [](double x) { return std::log1p(x); }},
      {"sqrt", [](double x) { return std::sqrt(x); }},
      {"square", [](double x) { return x * x; }},
      {"softplus", [](double x) { return std::max(x, 0.0) + std::log1p(std::exp(-std::fabs(x))); }},
      {"abs", [](double x) { return std::fabs(x); }},
      {"relu", [](double x) { return std::max(x, 0.0); }},
      {"stop_gradient", [](double x) { return x; }},
  };
  return table;
}

const std::map<std::string, std::function<double(double, double)>>& binary_table() {
  static const std::map<std::string, std::function<double(double, double)>> table = {
      {"add", [](double a, double b) { return a + b; }},
      {"sub", [](double a, double b) { return a - b; }},
      {"mul", [](double a, double b) { return a * b; }},
      {"div", [](double a, double b) { return a / b; }},
      {"minimum", [](double a, double b) { return std::min(a, b); }},
      {"maximum", [](double a, double b) { return std::max(a, b); }},
      {"not_equal", [](double a, double b) { return a != b ? 1.0 : 0.0; }},
      {"less_equal", [](double a, double b) { return a <= b ? 1.0 : 0.0; }},
      {"greater", [](double a, double b) { return a > b ? 1.0 : 0.0; }},
  };
  return table;
}

// Element of v at flat position i of `shape`, by numpy's broadcasting.
double broadcast_at(const Value& v, const Shape& shape, int64_t i) {
  int64_t at = 0, stride = 1;
  for (size_t k = 0; k < shape.size(); ++k) {
    const int64_t index = i % shape[shape.size() - 1 - k];
    i /= shape[shape.size() - 1 - k];
    if (k >= v.shape.size()) continue;
    const int64_t d = v.shape[v.shape.size() - 1 - k];
    if (d != 1) at += index * stride;
    stride *= d;
  }
  return v.data[static_cast<size_t>(at)];
}
Shape broadcast(const Shape& a, const Shape& b) {
  Shape out(std::max(a.size(), b.size()), 1);
  for (const Shape* s : {&a, &b})
    for (size_t k = 0; k < s->size(); ++k) {
      const int64_t d = (*s)[s->size() - 1 - k];
      int64_t& o = out[out.size() - 1 - k];
      if (d != 1 && o != 1 && d != o) throw std::runtime_error("shapes do not broadcast");
      if (d != 1) o = d;
    }
  return out;
}

std::vector<Value> unary(const std::string& name, const std::vector<Value>& in, const Attributes&) {
  Value y = in.at(0);
  for (double& x : y.data) x = unary_table().at(name)(x);
  return {y};
}
std::vector<Value> binary(const std::string& name, const std::vector<Value>& in, const Attributes&) {
  if (in.at(0).dtype != in.at(1).dtype) throw std::runtime_error("dtypes differ");
  Value y{in[0].dtype, broadcast(in[0].shape, in[1].shape), {}};
  if (name == "not_equal" || name == "less_equal" || name == "greater") y.dtype = TN_BOOL;
  for (int64_t i = 0; i < numel(y.shape); ++i)
    y.data.push_back(
        binary_table().at(name)(broadcast_at(in[0], y.shape, i), broadcast_at(in[1], y.shape, i)));
  return {y};
}
std::vector<Value> where(const std::string&, const std::vector<Value>& in, const Attributes&) {
  if (in.at(0).dtype != TN_BOOL || in.at(1).dtype != in.at(2).dtype) throw std::runtime_error("wrong dtypes");
  Value y{in[1].dtype, broadcast(in[0].shape, broadcast(in[1].shape, in[2].shape)), {}};
  for (int64_t i = 0; i < numel(y.shape); ++i)
    y.data.push_back(broadcast_at(broadcast_at(in[0], y.shape, i) != 0 ? in[1] : in[2], y.shape, i));
  return {y};
}

std::vector<Value> reduce(const std::string& name, const std::vector<Value>& in, const Attributes& attrs) {
  const Value& x = in.at(0);
  std::vector<bool> gone(x.shape.size(), attrs.list("axes").empty());
  for (int64_t a : attrs.list("axes")) gone[axis_of(a, gone.size())] = true;
  Shape kept, dropped;
  for (size_t k = 0; k < gone.size(); ++k) {
    kept.push_back(gone[k] ? 1 : x.shape[k]);
    if (!gone[k]) dropped.push_back(x.shape[k]);
  }
  std::vector<std::vector<double>> groups(static_cast<size_t>(numel(kept)));
  Value position{TN_I64, kept, {}};
  for (int64_t i = 0; i < numel(kept); ++i) position.data.push_back(static_cast<double>(i));
  for (int64_t i = 0; i < numel(x.shape); ++i)
    groups[static_cast<size_t>(broadcast_at(position, x.shape, i))].push_back(x.data[static_cast<size_t>(i)]);
  Value y{x.dtype, attrs.i("keepdims", 0) ? kept : dropped, {}};
  for (const auto& g : groups) {
    double r = 0;
    const double top = g.empty() ? 0 : *std::max_element(g.begin(), g.end());
    for (double v : g) r += name == "logsumexp" ? std::exp(v - top) : v;
    if (name == "mean") r /= static_cast<double>(g.size());
    if (name == "max") r = top;
    if (name == "logsumexp") r = top + std::log(r);
    y.data.push_back(r);
  }
  return {y};
}

std::vector<Value> log_softmax(const std::string&, const std::vector<Value>& in, const Attributes& attrs) {
  Attributes over_axis;
  const int64_t axis = attrs.i("axis", -1);
  over_axis.values["axes"] = {TN_VALUE_I64S, 1, {}};
  over_axis.values["axes"].as.i64s = &axis;
  over_axis.values["keepdims"] = {TN_VALUE_I64, 0, {}};
  over_axis.values["keepdims"].as.i64 = 1;
  return binary("sub", {in.at(0), reduce("logsumexp", in, over_axis)[0]}, {});
}

std::vector<Value> same_data(const std::string& name, const std::vector<Value>& in, const Attributes& attrs) {
  Value y = in.at(0);
  if (name == "cast") y.dtype = static_cast<tn_dtype>(attrs.i("dtype", 0));
  if (name == "unsqueeze")
    y.shape.insert(y.shape.begin() + static_cast<int64_t>(axis_of(attrs.i("axis", -1), y.shape.size() + 1)),
                   1);
  if (name == "squeeze")
    y.shape.erase(y.shape.begin() + static_cast<int64_t>(axis_of(attrs.i("axis", -1), y.shape.size())));
  if (name == "reshape") y.shape = attrs.list("shape");
  if (numel(y.shape) != static_cast<int64_t>(y.data.size()))
    throw std::runtime_error("wrong number of elements");
  return {y};
}
std::vector<Value> broadcast_to(const std::string&, const std::vector<Value>& in, const Attributes& attrs) {
  Value y{in.at(0).dtype, attrs.list("shape"), {}};
  for (int64_t i = 0; i < numel(y.shape); ++i) y.data.push_back(broadcast_at(in[0], y.shape, i));
  return {y};
}

int64_t index_at(const Value& idx, size_t i, int64_t n) {
  const auto k = static_cast<int64_t>(idx.data[i]);
  if (k < 0 || k >= n) throw std::runtime_error("index out of range");
  return k;
}
// Over the last axis only, which is what pick() uses.
std::vector<Value> take_along_axis(const std::string&, const std::vector<Value>& in,
                                   const Attributes& attrs) {
  const Value &x = in.at(0), &idx = in.at(1);
  if (axis_of(attrs.i("axis", -1), x.shape.size()) + 1 != x.shape.size())
    throw std::runtime_error("wants the last axis");
  const int64_t n = x.shape.back(), k = idx.shape.back();
  Value y{x.dtype, idx.shape, {}};
  for (size_t i = 0; i < idx.data.size(); ++i)
    y.data.push_back(x.data[static_cast<size_t>(static_cast<int64_t>(i) / k * n + index_at(idx, i, n))]);
  return {y};
}
// x: [N]
std::vector<Value> gather(const std::string&, const std::vector<Value>& in, const Attributes&) {
  if (in.at(0).shape.size() != 1) throw std::runtime_error("wants a vector");
  Value y{in[0].dtype, in.at(1).shape, {}};
  for (size_t i = 0; i < in[1].data.size(); ++i)
    y.data.push_back(in[0].data[static_cast<size_t>(index_at(in[1], i, in[0].shape[0]))]);
  return {y};
}
std::vector<Value> one_hot(const std::string&, const std::vector<Value>& in, const Attributes& attrs) {
  const int64_t depth = attrs.i("depth", 0);
  Value y{static_cast<tn_dtype>(attrs.i("dtype", TN_F32)), in.at(0).shape, {}};
  y.shape.push_back(depth);
  for (double label : in[0].data)
    for (int64_t c = 0; c < depth; ++c) y.data.push_back(static_cast<double>(c) == label ? 1 : 0);
  return {y};
}
std::vector<Value> cross_entropy(const std::string&, const std::vector<Value>& in, const Attributes& attrs) {
  const Value log_p = log_softmax("", {in.at(0)}, {})[0];
  const double s = attrs.f("label_smoothing", 0);
  const int64_t ignore = attrs.i("ignore_index", -100), n = in[0].shape.back();
  Value y{in[0].dtype, in.at(1).shape, {}};
  for (size_t i = 0; i < in[1].data.size(); ++i) {
    double l = 0;
    if (static_cast<int64_t>(in[1].data[i]) != ignore)
      for (int64_t c = 0; c < n; ++c)
        l -= ((c == index_at(in[1], i, n) ? 1 - s : 0) + s / static_cast<double>(n)) *
             log_p.data[i * static_cast<size_t>(n) + static_cast<size_t>(c)];
    y.data.push_back(l);
  }
  return {y};
}

}  // namespace

OpFn find_op(const std::string& id) {
  static const std::map<std::string, OpFn> others = {{"where", where},
                                                     {"sum", reduce},
                                                     {"mean", reduce},
                                                     {"max", reduce},
                                                     {"logsumexp", reduce},
                                                     {"log_softmax", log_softmax},
                                                     {"cast", same_data},
                                                     {"unsqueeze", same_data},
                                                     {"squeeze", same_data},
                                                     {"reshape", same_data},
                                                     {"broadcast_to", broadcast_to},
                                                     {"take_along_axis", take_along_axis},
                                                     {"gather", gather},
                                                     {"one_hot", one_hot},
                                                     {"cross_entropy", cross_entropy}};
  if (id.size() < 2 || id.substr(id.size() - 2) != "/1") return nullptr;
  const std::string name = id.substr(0, id.size() - 2);
  if (unary_table().count(name)) return unary;
  if (binary_table().count(name)) return binary;
  const auto it = others.find(name);
  return it == others.end() ? nullptr : it->second;
}

}  // namespace abi_test
