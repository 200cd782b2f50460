// Probes: named pure functions of options and inputs that a plugin offers for checking its parts ("tenon.probe/1").
#pragma once

#include "core/plugin/instance.h"

namespace tenon {

// The probe of this name, or null.
const tn_probe* find_probe(const tn_descriptor& d, std::string_view name);

// Runs a probe in a graph; what it emits comes out. Inputs beyond its declared roles are passed by name, too.
// Errors: refused options, a required role that is not given, what the plugin says.
Result<Emissions> run_probe(Catalog& catalog, const tn_descriptor& d, const tn_probe& probe, const Options& options,
                            Graph& graph, std::span<const NamedTensor> inputs);

}  // namespace tenon
