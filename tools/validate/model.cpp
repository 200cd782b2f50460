#include "tools/validate/model.h"

#include <cmath>

#include "core/ops/elementwise.h"
#include "core/ops/matmul.h"
#include "core/ops/shape.h"

namespace tenon::validate {
namespace {

constexpr int64_t kOutputs = 4;
constexpr const char* kNames[] = {"w", "b"};

}  // namespace

Status SmallModel::make(Graph& graph, int64_t inputs) {
  for (const Shape& shape : {Shape{inputs, kOutputs}, Shape{kOutputs}}) {
    HostArray h(DType::f64, shape);
    for (int64_t i = 0; i < h.numel(); ++i) h.set(i, 0.6 * std::sin(2.3 * static_cast<double>(i) + 0.4));
    TN_ASSIGN(Array a, Array::from_host(graph.backend(), h));
    values_.push_back(std::move(a));
  }
  return Status::ok();
}

Result<std::vector<Tensor>> SmallModel::apply(Graph& graph, const Apply& call) {
  if (!call.wanted.empty()) return not_found("apply: the model here is linear and has no node '" + call.wanted[0] + "'");
  if (call.in.size() != 1) return invalid("apply: the model here has a single input");
  const Tensor x = call.in[0].value;
  if (!x.valid() || x.rank() < 1 || !is_floating(x.dtype())) return invalid("apply: the model here wants floating rows");
  const Tensor rows = x.rank() == 1 ? unsqueeze(x, 1) : flatten(x);
  if (values_.empty()) TN_RETURN_IF_ERROR(make(graph, rows.dim(1)));
  std::vector<Tensor> p = call.params;
  for (size_t i = 0; i < values_.size() && call.params.empty(); ++i) p.push_back(graph.input(values_[i]));
  if (p.size() != values_.size()) return invalid("apply: the model here has two parameters");
  for (Tensor& t : p) t = cast(call.frozen ? stop_gradient(t) : t, x.dtype());
  return std::vector<Tensor>{matmul(rows, p[0]) + p[1]};
}

Result<std::vector<NamedTensor>> SmallModel::parameters(Graph& graph, const std::string&) {
  if (values_.empty()) TN_RETURN_IF_ERROR(make(graph, 2));
  std::vector<NamedTensor> out;
  for (size_t i = 0; i < values_.size(); ++i) out.push_back({kNames[i], graph.input(values_[i])});
  return out;
}

Status SmallModel::assign(const std::string&, size_t index, Tensor value) {
  if (index >= values_.size()) return not_found("assign: the model here has no parameter " + std::to_string(index));
  updates_.push_back({values_[index], value});
  return Status::ok();
}

Result<Tensor> SmallModel::flat(Graph& graph, const std::string& model) {
  TN_ASSIGN(const auto p, parameters(graph, model));
  std::vector<Tensor> parts;
  for (const NamedTensor& t : p) parts.push_back(reshape(t.value, {-1}));
  return concat(parts, 0);
}

Status SmallModel::assign_flat(const std::string&, Tensor value) {
  int64_t at = 0;
  for (const Array& a : values_) {
    updates_.push_back({a, reshape(narrow(value, 0, at, a.shape().numel()), a.shape())});
    at += a.shape().numel();
  }
  return Status::ok();
}

std::vector<std::pair<std::string, Array>> SmallModel::arrays() const {
  std::vector<std::pair<std::string, Array>> out;
  for (size_t i = 0; i < values_.size(); ++i) out.emplace_back(kNames[i], values_[i]);
  return out;
}

}  // namespace tenon::validate
