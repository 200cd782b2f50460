#include "tools/validate/kernel.h"

#include <algorithm>

#include "core/graph/op.h"
#include "core/plugin/build.h"
#include "core/plugin/kernel.h"

namespace tenon::validate {
namespace {

const tn_kernel& table_of_kernel(const tn_descriptor& d) { return *static_cast<const tn_kernel*>(d.vtable); }
const OpDef* replaced_by(const tn_descriptor& d) {
  const tn_kernel& k = table_of_kernel(d);
  return TN_HAS(&k, replaces) ? find_op(k.replaces) : nullptr;
}

// An op has no roles unless its plugin declares some: any input may be rows of numbers or labels of them.
std::vector<Wanted> kernel_inputs(const tn_descriptor& d) {
  if (std::vector<Wanted> declared = wanted_by_roles(d); !declared.empty()) return declared;
  const tn_kernel& k = table_of_kernel(d);
  const std::vector<Form> forms = {{"B, C", DType::f64, Values::normal}, {"B", DType::i64, Values::classes}, {"B", DType::f64, Values::normal},
                                   {"C, D", DType::f64, Values::normal}, {"C", DType::f64, Values::normal}, {"B, C", DType::i64, Values::classes}};
  std::vector<Wanted> out;
  for (int i = 0; i < (k.n_in < 0 ? 2 : k.n_in); ++i) out.push_back({"x" + std::to_string(i), forms, 0});
  return out;
}

class Kernel : public Subject {
 public:
  Kernel(std::unique_ptr<Instance> instance, const OpDef* op, Options options)
      : instance_(std::move(instance)), op_(op), options_(std::move(options)) {}
  static Result<std::unique_ptr<Subject>> make(const Host& host, const tn_descriptor& d, const Options& options) {
    TN_ASSIGN(auto instance, Instance::create(host.catalog, d.kind, d.id, d.id, options));
    const OpDef* op = host.catalog.kernels().find(d.id);
    if (!op) return internal_error(instance->who() + ": its tables are not those of a kernel");
    return std::unique_ptr<Subject>(std::make_unique<Kernel>(std::move(instance), op, options));
  }
  Instance& instance() override { return *instance_; }
  Result<Built> build(Graph& graph, const CallInfo&, std::span<const NamedTensor> inputs) override {
    std::vector<Tensor> in;
    for (const NamedTensor& t : inputs) in.push_back(t.value);
    TN_ASSIGN(const std::vector<Tensor> out, KernelOps::apply(graph, *op_, in, options_));
    Built b;
    for (size_t i = 0; i < out.size(); ++i) b.results.push_back({"output " + std::to_string(i), out[i]});
    b.objective = projection(graph, out);
    return b;
  }

 private:
  std::unique_ptr<Instance> instance_;
  const OpDef* op_;
  Options options_;
};

void run_all(const tn_kernel_call*, int64_t n, int64_t grain, void (*body)(void*, int64_t, int64_t), void* user) {
  for (int64_t at = 0; at < n; at += std::max<int64_t>(grain, 1)) body(user, at, std::min(n, at + std::max<int64_t>(grain, 1)));
}

// Memory that a view shows: aligned, with every second element used when `spread`.
struct Shown {
  std::unique_ptr<std::byte, decltype(&std::free)> memory{nullptr, std::free};
  std::vector<int64_t> strides;
  tn_view view{};

  Shown(const HostArray& a, bool spread, uint32_t flags) : strides(static_cast<size_t>(a.shape().rank())) {
    const int64_t gap = spread ? 2 : 1;
    int64_t step = gap;
    for (size_t i = strides.size(); i-- > 0; step *= a.shape()[static_cast<int>(i)]) strides[i] = step;
    const size_t size = size_of(a.dtype()), bytes = (static_cast<size_t>(a.numel() * gap) * size + 127) / 64 * 64;
    memory.reset(static_cast<std::byte*>(std::aligned_alloc(64, bytes)));
    std::fill_n(memory.get(), bytes, std::byte{0x5a});
    for (int64_t i = 0; i < a.numel(); ++i)
      std::copy_n(a.data() + static_cast<size_t>(i) * size, size, memory.get() + static_cast<size_t>(i * gap) * size);
    view = {sizeof view, to_abi(a.dtype()), TN_DEVICE_CPU, 0, a.shape().rank(), flags, a.numel() > 0 ? memory.get() : nullptr, a.shape().begin(), strides.data()};
  }
};

// Types as the ABI passes them.
struct Types {
  std::vector<tn_type> types;
  std::vector<tn_type*> pointers;
  explicit Types(size_t n) : types(n) {
    for (tn_type& t : types) t.struct_size = sizeof t, pointers.push_back(&t);
  }
  explicit Types(const Inputs& inputs) : Types(inputs.size()) {
    for (size_t i = 0; i < types.size(); ++i) {
      const HostArray& a = inputs[i].second;
      types[i].dtype = to_abi(a.dtype());
      types[i].rank = a.shape().rank();
      std::copy(a.shape().begin(), a.shape().end(), types[i].shape);
    }
  }
};

Result<std::vector<HostArray>> outputs_for(Instance& instance, const tn_kernel& k, const Types& in) {
  Types out(static_cast<size_t>(k.n_out));
  Call call(instance, nullptr, {});
  TN_RETURN_IF_ERROR(call.outcome(guarded(call, [&] {
    return k.infer(instance.pointer(), call.ctx(), in.pointers.data(), static_cast<uint32_t>(in.types.size()), out.pointers.data(),
                   static_cast<uint32_t>(out.types.size()));
  })));
  std::vector<HostArray> made;
  for (const tn_type& t : out.types) {
    TN_ASSIGN(const DType dtype, dtype_from_abi(t.dtype));
    Shape shape;
    for (int d = 0; d < t.rank; ++d) shape.push_back(t.shape[d]);
    made.emplace_back(dtype, shape);
  }
  return made;
}

}  // namespace

const Kind kKernelKind{TN_KIND_KERNEL, kernel_inputs, Kernel::make};

Result<std::optional<std::vector<HostArray>>> run_kernel(const Host& host, const tn_descriptor& d, const Inputs& inputs, bool spread) {
  TN_ASSIGN(const auto instance, Instance::create(host.catalog, d.kind, d.id, d.id, {}));
  const tn_kernel& k = table_of_kernel(d);
  const Types types(inputs);
  TN_ASSIGN(std::vector<HostArray> outputs, outputs_for(*instance, k, types));
  std::vector<Shown> shown;
  std::vector<const tn_view*> in, out;
  shown.reserve(inputs.size() + outputs.size());
  for (const auto& [name, a] : inputs) in.push_back(&shown.emplace_back(a, spread, TN_VIEW_READ_ONLY).view);
  for (const HostArray& a : outputs) out.push_back(&shown.emplace_back(a, false, 0u).view);
  const uint64_t scratch = TN_HAS(&k, scratch_bytes) ? k.scratch_bytes(instance->pointer(), types.pointers.data(), static_cast<uint32_t>(in.size())) : 0;
  const std::unique_ptr<void, decltype(&std::free)> memory(scratch > 0 ? std::aligned_alloc(64, (scratch + 63) / 64 * 64) : nullptr, std::free);
  tn_kernel_call call{};
  call.struct_size = sizeof call;
  call.n_in = static_cast<uint32_t>(in.size());
  call.n_out = static_cast<uint32_t>(out.size());
  call.in = in.data();
  call.out = out.data();
  call.scratch = memory.get();
  call.parallel_for = run_all;
  const int32_t code = k.run(instance->pointer(), &call);
  if (code == TN_STATUS_UNSUPPORTED) return std::optional<std::vector<HostArray>>{};
  if (code != TN_STATUS_OK) return from_abi(code, instance->who() + ": run failed with status " + std::to_string(code));
  for (size_t i = 0; i < outputs.size(); ++i)
    if (outputs[i].size_bytes() > 0) std::memcpy(outputs[i].data(), out[i]->data, outputs[i].size_bytes());
  return std::optional(std::move(outputs));
}

Result<std::vector<HostArray>> compose_kernel(const Host& host, const tn_descriptor& d, const Inputs& inputs) {
  TN_ASSIGN(const auto instance, Instance::create(host.catalog, d.kind, d.id, d.id, {}));
  const tn_kernel& k = table_of_kernel(d);
  Graph graph(host.runtime);
  Call call(*instance, &graph, {});
  std::vector<Tensor> in;
  for (const auto& [name, a] : inputs) {
    TN_ASSIGN(const Array array, Array::from_host(graph.backend(), a));
    in.push_back(graph.input(array));
  }
  std::vector<Tensor> out;
  if (TN_HAS(&k, compose)) {
    std::vector<tn_tensor> handles, results(static_cast<size_t>(k.n_out), TN_NULL);
    for (const Tensor& t : in) handles.push_back(call.handle(t));
    TN_RETURN_IF_ERROR(call.outcome(guarded(call, [&] {
      return k.compose(instance->pointer(), call.ctx(), handles.data(), static_cast<uint32_t>(in.size()), results.data(), static_cast<uint32_t>(results.size()));
    })));
    for (const tn_tensor h : results) out.push_back(call.tensor(h));
  } else {
    const OpDef* op = replaced_by(d);
    if (!op) return internal_error(instance->who() + ": it has no composed form and replaces no op");
    const Tensor first = graph.apply(*op, in);
    for (int i = 0; first.valid() && i < op->n_out; ++i) out.push_back(first.output(i));
  }
  TN_RETURN_IF_ERROR(call.status());
  for (const Tensor& t : out)
    if (!t.valid()) return internal_error(instance->who() + ": compose gave a null output");
  TN_ASSIGN(const auto arrays, graph.eval(out));
  std::vector<HostArray> host_arrays;
  for (const Array& a : arrays) {
    TN_ASSIGN(HostArray h, a.to_host());
    host_arrays.push_back(std::move(h));
  }
  return host_arrays;
}

}  // namespace tenon::validate
