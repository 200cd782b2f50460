#include "core/plugin/host.h"

#include <cstdlib>
#include <cstring>

#include "core/base/version.h"

namespace tenon {
namespace {

HostHooks& hooks(const tn_host* h) { return *static_cast<HostHooks*>(h->self); }

const void* get_extension(const tn_host*, const char* id) {
  if (!id) return nullptr;
  const auto is = [&](const char* known) { return std::strcmp(id, known) == 0; };
  if (is(TN_EXT_OPS)) return &ops_table();
  if (is(TN_EXT_STATE)) return &state_table();
  if (is(TN_EXT_RNG)) return &rng_table();
  if (is(TN_EXT_METRICS)) return &metrics_table();
  if (is(TN_EXT_MODEL)) return &model_table();
  if (is(TN_EXT_SESSION)) return &session_table();
  if (is(TN_EXT_DATA)) return &data_table();
  if (is(TN_EXT_PLUGINS)) return &plugins_table();
  if (is(TN_EXT_FIT)) return &fit_table();
  if (is(TN_EXT_SUPERNET)) return &supernet_table();
  return nullptr;
}

void log(const tn_host* h, int32_t level, const char* text) {
  if (text && hooks(h).log) hooks(h).log(level, text);
}

void* allocate(const tn_host*, uint64_t bytes) { return std::aligned_alloc(64, (bytes / 64 + 1) * 64); }
void release(const tn_host*, void* p) { std::free(p); }
int32_t cancelled(const tn_host* h) { return hooks(h).cancelled && hooks(h).cancelled() ? 1 : 0; }

}  // namespace

tn_host make_host(HostHooks& h) {
  tn_host host{};
  host.struct_size = sizeof host;
  host.abi_major = TN_ABI_MAJOR;
  host.abi_minor = TN_ABI_MINOR;
  host.product = "tenon";
  host.version = TENON_VERSION;
  host.self = &h;
  host.get_extension = get_extension;
  host.log = log;
  host.alloc = allocate;
  host.free = release;
  host.cancelled = cancelled;
  return host;
}

}  // namespace tenon
