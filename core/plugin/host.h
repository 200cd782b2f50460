// The host table that plugins get, and the C tables behind its extensions.
#pragma once

#include <functional>
#include <string>

#include "core/abi/tenon_plugin.h"

namespace tenon {

// What the host table calls back into; set once, before the first plugin is loaded.
struct HostHooks {
  std::function<void(int32_t level, const std::string&)> log;
  std::function<bool()> cancelled;
  std::function<const void*(const char* id)> find_op = {};  // beyond the built-in ones; the catalogue sets it
};

// Tables of the extensions (each in its own file).
const tn_ops& ops_table();
const tn_state_api& state_table();
const tn_rng_api& rng_table();
const tn_metrics_api& metrics_table();
const tn_model_api& model_table();
const tn_session_api& session_table();
const tn_data_api& data_table();
const tn_plugins_api& plugins_table();
const tn_fit_api& fit_table();
const tn_supernet_api& supernet_table();

// A host table over `hooks`, which must outlive it.
tn_host make_host(HostHooks& hooks);

}  // namespace tenon
