#include "core/plugin/kernel.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <mutex>

#include "core/graph/grad.h"
#include "core/ops/elementwise.h"
#include "core/ops/shape.h"
#include "core/plugin/build.h"
#include "core/runtime.h"

namespace tenon {

// One set of options of a kernel.
struct KernelInstance {
  std::unique_ptr<Instance> instance;
  const tn_kernel* table = nullptr;
  std::map<std::string, bool> accepts;  // by the types of the inputs: whether run takes the case
  const OpDef* replaced = nullptr;      // what stands for a composed form where the plugin has none
  std::vector<int64_t> words;           // its attributes
};

struct KernelOps::Op : OpDef {
  std::string name_text;
  Catalog* catalog = nullptr;
  const tn_descriptor* descriptor = nullptr;
  const OpDef* replaced = nullptr;
  std::map<std::string, int64_t> instances;  // options -> index in the registry
};

namespace {

// Instances by the number that nodes carry as their attribute: an op's rules are plain functions and find theirs here.
// Numbers are never used again, so a node of an old plan can't meet another instance.
struct Registry {
  std::mutex mutex;
  std::vector<std::unique_ptr<KernelInstance>> instances;
};
Registry& registry() {
  static Registry* r = new Registry;
  return *r;
}
KernelInstance* instance_at(int64_t index) {
  const std::lock_guard lock(registry().mutex);
  return registry().instances[static_cast<size_t>(index)].get();
}

constexpr AttrSpec kAttrs[] = {{.name = "instance", .kind = AttrKind::i64, .required = true}};

// Types as the ABI passes them.
struct AbiTypes {
  std::vector<tn_type> types;
  std::vector<tn_type*> pointers;
  explicit AbiTypes(size_t n) : types(n), pointers(n) {
    for (size_t i = 0; i < n; ++i) {
      types[i].struct_size = sizeof(tn_type);
      pointers[i] = &types[i];
    }
  }
  explicit AbiTypes(std::span<const TensorType> in) : AbiTypes(in.size()) {
    for (size_t i = 0; i < in.size(); ++i) {
      types[i].dtype = to_abi(in[i].dtype);
      types[i].rank = in[i].shape.rank();
      for (int d = 0; d < in[i].shape.rank(); ++d) types[i].shape[d] = in[i].shape[d];
    }
  }
};

Result<std::vector<TensorType>> infer_types(KernelInstance& k, std::span<const TensorType> in) {
  const AbiTypes abi(in);
  AbiTypes out(static_cast<size_t>(k.table->n_out));
  Call call(*k.instance, nullptr, {});
  TN_RETURN_IF_ERROR(call.outcome(guarded(call, [&] {
    return k.table->infer(k.instance->pointer(), call.ctx(), abi.pointers.data(), static_cast<uint32_t>(in.size()), out.pointers.data(),
                          static_cast<uint32_t>(out.types.size()));
  })));
  std::vector<TensorType> types;
  for (const tn_type& t : out.types) {
    TN_ASSIGN(const DType dtype, dtype_from_abi(t.dtype));
    if (t.rank < 0 || t.rank > kMaxRank) return internal_error(k.instance->who() + ": infer gave rank " + std::to_string(t.rank));
    Shape shape;
    for (int d = 0; d < t.rank; ++d) {
      if (t.shape[d] < 0) return internal_error(k.instance->who() + ": infer gave a negative size");
      shape.push_back(t.shape[d]);
    }
    types.push_back({dtype, shape});
  }
  return types;
}

Status infer(const InferArgs& a) {
  TN_ASSIGN(const auto types, infer_types(*instance_at(a.attrs.i("instance")), a.in));
  a.out.insert(a.out.end(), types.begin(), types.end());
  return Status::ok();
}

// args: behind the call's self.
void run_in_pieces(const tn_kernel_call* call, int64_t n, int64_t grain, void (*body)(void*, int64_t, int64_t), void* user) {
  const auto& args = *static_cast<const KernelArgs*>(call->self);
  if (args.parallel) args.parallel(args.threads, n, std::max<int64_t>(grain, 1), body, user);
  else if (n > 0) body(user, 0, n);
}

int32_t call_run(KernelInstance& k, const KernelArgs& args) {
  const std::span<const View> in = args.in, out = args.out;
  std::vector<tn_view> views;
  std::vector<const tn_view*> pointers;
  views.reserve(in.size() + out.size());
  const auto show = [&](const View& v, uint32_t flags) {
    tn_view t{};
    t.struct_size = sizeof t;
    t.dtype = to_abi(v.dtype);
    t.device_type = TN_DEVICE_CPU;
    t.rank = v.shape.rank();
    t.flags = flags;
    t.data = v.numel() > 0 ? v.data : nullptr;
    t.shape = v.shape.begin();
    t.strides = v.strides.begin();
    views.push_back(t);
    pointers.push_back(&views.back());
  };
  for (const View& v : in) show(v, TN_VIEW_READ_ONLY);
  for (const View& v : out) show(v, 0);
  uint64_t scratch = 0;
  if (TN_HAS(k.table, scratch_bytes)) {
    std::vector<TensorType> types;
    for (const View& v : in) types.push_back({v.dtype, v.shape});
    const AbiTypes abi(types);
    scratch = k.table->scratch_bytes(k.instance->pointer(), abi.pointers.data(), static_cast<uint32_t>(in.size()));
  }
  const std::unique_ptr<void, decltype(&std::free)> memory(scratch > 0 ? std::aligned_alloc(64, (scratch + 63) / 64 * 64) : nullptr, std::free);
  if (scratch > 0 && !memory) return TN_STATUS_INTERNAL;
  tn_kernel_call c{};
  c.struct_size = sizeof c;
  c.n_in = static_cast<uint32_t>(in.size());
  c.n_out = static_cast<uint32_t>(out.size());
  c.in = pointers.data();
  c.out = pointers.data() + in.size();
  c.scratch = memory.get();
  c.parallel_for = run_in_pieces;
  c.self = const_cast<KernelArgs*>(&args);
  try {
    return k.table->run(k.instance->pointer(), &c);
  } catch (...) {
    return TN_STATUS_INTERNAL;
  }
}

Status run(const KernelArgs& a) {
  KernelInstance& k = *instance_at(a.attrs.i("instance"));
  const int32_t code = call_run(k, a);
  return code == TN_STATUS_OK ? Status::ok() : from_abi(code, k.instance->who() + ": the kernel failed with status " + std::to_string(code));
}

// Whether run takes inputs of these types, asked once on zeros.
Result<bool> accepted(KernelInstance& k, std::span<const TensorType> in) {
  std::string key;
  for (const TensorType& t : in) key += to_string(t);
  if (const auto it = k.accepts.find(key); it != k.accepts.end()) return it->second;
  TN_ASSIGN(const auto types, infer_types(k, in));
  std::vector<std::unique_ptr<void, decltype(&std::free)>> blocks;
  std::vector<View> views;
  const auto zeros = [&](const TensorType& t) {
    const size_t bytes = (Layout(t).size_bytes() + 64) / 64 * 64;
    blocks.emplace_back(std::aligned_alloc(64, bytes), std::free);
    if (blocks.back()) std::memset(blocks.back().get(), 0, bytes);
    views.emplace_back(Layout(t), blocks.back().get());
    return blocks.back() != nullptr;
  };
  for (const TensorType& t : in)
    if (!zeros(t)) return internal_error("out of memory");
  for (const TensorType& t : types)
    if (!zeros(t)) return internal_error("out of memory");
  const std::span<const View> all(views);
  return k.accepts[key] = call_run(k, {.in = all.first(in.size()), .out = all.subspan(in.size()), .attrs = {}}) == TN_STATUS_OK;
}

Result<std::vector<Tensor>> compose(KernelInstance& k, Graph& graph, std::span<const Tensor> in) {
  const Graph::BuiltinOps builtin(graph);
  if (!TN_HAS(k.table, compose)) {
    const Tensor first = graph.apply(*k.replaced, in, Attrs(k.replaced->attrs, k.words));
    if (!first.valid()) return graph.status();
    std::vector<Tensor> out;
    for (int i = 0; i < k.replaced->n_out; ++i) out.push_back(first.output(i));
    return out;
  }
  const Graph::Scope scope(graph, k.instance->who());
  Call call(*k.instance, &graph, {});
  std::vector<tn_tensor> handles, out(static_cast<size_t>(k.table->n_out), TN_NULL);
  for (const Tensor& t : in) handles.push_back(call.handle(t));
  TN_RETURN_IF_ERROR(call.outcome(guarded(call, [&] {
    return k.table->compose(k.instance->pointer(), call.ctx(), handles.data(), static_cast<uint32_t>(in.size()), out.data(), static_cast<uint32_t>(out.size()));
  })));
  std::vector<Tensor> results;
  for (tn_tensor h : out) results.push_back(call.tensor(h));
  for (const Tensor& t : results)
    if (!t.valid()) return internal_error(k.instance->who() + ": compose gave a null output");
  return results;
}

Status differentiate(KernelInstance& k, VjpArgs& a) {
  if (TN_HAS(k.table, vjp)) {
    const Graph::Scope scope(a.graph, k.instance->who());
    Call call(*k.instance, &a.graph, {});
    std::vector<tn_tensor> in, y, cotangents, out(a.in.size(), TN_NULL);
    for (const Tensor& t : a.in) in.push_back(call.handle(t));
    for (const Tensor& t : a.out) y.push_back(call.handle(t));
    for (const Tensor& t : a.cotangents) cotangents.push_back(call.handle(t));
    TN_RETURN_IF_ERROR(call.outcome(guarded(call, [&] {
      return k.table->vjp(k.instance->pointer(), call.ctx(), in.data(), static_cast<uint32_t>(in.size()), y.data(), cotangents.data(),
                          static_cast<uint32_t>(y.size()), out.data());
    })));
    for (size_t i = 0; i < out.size(); ++i) a.grads[i] = call.tensor(out[i]);
    return call.status();
  }
  TN_ASSIGN(const auto composed, compose(k, a.graph, a.in));
  std::vector<Tensor> xs;
  std::vector<size_t> places;
  for (size_t i = 0; i < a.in.size(); ++i)
    if (a.needed[i]) xs.push_back(a.in[i]), places.push_back(i);
  for (size_t o = 0; o < composed.size(); ++o) {
    if (!a.cotangents[o].valid()) continue;
    const auto grads = grad(composed[o], xs, a.cotangents[o]);
    for (size_t i = 0; i < places.size(); ++i) {
      Tensor& to = a.grads[places[i]];
      to = to.valid() ? add(to, grads[i]) : grads[i];
    }
  }
  return Status::ok();
}

void vjp(VjpArgs& a) {
  const Graph::BuiltinOps builtin(a.graph);  // or the derivative would meet the kernel again
  if (Status s = differentiate(*instance_at(a.attrs.i("instance")), a); !s.is_ok()) a.graph.fail(std::move(s));
}

std::string key_of(const Options& options) {
  std::string key;
  for (const auto& [name, value] : options) {
    key += name + "=";
    std::visit(
        [&](const auto& v) {
          using T = std::decay_t<decltype(v)>;
          if constexpr (std::is_same_v<T, std::string>) key += v;
          else if constexpr (std::is_arithmetic_v<T>) key += std::to_string(v);
          else
            for (const auto& x : v) {
              if constexpr (std::is_arithmetic_v<std::decay_t<decltype(x)>>) key += std::to_string(x) + ",";
              else key += x + ",";
            }
        },
        value);
    key += ";";
  }
  return key;
}

// A built-in op's attributes as options of the kernel that replaces it; nullopt: one that it does not have.
std::optional<Options> options_from(const tn_descriptor& d, const Attrs& attrs) {
  Options out;
  for (const AttrSpec& spec : attrs.spec()) {
    const std::string name(spec.name);
    const bool known = std::any_of(d.options, d.options + d.n_options, [&](const tn_option* o) { return name == o->name; });
    const bool is_default = spec.kind == AttrKind::i64   ? attrs.i(spec.name) == spec.i
                            : spec.kind == AttrKind::f64 ? attrs.f(spec.name) == spec.f
                                                         : attrs.ints(spec.name).empty();
    if (!known && !is_default) return std::nullopt;
    if (!known) continue;
    if (spec.kind == AttrKind::i64) out[name] = attrs.i(spec.name);
    else if (spec.kind == AttrKind::f64) out[name] = attrs.f(spec.name);
    else out[name] = std::vector<double>(attrs.ints(spec.name).begin(), attrs.ints(spec.name).end());
  }
  return out;
}

}  // namespace

KernelOps::KernelOps(Catalog& catalog) : catalog_(catalog) {}

KernelOps::~KernelOps() {
  const std::lock_guard lock(registry().mutex);
  for (const auto& [id, op] : ops_)
    for (const auto& [options, index] : op->instances) registry().instances[static_cast<size_t>(index)].reset();
}

Result<KernelOps::Op*> KernelOps::open(std::string_view id) {
  if (const auto it = ops_.find(id); it != ops_.end()) return it->second.get();
  TN_ASSIGN(const tn_descriptor* d, catalog_.find(TN_KIND_KERNEL, id));
  const auto* table = static_cast<const tn_kernel*>(d->vtable);
  const std::string who = "kernel '" + std::string(id) + "'";
  if (!TN_HAS(table, infer) || !TN_HAS(table, run)) return internal_error(who + ": the plugin has no infer or run function");
  if (table->n_out < 1 || table->n_out > 8) return internal_error(who + ": it claims " + std::to_string(table->n_out) + " outputs");
  const bool replaces = TN_HAS(table, replaces);
  if (!TN_HAS(table, compose) && !replaces) return internal_error(who + ": a kernel without a composed form must replace a built-in op");
  auto op = std::make_unique<Op>();
  op->name_text = std::string(id);
  op->catalog = &catalog_;
  op->descriptor = d;
  if (replaces && !(op->replaced = find_op(table->replaces))) return not_found(who + ": it replaces '" + table->replaces + "', which is no op of this host");
  op->id = op->name_text;
  op->min_in = table->n_in < 0 ? 0 : table->n_in;
  op->max_in = table->n_in;
  op->n_out = table->n_out;
  op->attrs = kAttrs;
  op->infer = infer;
  op->vjp = tenon::vjp;
  op->plain = tenon::run;
  Op* made = op.get();
  ops_.emplace(std::string(id), std::move(op));
  return made;
}

const OpDef* KernelOps::find(std::string_view id) {
  auto op = open(id);
  return op ? *op : nullptr;
}

bool KernelOps::owns(const OpDef& op) { return op.infer == infer; }

Result<std::vector<Tensor>> KernelOps::apply(Graph& graph, const OpDef& def, std::span<const Tensor> in, const Options& options,
                                             std::span<const int64_t> replaced_words) {
  Op& op = const_cast<Op&>(static_cast<const Op&>(def));
  const std::string key = key_of(options);
  auto at = op.instances.find(key);
  if (at == op.instances.end()) {
    auto made = std::make_unique<KernelInstance>();
    TN_ASSIGN(made->instance, Instance::create(*op.catalog, TN_KIND_KERNEL, op.name_text, op.name_text, options));
    made->table = static_cast<const tn_kernel*>(op.descriptor->vtable);
    made->replaced = op.replaced;
    made->words.assign(replaced_words.begin(), replaced_words.end());
    if (!TN_HAS(made->table, compose) && replaced_words.empty() && !op.replaced->attrs.empty())
      return unsupported(made->instance->who() + ": it only stands for '" + std::string(op.replaced->id) + "'; name it in the recipe's 'kernel'");
    const std::lock_guard lock(registry().mutex);
    registry().instances.push_back(std::move(made));
    at = op.instances.emplace(key, static_cast<int64_t>(registry().instances.size()) - 1).first;
  }
  KernelInstance& k = *instance_at(at->second);
  if (static_cast<int>(in.size()) < def.min_in || (def.max_in >= 0 && static_cast<int>(in.size()) > def.max_in))
    return invalid(k.instance->who() + ": got " + std::to_string(in.size()) + " inputs, it takes " + std::to_string(def.min_in));
  std::vector<TensorType> types;
  std::vector<Tensor> rows;
  for (const Tensor& t : in) {
    types.push_back({t.dtype(), t.shape()});
    rows.push_back(contiguous(t));
  }
  bool takes = false;
  if (k.table->device_type == TN_DEVICE_CPU && graph.backend().name() != "cuda") {
    TN_ASSIGN(takes, accepted(k, types));
  }
  if (!takes) return compose(k, graph, in);
  const Tensor first = graph.apply(def, rows, AttrList().i(at->second));
  if (!first.valid()) return graph.status();
  std::vector<Tensor> out;
  for (int i = 0; i < def.n_out; ++i) out.push_back(first.output(i));
  return out;
}

Status KernelOps::install(Runtime& runtime, const std::string& id) {
  TN_ASSIGN(Op * op, open(id));
  if (!op->replaced) return invalid("kernel '" + id + "' brings a new op and replaces no built-in one");
  runtime.replace(*op->replaced, [op](Graph& graph, std::span<const Tensor> in, const Attrs& attrs) -> Tensor {
    const auto options = options_from(*op->descriptor, attrs);
    if (!options) return {};
    auto out = apply(graph, *op, in, *options, attrs.words());
    return out ? (*out)[0] : Tensor{};  // a case that it can't take is the built-in's
  });
  return Status::ok();
}

}  // namespace tenon
