// Probes of shipped plugins with inputs by name, and whole runs of recipes with them.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "core/train/experiment.h"
#include "core/train/fit.h"
#include "tests/plugins/loss_call.h"

namespace tenon::test {

struct ProbeCall {
  std::string kind, id, probe;
  Options options;
  std::vector<std::pair<std::string, HostArray>> inputs;
};
// Everything that the probe emits, with all checks; numbers as rank 0. The error is the plugin's or the host's.
Result<std::map<std::string, HostArray>> try_probe(Runtime& runtime, const ProbeCall& call);

// A recipe's text opened on the shipped plugins.
Result<std::unique_ptr<Experiment>> open_recipe(Runtime& runtime, const std::string& text);
// Its whole run; what it ends with.
Result<MetricValues> run_text(Runtime& runtime, const std::string& text);
// Why the recipe is refused or its run fails; "accepted" if neither.
std::string run_refusal(Runtime& runtime, const std::string& text);

}  // namespace tenon::test
