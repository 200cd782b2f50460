// How the time of a step grows with batch, width, depth, vocabulary and number of experts, beside what the
// work alone would make it grow.
#pragma once

#include <functional>
#include <string>

#include "core/plugin/catalog.h"
#include "tools/bench/limits.h"

namespace tenon::bench {

struct ScalingOptions {
  int threads = 2;
  double seconds = 1;  // of each size
  bool brief = false;  // only the two smallest sizes of each series
  std::string folder;  // gets scaling.md, scaling.json and a plot (SVG) for each series
  std::function<void(const std::string&)> progress;
};
// Returns the Markdown. What is expected of a size is the least time in which a machine of the measured
// limits does its step (the sum over kernels of the larger of FLOPs over the rate of a matrix product and
// bytes over the memory's bandwidth), relative to that of the smallest size.
Result<std::string> scaling(Catalog& catalog, const ScalingOptions& options);

}  // namespace tenon::bench
