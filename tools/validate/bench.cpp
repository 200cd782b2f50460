#include "tools/validate/bench.h"

#include <cmath>
#include <cstring>

#include "core/base/random.h"
#include "core/graph/grad.h"
#include "core/ops/elementwise.h"
#include "core/ops/shape.h"
#include "tools/validate/procedure.h"

namespace tenon::validate {
namespace {

constexpr int64_t kStepsOfEpoch = 2;
constexpr double kRate = 0.05;

Result<Tensor> leaf(Graph& graph, const HostArray& a) {
  TN_ASSIGN(const Array array, Array::from_host(graph.backend(), a));
  return graph.input(array);
}

Result<Tensor> present_one(Graph& graph, const HostArray& a, Layout layout) {
  const int rank = a.shape().rank();
  if (layout == Layout::dense || rank == 0) return leaf(graph, a);
  if (layout == Layout::transposed) {
    Graph other(graph.runtime());
    TN_ASSIGN(const Tensor x, leaf(other, a));
    TN_ASSIGN(const HostArray turned, other.to_host(contiguous(transpose(x))));
    TN_ASSIGN(const Tensor t, leaf(graph, turned));
    return transpose(t);
  }
  // Every second element of rows that are twice as long.
  Shape wide = a.shape();
  wide[rank - 1] *= 2;
  HostArray memory(a.dtype(), wide);
  for (int64_t i = 0; i < a.numel(); ++i) memory.set(2 * i, a.at(i));
  TN_ASSIGN(const Tensor t, leaf(graph, memory));
  const Dims start = Dims::filled(rank, 0);
  Dims step = Dims::filled(rank, 1);
  step[rank - 1] = 2;
  return slice(t, start, wide, step);
}

HostArray host_of(const EmittedValue& v) {
  return std::visit(
      [](const auto& x) {
        using T = std::decay_t<decltype(x)>;
        if constexpr (std::is_same_v<T, std::string>) {
          HostArray a(DType::u8, Shape{static_cast<int64_t>(x.size())});
          std::copy(x.begin(), x.end(), reinterpret_cast<char*>(a.data()));
          return a;
        } else if constexpr (std::is_arithmetic_v<T>) {
          return HostArray::of<T>(std::span<const T>(&x, 1), Shape{});
        } else {
          return HostArray::of(x);
        }
      },
      v);
}

const HostArray* find(const Inputs& all, const std::string& name) {
  for (const auto& [n, a] : all)
    if (n == name) return &a;
  return nullptr;
}

}  // namespace

Result<std::vector<NamedTensor>> present(Graph& graph, const Inputs& inputs, Layout layout) {
  std::vector<NamedTensor> out;
  for (const auto& [name, a] : inputs) {
    TN_ASSIGN(const Tensor t, present_one(graph, a, layout));
    out.push_back({name, t});
  }
  return out;
}

std::string difference(const Inputs& got, const Inputs& expected, double tolerance) {
  for (const auto& [name, e] : expected) {
    const HostArray* g = find(got, name);
    if (!g) return "'" + name + "' is missing";
    if (g->shape() != e.shape() || (tolerance == 0 && g->dtype() != e.dtype()))
      return "'" + name + "' is " + to_string(TensorType{g->dtype(), g->shape()}) + " instead of " + to_string(TensorType{e.dtype(), e.shape()});
    if (tolerance == 0 && (e.size_bytes() == 0 || std::memcmp(g->data(), e.data(), e.size_bytes()) == 0)) continue;
    double largest = 0;
    for (int64_t i = 0; i < e.numel(); ++i)
      if (std::isfinite(e.at(i))) largest = std::max(largest, std::abs(e.at(i)));
    for (int64_t i = 0; i < e.numel(); ++i) {
      const double a = g->at(i), b = e.at(i);
      if (a == b || (std::isnan(a) && std::isnan(b)) || std::abs(a - b) <= tolerance * (std::abs(b) + largest)) continue;
      char text[128];
      std::snprintf(text, sizeof text, " is %.17g instead of %.17g at element %lld", a, b, static_cast<long long>(i));
      return "'" + name + "'" + text;
    }
  }
  return {};
}

std::string not_finite(const Inputs& results) {
  for (const auto& [name, a] : results)
    for (int64_t i = 0; is_floating(a.dtype()) && i < a.numel(); ++i)
      if (!std::isfinite(a.at(i))) return "element " + std::to_string(i) + " of '" + name + "' is " + (std::isnan(a.at(i)) ? "not a number" : "infinite");
  return {};
}

std::string Bench::who() const { return short_kind(descriptor.kind) + " '" + descriptor.id + "'"; }

Result<Bench> Bench::open(Host host, const tn_descriptor& d, uint64_t seed, std::function<void(const std::string&)> doing) {
  Bench bench{host, d, seed, std::move(doing), nullptr, {}, {}, {}, 0};
  bench.doing("with its defaults");
  if (std::string_view(d.kind) == TN_KIND_PROCEDURE) {
    Status first;
    for (const size_t n = small_recipes(host).size(); bench.recipe < n; ++bench.recipe) {
      const Status s = bench.steps({}, 1).status();
      if (s.is_ok()) return bench;
      if (first.is_ok()) first = s;
    }
    return first;
  }
  bench.kind = find_kind(d.kind);
  if (!bench.kind) return unsupported(bench.who() + ": this program does not know plugins of the kind '" + std::string(d.kind) + "'");
  bench.wanted = bench.kind->inputs(d);
  bench.sizes.fixed = letters_of_options(d);
  TN_ASSIGN(bench.choice, find_choice(bench.wanted, [&](const Choice& c) -> Status {
              TN_ASSIGN(const auto subject, bench.make());
              const Inputs inputs = make_inputs(bench.wanted, c, bench.sizes, seed);
              TN_ASSIGN(const Inputs results, bench.step(*subject, inputs, 0));
              TN_RETURN_IF_ERROR(subject->inspect(inputs, results));
              const std::string odd = not_finite(results);
              return odd.empty() ? Status::ok() : invalid(bench.who() + ": " + odd);
            }));
  return bench;
}

Result<Inputs> Bench::step(Subject& subject, const Inputs& inputs, int64_t k, Layout layout) const {
  Instance& instance = subject.instance();
  Graph graph(host.runtime);
  const CallInfo info{.epoch = k / kStepsOfEpoch, .step = k, .total_steps = 10, .lr = kRate, .key = split_key(seed, static_cast<uint64_t>(k)), .train = true};
  TN_ASSIGN(const std::vector<NamedTensor> leaves, present(graph, inputs, layout));
  if (k > 0 && k % kStepsOfEpoch == 0 && instance.initialised()) TN_RETURN_IF_ERROR(instance.on_epoch(graph, info, subject.models()));
  TN_ASSIGN(Built built, subject.build(graph, info, leaves));
  std::vector<NamedTensor> results = built.results;
  std::vector<Update> updates;
  if (built.objective.valid()) {
    // The step's own backward pass, and plain descent on what the plugin trains.
    std::vector<NamedTensor> xs;
    for (const NamedTensor& t : leaves)
      if (is_floating(t.value.dtype())) xs.push_back(t);
    const size_t given = xs.size();
    const auto trained = instance.trainable_parameters();
    for (const auto& t : trained) xs.push_back({t.parameter->name, graph.input(t.parameter->value)});
    std::vector<Tensor> at;
    for (const NamedTensor& t : xs) at.push_back(t.value);
    const std::vector<Tensor> grads = grad(built.objective, at);
    TN_RETURN_IF_ERROR(graph.status());
    for (size_t i = 0; i < xs.size(); ++i) {
      if (grads[i].valid()) results.push_back({"derivative by " + xs[i].name, grads[i]});
      if (i >= given && grads[i].valid()) updates.push_back({trained[i - given].parameter->value, xs[i].value - grads[i] * kRate});
    }
  }
  TN_ASSIGN(const Emissions after, instance.after_step(graph, info, subject.models()));
  for (const Emitted& e : after.tensors) results.push_back({"after the step: " + e.name, e.value});
  for (const Update& u : instance.take_updates()) updates.push_back(u);
  for (const Update& u : subject.own_updates()) updates.push_back(u);
  TN_RETURN_IF_ERROR(graph.status());

  std::vector<Tensor> values;
  for (const NamedTensor& t : results) values.push_back(t.value);
  for (const NamedTensor& c : built.checks) values.push_back(c.value);
  TN_ASSIGN(const auto arrays, graph.eval(values, updates));
  TN_RETURN_IF_ERROR(verify(built.checks, std::span(arrays).subspan(results.size())));
  Inputs out;
  for (size_t i = 0; i < results.size(); ++i) {
    TN_ASSIGN(HostArray h, arrays[i].to_host());
    out.emplace_back(results[i].name, std::move(h));
  }
  for (const auto& [name, v] : built.values) out.emplace_back(name, host_of(v));
  for (const auto& [name, v] : after.values) out.emplace_back("after the step: " + name, host_of(v));
  for (const auto& [name, array] : instance.saved_slots()) {
    TN_ASSIGN(HostArray h, array.to_host());
    out.emplace_back("slot " + name, std::move(h));
  }
  return out;
}

Result<std::vector<Inputs>> Bench::steps(const Options& options, int64_t n, const Sizes& of) const {
  std::vector<Inputs> out;
  if (is_procedure()) {
    TN_ASSIGN(const auto experiment, open_small(*this, options));
    TN_ASSIGN(Inputs metrics, run_small(*experiment));
    out.push_back(std::move(metrics));
    return out;
  }
  TN_ASSIGN(const auto subject, make(options));
  for (int64_t k = 0; k < n; ++k) {
    TN_ASSIGN(Inputs r, step(*subject, inputs(of, static_cast<uint64_t>(k)), k));
    out.push_back(std::move(r));
  }
  return out;
}

}  // namespace tenon::validate
