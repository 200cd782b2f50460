#include "core/plugin/quantizer.h"

#include "core/plugin/build.h"

namespace tenon {
namespace {

tn_site table_for(const QuantSite& site, int64_t choice) {
  tn_site s{};
  s.struct_size = sizeof s;
  s.flags = site.flags;
  s.name = site.name.c_str();
  s.choice = choice;
  s.index = site.index;
  s.n_sites = site.count;
  return s;
}

// Calls f(call, tensors by role, their number) with x as the plugin asks for it.
template <class F>
Status call_on(Instance& quantizer, Graph& graph, const CallInfo& info, Tensor x, F&& f) {
  const NamedTensor in[] = {{"x", x}};
  TN_ASSIGN(const auto arranged, quantizer.arrange(in));
  const Graph::Scope scope(graph, quantizer.who());
  Call call(quantizer, &graph, info);
  std::vector<tn_named> named;
  for (const NamedTensor& t : arranged) named.push_back({t.name.c_str(), call.handle(t.value)});
  return f(call, named.data(), static_cast<uint32_t>(named.size()));
}

}  // namespace

Status init_quantizer(Instance& quantizer, Graph& graph, const CallInfo& info, const QuantSite& site, Tensor x) {
  const auto& functions = table_of<tn_quantizer>(quantizer);
  quantizer.set_initialised();
  if (!TN_HAS(&functions, init)) return Status::ok();
  const tn_site s = table_for(site, 0);
  return call_on(quantizer, graph, info, x, [&](Call& call, const tn_named* in, uint32_t n) {
    quantizer.declaring = true;
    const int32_t code = guarded(call, [&] { return functions.init(quantizer.pointer(), call.ctx(), &s, in, n); });
    quantizer.declaring = false;
    return call.outcome(code);
  });
}

Result<QuantizedTensor> quantize(Instance& quantizer, Graph& graph, const CallInfo& info, const QuantSite& site, int64_t choice, Tensor x) {
  const auto& functions = table_of<tn_quantizer>(quantizer);
  if (!TN_HAS(&functions, build)) return has_no_function(quantizer, "build");
  if (!quantizer.initialised()) TN_RETURN_IF_ERROR(init_quantizer(quantizer, graph, info, site, x));
  const tn_site s = table_for(site, choice);
  QuantizedTensor out;
  const auto build = [&](Call& call, const tn_named* in, uint32_t n) -> Status {
    TN_RETURN_IF_ERROR(call.outcome(guarded(call, [&] { return functions.build(quantizer.pointer(), call.ctx(), &s, in, n); })));
    out.emitted = std::move(call.emitted);
    return graph.status();
  };
  TN_RETURN_IF_ERROR(call_on(quantizer, graph, info, x, build));
  TN_ASSIGN(out.y, emitted_like(quantizer, out.emitted, "y", x));
  return out;
}

Result<std::vector<int64_t>> quantizer_choices(Instance& quantizer, const QuantSite& site) {
  const auto& functions = table_of<tn_quantizer>(quantizer);
  if (!TN_HAS(&functions, choices)) return std::vector<int64_t>{};
  Call call(quantizer, nullptr, {});
  const tn_site s = table_for(site, 0);
  const int64_t* values = nullptr;
  uint32_t n = 0;
  TN_RETURN_IF_ERROR(call.outcome(guarded(call, [&] { return functions.choices(quantizer.pointer(), call.ctx(), &s, &values, &n); })));
  if (n > 0 && !values) return internal_error(quantizer.who() + ": choices are counted but not listed");
  return std::vector<int64_t>(values, values + n);
}

Result<std::vector<int64_t>> sample_choices(Instance& quantizer, uint64_t key, int32_t which, uint32_t sites) {
  const auto& functions = table_of<tn_quantizer>(quantizer);
  if (!TN_HAS(&functions, sample)) return std::vector<int64_t>{};
  Call call(quantizer, nullptr, {});
  std::vector<int64_t> out(sites);
  TN_RETURN_IF_ERROR(call.outcome(guarded(call, [&] { return functions.sample(quantizer.pointer(), call.ctx(), key, which, out.data(), sites); })));
  return out;
}

}  // namespace tenon
