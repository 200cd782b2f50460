// Quantizers: a tensor on a grid of few values. One instance serves one site, a weight or an activation of a layer.
#pragma once

#include "core/plugin/instance.h"

namespace tenon {

// Where a quantizer works.
struct QuantSite {
  std::string name;    // "encoder.fc1.weight"
  uint32_t flags = 0;  // TN_SITE_*
  uint32_t index = 0, count = 1;
};

struct QuantizedTensor {
  Tensor y;  // of x's type
  Emissions emitted;
};

// Declares slots from the first x; before the first use.
Status init_quantizer(Instance& quantizer, Graph& graph, const CallInfo& info, const QuantSite& site, Tensor x);
// x in the form number `choice` of quantizer_choices (0 where there is a single form). Errors: what the plugin says, a y of
// another type than x.
Result<QuantizedTensor> quantize(Instance& quantizer, Graph& graph, const CallInfo& info, const QuantSite& site, int64_t choice, Tensor x);
// The values (bit widths, forms) that the site may take; empty: a single form.
Result<std::vector<int64_t>> quantizer_choices(Instance& quantizer, const QuantSite& site);
// A configuration of all sites, indices into their choices; which: 0 random, 1 smallest, 2 largest. Empty: the plugin
// leaves the drawing to the host.
Result<std::vector<int64_t>> sample_choices(Instance& quantizer, uint64_t key, int32_t which, uint32_t sites);

}  // namespace tenon
