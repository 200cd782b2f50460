// The forward pass and the losses of a step: models applied to a batch, roles bound, terms weighted and summed.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/plugin/loss.h"
#include "core/train/model_from_recipe.h"
#include "core/train/schedule.h"

namespace tenon {

// A batch in device memory: "stream.column" -> array. The first stream's columns are also known without a prefix.
using Batch = std::map<std::string, Array>;

struct TrainedModel {
  std::string name;
  nn::Model model;
  std::vector<std::string> inputs;  // "x", "stream.x", "othermodel.output"
  bool frozen = false;
};

struct LossTerm {
  std::string name;
  std::unique_ptr<LossPlugin> plugin;
  double weight = 1;
  Schedule weight_schedule;
  std::map<std::string, std::string> bind;  // role -> where from
  std::string stream;                       // for unbound roles; "" = the first
  std::vector<std::string> models;          // the first is the default model of its roles
  std::string where;                        // in the recipe
};

// Everything that one pass over the models made.
struct Pass {
  std::map<std::string, Tensor> outputs;  // by model name
  std::map<std::string, std::unique_ptr<nn::Context>> contexts;
};

struct ObjectiveValue {
  Tensor loss;    // weighted sum, differentiated
  Tensor report;  // what is shown
  struct Term {
    std::string name;
    Tensor value, per_sample;
    double weight = 1;
  };
  std::vector<Term> terms;
  std::vector<NamedTensor> parts;  // objectives and metrics that losses reported, "name/part"
};

// Other tensors in place of parameters.
using Substitutes = std::map<const nn::Parameter*, Tensor>;

class Objective : public ModelService {
 public:
  std::vector<TrainedModel> models;
  std::vector<LossTerm> losses;
  bool mixed = false;  // matrix products in bf16

  // Begins a step: whatever is built until the next call belongs to this batch and this place in the run.
  void begin(const Batch& batch, const CallInfo& info);
  // Applies every model. In training, running statistics are updated through the pass's contexts.
  Result<Pass*> forward(Graph& graph, const Substitutes& substitutes = {});
  // The losses on that pass. `replay`: the batch is seen again within a step, so losses leave their slots alone.
  Result<ObjectiveValue> evaluate(Graph& graph, Pass& pass, bool replay = false);
  // The tensor that `source` names: "y", "stream.y", "model.output", "model.<layer>".
  Result<Tensor> resolve(Graph& graph, Pass& pass, const std::string& source) const;
  // The tensors a loss's roles are bound to, by the recipe or by convention.
  Result<std::vector<NamedTensor>> roles(Graph& graph, Pass& pass, const LossTerm& term) const;
  // Updates of running statistics and of what losses set; after the step's graph is complete.
  std::vector<Update> take_updates();
  // Forgets the passes of the step.
  void end();

  // ModelService, for plugins that apply the model again.
  Result<std::vector<Tensor>> apply(Graph& graph, const Apply& call) override;
  Result<std::vector<NamedTensor>> parameters(Graph& graph, const std::string& model) override;
  Status assign(const std::string& model, size_t index, Tensor value) override;

  const CallInfo& info() const { return info_; }

 private:
  Result<const TrainedModel*> find_model(const std::string& name) const;
  Tensor input(Graph& graph, const std::string& column) const;

  const Batch* batch_ = nullptr;
  CallInfo info_;
  std::vector<std::unique_ptr<Pass>> passes_;
  std::vector<std::unique_ptr<nn::Context>> again_;  // contexts of repeated applications
  std::vector<Update> assigned_;
  const LossTerm* current_ = nullptr;  // whose plugin is being called
};

}  // namespace tenon
