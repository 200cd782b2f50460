#include "core/plugin/call.h"

#include <atomic>

#include "core/plugin/instance.h"

namespace tenon {

uint32_t next_generation() {
  static std::atomic<uint32_t> last{0};
  uint32_t g = ++last;
  return g != 0 ? g : ++last;
}

int32_t to_abi(const Status& s) { return static_cast<int32_t>(s.code()); }

Status from_abi(int32_t code, const std::string& message) {
  switch (code) {
    case TN_STATUS_UNSUPPORTED:
    case TN_STATUS_NOT_FOUND:
    case TN_STATUS_CANCELLED: return Status(static_cast<Code>(code), message);
    default: return invalid(message);
  }
}

tn_dtype to_abi(DType t) {
  constexpr tn_dtype codes[] = {TN_F32, TN_F64, TN_BF16, TN_I32, TN_I64, TN_U8, TN_BOOL};
  return codes[static_cast<int>(t)];
}

Result<DType> dtype_from_abi(int64_t code) {
  for (int i = 0; i < kDTypeCount; ++i)
    if (to_abi(static_cast<DType>(i)) == code) return static_cast<DType>(i);
  return invalid("unknown dtype code " + std::to_string(code));
}

Tensor Emissions::find(std::string_view name) const {
  for (const Emitted& e : tensors)
    if (e.name == name) return e.value;
  return {};
}

std::vector<NamedTensor> Emissions::checks(const std::string& who) const {
  std::vector<NamedTensor> out;
  for (const Emitted& e : tensors)
    if (e.as == TN_OUT_CHECK) out.push_back({who + ": " + e.name, e.value});
  return out;
}

Status verify(std::span<const NamedTensor> checks, std::span<const Array> values) {
  for (size_t i = 0; i < checks.size(); ++i) {
    TN_ASSIGN(const HostArray h, values[i].to_host());
    for (int64_t k = 0; k < h.numel(); ++k)
      if (h.at(k) == 0) return invalid(checks[i].name + (h.shape().rank() > 0 ? " (sample " + std::to_string(k) + " of the batch)" : ""));
  }
  return Status::ok();
}

Call::Call(Instance& inst, Graph* g, const CallInfo& where, ModelService* service)
    : instance(inst), graph(g), info(where), models(service), generation_(next_generation()) {
  ctx_.struct_size = sizeof ctx_;
  ctx_.flags = (info.train ? TN_CTX_TRAIN : 0u) | (info.replay ? TN_CTX_REPLAY : 0u);
  ctx_.host = &inst.host();
  ctx_.ops = &ops_table();
  ctx_.options = inst.options().attrs().data();
  ctx_.n_options = static_cast<uint32_t>(inst.options().attrs().size());
  ctx_.self = this;
  ctx_.epoch = info.epoch;
  ctx_.step = info.step;
  ctx_.total_steps = info.total_steps;
  ctx_.lr = info.lr;
  ctx_.device_type = TN_DEVICE_CPU;
  ctx_.n_samples = inst.table_rows;
  handles_.reserve(64);  // one allocation for what most callbacks make
  if (graph) ctx_.key = handle(graph->key(info.key));
}

tn_tensor Call::handle(Tensor t) {
  if (!t.valid()) return TN_NULL;
  handles_.push_back(t);
  return static_cast<uint64_t>(generation_) << 32 | handles_.size();
}

tn_tensor Call::keep(Tensor t) {
  if (!t.valid()) return TN_NULL;
  instance.kept.push_back(t);
  return static_cast<uint64_t>(instance.kept_generation) << 32 | instance.kept.size();
}

Tensor Call::tensor(tn_tensor h) {
  if (h == TN_NULL) return {};
  const auto generation = static_cast<uint32_t>(h >> 32);
  const size_t index = (h & 0xffffffffu) - 1;
  if (generation == generation_ && index < handles_.size()) return handles_[index];
  if (generation == instance.kept_generation && index < instance.kept.size()) return instance.kept[index];
  fail(invalid("a tensor handle of an earlier callback was used; keep() makes one that lasts for the step"));
  return {};
}

int32_t Call::fail(Status s) {
  if (status_.is_ok() && !s.is_ok()) status_ = std::move(s);
  return to_abi(status_);
}

Status Call::status() const {
  if (!status_.is_ok()) return status_;
  return graph ? graph->status() : Status::ok();
}

Status Call::outcome(int32_t code) const {
  if (!status_.is_ok()) return Status(status_).at(instance.who());
  if (graph && !graph->status().is_ok()) return graph->status();
  if (code != TN_STATUS_OK)
    return from_abi(code, instance.who() + ": the plugin reported status " + std::to_string(code) + " without a message");
  return Status::ok();
}

}  // namespace tenon
