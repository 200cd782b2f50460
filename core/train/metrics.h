// Metrics: streaming accumulators over batches of host arrays. A new metric is one entry in metrics.cpp.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "core/base/status.h"
#include "core/data/options.h"
#include "core/tensor/host_array.h"

namespace tenon {

// Roles of the arrays that metrics read:
//   outputs  class scores [.., C] (logits, log-probabilities or probabilities), or one score/value each [N]
//   or [N,1] labels   integers of the leading shape of outputs; or values of the shape of outputs
//   (regression, soft labels) loss     the loss of each sample or token, any shape; or its mean over the
//   batch, rank 0 (weighted by `count`)
//   values   numbers of any shape, such as weights; several arrays as values0, values1, ..
using RoleArrays = std::map<std::string, const HostArray*, std::less<>>;

class Metric {
 public:
  virtual ~Metric() = default;
  // `count`: samples (tokens) of the batch; used only to weight a mean loss. Errors: a role missing, shapes
  // that do not fit, a label out of range, NaN where an order is needed.
  virtual Status update(const RoleArrays& arrays, int64_t count) = 0;
  // The value over all updates since construction or reset. Errors: no samples, or undefined (AUC of one
  // class).
  virtual Result<double> value() const = 0;
  virtual void reset() = 0;
};

// id            roles             options (default)
// loss          loss                                          mean
// perplexity    loss                                          exp(mean), loss in nats per token
// bits_per_char loss                                          mean / ln 2
// accuracy      outputs, labels   threshold (0), ignore_index (-100)
// top_k         outputs, labels   k (5), ignore_index
// max_vio       load                                          (max - mean) / mean of the loads of experts
// idle_experts  load                                          experts with load 0
// precision, recall, f1           average (auto | binary | macro), threshold, ignore_index; 0/0 counts as 0
// auc           outputs, labels   binary, ties count half; outputs [N], [N,1] or [N,2] (score = second -
// first) mse, mae      outputs, labels r2            outputs, labels   of each output, then their mean;
// constant labels: 1 if exact, else 0 One score each ([N] or [N,1]) means binary: positive if above
// `threshold` (0 fits logits; give 0.5 for probabilities); labels are then positive if > 0, so 0/1 and -1/+1
// both fit.
// recall_at_k   outputs, labels   k (1): outputs are embeddings [N, D], whose similarity is the cosine; each row is left
// out of its own search, and a row without another of its label is a miss
// kurtosis      values            E (v - mean)^4 / std^4; 3 for a normal distribution
// peak          values            max |v| / std
// near_zero     values            share of |v| below `fraction` (0.1) of std
struct MetricInfo {
  std::string_view id;
  std::string_view roles;  // comma separated
  std::string_view summary;
  bool higher_is_better;
  Result<std::unique_ptr<Metric>> (*make)(const Options& options);
};
std::span<const MetricInfo> metrics();
// Error: no such metric, with the nearest name.
Result<const MetricInfo*> find_metric(std::string_view id);
Result<std::unique_ptr<Metric>> make_metric(std::string_view id, const Options& options = {});

}  // namespace tenon
