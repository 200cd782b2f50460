// What can be computed in two ways: a kernel and its composed form, a weight and its inverse, parameters as one vector.
#include <cmath>

#include "core/plugin/build.h"
#include "core/plugin/optimizer.h"
#include "core/plugin/parametrization.h"
#include "tools/validate/check.h"
#include "tools/validate/kernel.h"

namespace tenon::validate {
namespace {

constexpr double kSame = 1e-9;

Inputs numbered(const std::vector<HostArray>& outs) {
  Inputs all;
  for (size_t i = 0; i < outs.size(); ++i) all.emplace_back("output " + std::to_string(i), outs[i]);
  return all;
}

Verdict kernel(const Bench& bench) {
  bool ran = false;
  for (const Sizes& sizes : {bench.sizes, Sizes{.batch = 17, .others = {9, 7, 5, 3}}, Sizes{.batch = 0}, Sizes{.batch = 1, .others = {1, 1, 1, 1}}})
    for (const bool spread : {false, true}) {
      const Inputs in = bench.inputs(sizes);
      bench.doing(spread ? "run on inputs with steps between their elements" : "run");
      const auto expected = compose_kernel(bench.host, bench.descriptor, in);
      if (!expected) continue;  // sizes that the op refuses
      const auto got = run_kernel(bench.host, bench.descriptor, in, spread);
      if (!got) return failed("run stops where the composed form does not: " + got.status().message());
      if (!got->has_value()) continue;
      ran = true;
      if (const std::string what = difference(numbered(**got), numbered(*expected), kSame); !what.empty())
        return failed(std::string("run differs from the composed form") + (spread ? " on inputs with steps between their elements: " : ": ") + what);
    }
  return ran ? ok() : not_applicable("its code takes none of these cases, so the composed form always runs");
}

Verdict parametrization(const Bench& bench) {
  const auto subject = bench.make();
  if (!subject) return failed(subject.status().message());
  Instance& instance = (*subject)->instance();
  if (!TN_HAS(&table_of<tn_parametrization>(instance), invert)) return not_applicable("it has no inverse");
  const auto compared = [&]() -> Result<std::string> {
    Graph graph(bench.host.runtime);
    TN_ASSIGN(const auto in, present(graph, bench.inputs(), Layout::dense));
    const CallInfo info{.train = true};
    TN_RETURN_IF_ERROR((*subject)->build(graph, info, in).status());
    // Of a weight that it can give: the effective one of these inputs.
    TN_ASSIGN(const EffectiveWeight weight, effective_weight(instance, graph, info, in[0].value));
    TN_ASSIGN(const Tensor raw, stored_weight(instance, graph, info, weight.weight));
    TN_ASSIGN(const EffectiveWeight again, effective_weight(instance, graph, info, raw));
    const Tensor both[] = {again.weight, weight.weight};
    TN_ASSIGN(const auto values, graph.eval(both));
    TN_ASSIGN(HostArray got, values[0].to_host());
    TN_ASSIGN(HostArray expected, values[1].to_host());
    return difference({{"weight", std::move(got)}}, {{"weight", std::move(expected)}}, 1e-7);
  };
  const auto what = compared();
  if (!what) return failed(what.status().message());
  return what->empty() ? ok("the inverse gives the weight back") : failed("the weight of its own inverse is another: " + *what);
}

// Parameters one by one against all as one vector.
Verdict optimizer(const Bench& bench) {
  const auto run = [&](bool joined) -> Result<HostArray> {
    TN_ASSIGN(const auto plugin, OptimizerPlugin::create(bench.host.catalog, bench.descriptor.id, bench.descriptor.id, {}));
    if (!plugin->elementwise()) return unsupported("");
    const Inputs grads = bench.inputs();
    Backend& backend = bench.host.runtime.backend();
    std::vector<HostArray> parts;
    for (const auto& [name, a] : grads) parts.push_back(HostArray(a).reshaped(Shape{a.numel()}));
    const auto join = [](const std::vector<HostArray>& all) {
      int64_t n = 0;
      for (const HostArray& a : all) n += a.numel();
      HostArray out(DType::f64, Shape{n});
      n = 0;
      for (const HostArray& a : all)
        for (int64_t i = 0; i < a.numel(); ++i) out.set(n++, a.at(i));
      return out;
    };
    if (joined) parts = {join(parts)};
    std::vector<std::string> names;
    std::vector<Array> params;
    for (const HostArray& a : parts) {
      HostArray start(DType::f64, a.shape());
      for (int64_t i = 0; i < start.numel(); ++i) start.set(i, 0.25);
      TN_ASSIGN(Array p, Array::from_host(backend, start));
      names.push_back("p" + std::to_string(names.size()));
      params.push_back(std::move(p));
    }
    {
      Graph graph(bench.host.runtime);
      TN_RETURN_IF_ERROR(plugin->init(graph, names, params));
    }
    for (int64_t k = 0; k < 3; ++k) {
      Graph graph(bench.host.runtime);
      std::vector<Tensor> ps, gs;
      for (size_t i = 0; i < parts.size(); ++i) {
        TN_ASSIGN(const Array g, Array::from_host(backend, parts[i]));
        ps.push_back(graph.input(params[i]));
        gs.push_back(graph.input(g));
      }
      TN_ASSIGN(const auto r, plugin->step(graph, {.step = k, .total_steps = 3, .lr = plugin->learning_rate(), .train = true},
                                           {.names = names, .params = ps, .grads = gs, .count = k + 1}));
      std::vector<Update> updates = plugin->instance().take_updates();
      for (size_t i = 0; i < params.size(); ++i) updates.push_back({params[i], r.params[i]});
      TN_RETURN_IF_ERROR(graph.eval({}, updates).status());
    }
    std::vector<HostArray> out;
    for (const Array& p : params) {
      TN_ASSIGN(HostArray h, p.to_host());
      out.push_back(std::move(h));
    }
    return join(out);
  };
  const auto one = run(true);
  if (!one && one.status().code() == Code::unsupported && one.status().message().empty()) return not_applicable("it is not element-wise");
  const auto many = run(false);
  if (!one || !many) return failed((one ? many : one).status().message());
  const std::string what = difference({{"parameters", *one}}, {{"parameters", *many}}, kSame);
  return what.empty() ? ok("all parameters as one vector") : failed("it says that it is element-wise, but on all parameters as one vector " + what);
}

}  // namespace

Verdict check_forms(const Bench& bench) {
  const std::string_view kind = bench.descriptor.kind;
  if (kind == TN_KIND_KERNEL) return kernel(bench);
  if (kind == TN_KIND_PARAMETRIZATION) return parametrization(bench);
  if (kind == TN_KIND_OPTIMIZER) return optimizer(bench);
  return not_applicable("there is one way only");
}

}  // namespace tenon::validate
