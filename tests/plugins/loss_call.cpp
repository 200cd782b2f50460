#include "tests/plugins/loss_call.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <cmath>

#include "core/graph/grad.h"
#include "core/ops/ops.h"
#include "core/plugin/loss.h"

namespace tenon::test {
namespace {

std::vector<double> values_of(const HostArray& a) {
  std::vector<double> v;
  for (int64_t i = 0; i < a.numel(); ++i) v.push_back(a.at(i));
  return v;
}

// Directions for second derivatives: fixed, none of them special.
HostArray directions(const Shape& shape) {
  HostArray d(DType::f64, shape);
  for (int64_t i = 0; i < d.numel(); ++i) d.set(i, std::cos(1.7 * static_cast<double>(i) + 0.3));
  return d;
}

// The loss in a graph of its own, over its inputs.
struct Built {
  explicit Built(Runtime& runtime) : graph(runtime) {}
  Graph graph;
  std::vector<NamedTensor> inputs;
  LossResult result;
  std::vector<NamedTensor> checks;

  Status build(LossPlugin& plugin, const LossCall& call) {
    for (const auto& [role, a] : call.inputs) {
      TN_ASSIGN(const Array array, Array::from_host(graph.backend(), a));
      inputs.push_back({role, graph.input(array)});
    }
    TN_ASSIGN(result, plugin.build(graph, {.train = true}, inputs, nullptr));
    checks = result.emitted.checks(call.id);
    return Status::ok();
  }
  // Values of `wanted`, with all checks.
  Result<std::vector<HostArray>> eval(std::vector<Tensor> wanted) {
    const size_t n = wanted.size();
    for (const NamedTensor& c : checks) wanted.push_back(c.value);
    TN_RETURN_IF_ERROR(graph.status());
    TN_ASSIGN(const auto arrays, graph.eval(wanted));
    TN_RETURN_IF_ERROR(verify(checks, std::span(arrays).subspan(n)));
    std::vector<HostArray> out;
    for (size_t i = 0; i < n; ++i) {
      TN_ASSIGN(HostArray h, arrays[i].to_host());
      out.push_back(std::move(h));
    }
    return out;
  }
};

}  // namespace

Catalog& shipped() {
  static Catalog* c = [] {
    auto* made = new Catalog();
    REQUIRE(made->add_folder(std::string(TENON_BINARY_DIR) + "/plugins").is_ok());
    return made;
  }();
  return *c;
}

HostArray& LossCall::input(const std::string& role) {
  for (auto& [name, a] : inputs)
    if (name == role) return a;
  inputs.emplace_back(role, HostArray());
  return inputs.back().second;
}

HostArray reals(const Shape& shape, const std::vector<double>& values, DType dtype) {
  HostArray a(dtype, shape);
  REQUIRE(a.numel() == static_cast<int64_t>(values.size()));
  for (int64_t i = 0; i < a.numel(); ++i) a.set(i, values[static_cast<size_t>(i)]);
  return a;
}
HostArray numbers(const std::vector<int64_t>& values) { return HostArray::of<int64_t>(values); }

std::vector<double> LossValues::emitted_values(const std::string& name) const { return values_of(emitted.at(name)); }
std::vector<double> LossValues::grad(const std::string& role) const { return values_of(grads.at(role)); }

Result<LossValues> try_loss(Runtime& runtime, const LossCall& call) {
  TN_ASSIGN(const auto plugin, LossPlugin::create(shipped(), call.id, call.id, call.options));
  Built b(runtime);
  TN_RETURN_IF_ERROR(b.build(*plugin, call));
  std::vector<std::string> names, roles;
  std::vector<Tensor> wanted, xs;
  for (const Emitted& e : b.result.emitted.tensors) {
    if (e.as == TN_OUT_CHECK || e.name == "loss") continue;
    names.push_back(e.name);
    wanted.push_back(e.value);
  }
  names.push_back("loss");
  wanted.push_back(b.result.value);
  for (const NamedTensor& in : b.inputs)
    if (is_floating(in.value.dtype())) {
      roles.push_back(in.name);
      xs.push_back(in.value);
    }
  for (const Tensor& g : grad(b.result.value, xs)) wanted.push_back(g);
  TN_ASSIGN(std::vector<HostArray> values, b.eval(wanted));
  LossValues out;
  for (size_t i = 0; i < names.size(); ++i) out.emitted[names[i]] = std::move(values[i]);
  for (size_t i = 0; i < roles.size(); ++i) out.grads[roles[i]] = std::move(values[names.size() + i]);
  return out;
}

LossValues loss_of(Runtime& runtime, const LossCall& call) {
  Result<LossValues> r = try_loss(runtime, call);
  INFO(call.id << ": " << r.status().message());
  REQUIRE(r.is_ok());
  return std::move(*r);
}

std::string refusal(Runtime& runtime, const LossCall& call) {
  const Result<LossValues> r = try_loss(runtime, call);
  return r.is_ok() ? "accepted" : r.status().message();
}

void check_derivatives(Runtime& runtime, LossCall call, const std::string& role, bool second_order) {
  using Catch::Matchers::WithinAbs;
  auto plugin = LossPlugin::create(shipped(), call.id, call.id, call.options);
  INFO(call.id << ", " << role << ": " << plugin.status().message());
  REQUIRE(plugin.is_ok());
  HostArray& x = call.input(role);
  const HostArray direction = directions(x.shape());
  // Loss, derivative, its projection, derivative of the projection.
  const auto at = [&] {
    Built b(runtime);
    const Status built = b.build(**plugin, call);
    INFO(built.message());
    REQUIRE(built.is_ok());
    Tensor input;
    for (const NamedTensor& in : b.inputs)
      if (in.name == role) input = in.value;
    const Tensor first = grad(b.result.value, {&input, 1})[0];
    std::vector<Tensor> wanted = {b.result.value, first};
    if (second_order) {
      wanted.push_back(sum(first * b.graph.input(Array::from_host(runtime.backend(), direction).value())));
      wanted.push_back(grad(wanted.back(), {&input, 1})[0]);
    }
    auto values = b.eval(wanted);
    INFO(values.status().message());
    REQUIRE(values.is_ok());
    return std::move(*values);
  };
  const std::vector<HostArray> here = at();
  const double h = 1e-6;
  for (int64_t i = 0; i < x.numel(); ++i) {
    CAPTURE(i);
    const double middle = x.at(i);
    x.set(i, middle + h);
    const std::vector<HostArray> up = at();
    x.set(i, middle - h);
    const std::vector<HostArray> down = at();
    x.set(i, middle);
    const auto slope = [&](size_t k) { return (up[k].at(0) - down[k].at(0)) / (2 * h); };
    const auto near = [](double expected, double scale) { return WithinAbs(expected, scale * (1 + std::abs(expected))); };
    CHECK_THAT(here[1].at(i), near(slope(0), 1e-7));
    if (second_order) CHECK_THAT(here[3].at(i), near(slope(2), 1e-6));
  }
}

}  // namespace tenon::test
