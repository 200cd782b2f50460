// The forward pass and the losses of a step: models applied to a batch, roles bound, terms weighted and summed.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "core/plugin/form_service.h"
#include "core/plugin/loss.h"
#include "core/train/layer_plugins.h"
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
  std::optional<Schedule> weight_schedule;  // a factor of the weight
  std::map<std::string, std::string> bind;  // role -> where from
  std::string stream;                       // for unbound roles; "" = the first
  std::vector<std::string> models;          // the first is the default model of its roles
  std::string where;                        // in the recipe
  std::unique_ptr<Instance> reweighter;     // null: the loss as the plugin gives it
  bool through_weights = false;             // gradients pass through the reweighter's weights
  std::unique_ptr<Instance> attack;         // null: at the input as it is
};

// Everything that one pass over the models made.
struct Pass {
  std::map<std::string, Tensor> outputs;  // by model name; those whose inputs the batch lacks are left out
  std::map<std::string, std::unique_ptr<nn::Context>> contexts;
};

struct ObjectiveValue {
  Tensor loss;    // weighted sum, differentiated
  Tensor report;  // what is shown
  struct Term {
    const LossTerm* of = nullptr;
    Tensor value, report, per_sample;
    double weight = 1;
    // What it reported beside: objectives and metrics, and numbers it computed itself; "part", or "name/part" when there
    // are several losses.
    std::vector<NamedTensor> parts;
    std::vector<std::pair<std::string, double>> numbers;
    std::vector<NamedTensor> checks;  // must hold
  };
  std::vector<Term> terms;
  // What the layers of the models have to say: penalties, metrics, conditions.
  struct Layers {
    std::string model;
    std::vector<NamedTensor> parts, checks;
  };
  std::vector<Layers> layers;
};

// Other tensors in place of parameters.
using Substitutes = std::map<const nn::Parameter*, Tensor>;

class Objective : public ModelService, public FormService {
 public:
  std::vector<TrainedModel> models;
  std::vector<LossTerm> losses;
  std::vector<std::string> streams;  // names, in the recipe's order; the first's columns need no prefix
  bool mixed = false;                // matrix products in bf16
  LayerPlugins layers;               // of the models
  // Applications of models are passes of their own, which running statistics and routers follow, not repetitions of the
  // step's batch: so a procedure's.
  bool own_passes = false;
  double stats_share = 0;  // nn::Context::stats_share of what is applied

  // Begins a step: whatever is built until the next call belongs to this batch and this place in the run.
  // `absent`: streams that have nothing (more) in it, as in an evaluation of streams of different lengths; what reads
  // them is left out.
  void begin(const Batch& batch, const CallInfo& info, std::set<std::string> absent = {});
  // Applies every model. In training, running statistics are updated through the pass's contexts.
  Result<Pass*> forward(Graph& graph, const Substitutes& substitutes = {});
  // The losses on that pass. `replay`: the batch is seen again within a step, so losses leave their slots alone.
  // Error: no loss can be evaluated on this batch.
  Result<ObjectiveValue> evaluate(Graph& graph, Pass& pass, bool replay = false);
  // The tensor that `source` names: "y", "stream.y", "model.output", "model.<layer>", "model.<parameter>" (as it is stored),
  // "model.<parameter>.effective" (as its layer uses it), "model.<layer>.load" of a mixture of experts.
  Result<Tensor> resolve(Graph& graph, Pass& pass, const std::string& source) const;
  // Whether `source` belongs to an absent stream, or to a model that was left out because of one.
  bool is_absent(const Pass& pass, const std::string& source) const;
  // The stream that `source` is a column of, or that the model it names reads.
  std::string stream_of(const std::string& source) const;
  // The tensors that the roles of a loss, or of a plugin that works on it, are bound to, by the recipe or by convention.
  Result<std::vector<NamedTensor>> roles(Graph& graph, Pass& pass, const LossTerm& term, const tn_descriptor& plugin) const;
  // The input of the loss's model perturbed against that loss, and the model's output there.
  struct Attacked {
    Tensor x_adv, output;
    Emissions emitted;
  };
  Result<Attacked> attacked(Graph& graph, Pass& pass, LossTerm& term, Instance& attack);
  // Every plugin of the objective; by its name in checkpoints ("loss/focal"), or alone.
  std::vector<std::pair<std::string, Instance*>> plugins() const;
  std::vector<Instance*> instances() const;
  // Gives the value that the optimizer's step, once built, has for a parameter (null: it leaves it alone). From then on
  // plugins see these.
  using NextValue = std::function<Tensor(const nn::Parameter&)>;
  void set_next_values(NextValue next) { next_ = std::move(next); }
  // Parameters that plugins gave another value.
  std::map<nn::ParameterPtr, Tensor> take_assigned() { return std::exchange(assigned_, {}); }
  // Updates of running statistics and of what losses set; after the step's graph is complete.
  std::vector<Update> take_updates();
  // Forgets the passes of the step.
  void end();

  // ModelService, for plugins that apply the model again.
  Result<std::vector<Tensor>> apply(Graph& graph, const Apply& call) override;
  Result<std::vector<NamedTensor>> parameters(Graph& graph, const std::string& model) override;
  Status assign(const std::string& model, size_t index, Tensor value) override;
  Result<Tensor> flat(Graph& graph, const std::string& model) override;
  Status assign_flat(const std::string& model, Tensor value) override;
  Status train_only(const std::string& model, const std::vector<std::string>& prefixes, bool reset_slots) override;
  Status reinitialize(const std::string& model, uint64_t key) override;
  Result<std::vector<SiteForm>> sites(const std::string& model) override;
  Status configure(const std::string& model, const std::vector<int64_t>& choices) override;
  Result<std::vector<int64_t>> sample(const std::string& model, uint64_t key, int32_t which) override;

  // What a plugin asked to be done with a model once the step is over, in order; the trainer does it.
  struct ModelChange {
    std::string model;
    std::optional<uint64_t> new_values;  // the key of new initial values; else:
    std::vector<std::string> train_only;
    bool reset_slots = false;
  };
  std::vector<ModelChange> take_changes() { return std::exchange(changes_, {}); }

  const CallInfo& info() const { return info_; }

 private:
  // "" is the model of the plugin that is being called, or the first.
  Result<const TrainedModel*> find_model(const std::string& name) const;
  Tensor input(Graph& graph, const std::string& column) const;
  Tensor current(Graph& graph, const nn::ParameterPtr& p) const;
  bool is_absent(const Pass& pass, const LossTerm& term) const;
  Result<LossResult> build(Graph& graph, Pass& pass, LossTerm& term, const CallInfo& info, std::vector<NamedTensor>& extra);
  Status reweigh(Graph& graph, Pass& pass, LossTerm& term, const CallInfo& info, LossResult& loss, std::vector<NamedTensor>& extra);
  void add_layers(const Pass& pass, ObjectiveValue& v) const;
  // Roles that the model's output is bound to.
  std::vector<std::string> output_roles(const Pass& pass, const LossTerm& term, const std::vector<NamedTensor>& roles) const;
  // The roles of a loss when the output at a perturbed input is known: that of "logits_adv" for "logits", or in its place.
  std::vector<NamedTensor> with_adversarial_roles(const LossTerm& term, std::vector<NamedTensor> in, const std::vector<std::string>& of_output,
                                                  Tensor output_adv) const;
  const std::string& model_of(const LossTerm& term) const { return term.models.empty() ? models[0].name : term.models[0]; }

  const Batch* batch_ = nullptr;
  std::set<std::string> absent_;
  CallInfo info_;
  std::vector<std::unique_ptr<Pass>> passes_;
  std::vector<std::unique_ptr<nn::Context>> again_;  // contexts of repeated applications
  std::vector<const nn::Context*> followed_;         // of these, the passes that running statistics follow
  NextValue next_;
  std::map<nn::ParameterPtr, Tensor> assigned_;
  std::vector<ModelChange> changes_;
  const LossTerm* current_ = nullptr;  // whose plugin is being called
};

}  // namespace tenon
