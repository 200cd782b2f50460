// The model of the recipe that losses and attacks apply again: y = x w + b of the flattened input, with four outputs.
#pragma once

#include "core/plugin/call.h"

namespace tenon::validate {

class SmallModel : public ModelService {
 public:
  Result<std::vector<Tensor>> apply(Graph& graph, const Apply& call) override;
  Result<std::vector<NamedTensor>> parameters(Graph& graph, const std::string& model) override;
  Status assign(const std::string& model, size_t index, Tensor value) override;
  Result<Tensor> flat(Graph& graph, const std::string& model) override;
  Status assign_flat(const std::string& model, Tensor value) override;
  // What they change shows in later steps of a training only.
  Status train_only(const std::string&, const std::vector<std::string>&, bool) override { return Status::ok(); }
  Status reinitialize(const std::string&, uint64_t) override { return Status::ok(); }

  std::vector<Update> take_updates() { return std::move(updates_); }
  std::vector<std::pair<std::string, Array>> arrays() const;

 private:
  Status make(Graph& graph, int64_t inputs);
  std::vector<Array> values_;  // w [inputs, 4], b [4]; made when the first input says how many
  std::vector<Update> updates_;
};

}  // namespace tenon::validate
