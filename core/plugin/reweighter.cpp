#include "core/plugin/reweighter.h"

#include <algorithm>

#include "core/plugin/build.h"

namespace tenon {

Result<SampleWeights> weigh_samples(Instance& reweighter, Graph& graph, const CallInfo& info,
                                    std::span<const NamedTensor> inputs, ModelService* models) {
  SampleWeights out;
  TN_ASSIGN(out.emitted, build_plugin(reweighter, build_function(reweighter), graph, info, inputs, models));
  const char* name = out.emitted.find("coefficients").valid() ? "coefficients" : "weights";
  const auto losses = std::find_if(inputs.begin(), inputs.end(), [](const NamedTensor& t) { return t.name == "losses"; });
  if (losses == inputs.end()) {
    TN_ASSIGN(out.factors, emitted_tensor(reweighter, out.emitted, name));
  } else {
    TN_ASSIGN(out.factors, emitted_like(reweighter, out.emitted, name, losses->value));
  }
  return out;
}

}  // namespace tenon
