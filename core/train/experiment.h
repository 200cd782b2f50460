// Everything a recipe asks for, made and checked: data streams, models, losses, optimizers, metrics.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/plugin/catalog.h"
#include "core/runtime.h"
#include "core/train/data_from_recipe.h"
#include "core/train/metrics.h"
#include "core/train/objective.h"
#include "core/train/observer.h"
#include "core/train/optimize.h"
#include "core/train/recipe.h"

namespace tenon {

struct MetricUse {
  std::string name;
  std::unique_ptr<Metric> metric;
  std::string roles;  // what the metric reads: "outputs, labels"
  std::map<std::string, std::string> bind;
  std::unique_ptr<Instance> attack;  // null: outputs at the input as it is
};

class Experiment {
 public:
  // Plugins first (their options are checked before any data is read), then data, models and parameter groups.
  // `data_root` is where data sets lie ("" = only beside the recipe).
  static Result<std::unique_ptr<Experiment>> open(Runtime& runtime, Catalog& catalog, Recipe recipe,
                                                  const std::string& data_root);
  // The same on data that is in memory already: one stream for each `data` of the recipe, which says how it is batched.
  static Result<std::unique_ptr<Experiment>> open(Runtime& runtime, Catalog& catalog, Recipe recipe,
                                                  std::vector<DataStream> streams);

  Runtime& runtime() { return *runtime_; }
  Catalog& catalog() { return *catalog_; }
  const Recipe& recipe() const { return recipe_; }
  std::vector<DataStream>& streams() { return streams_; }
  const std::vector<DataStream>& streams() const { return streams_; }
  Objective& objective() { return objective_; }
  Optimizers& optimizers() { return optimizers_; }
  uint64_t seed() const { return seed_; }
  int64_t total_steps() const { return total_steps_; }
  int64_t steps_per_epoch() const { return steps_per_epoch_; }
  // Training ends here: at total_steps, or earlier. Schedules still run over total_steps, so that a run which was ended
  // early goes on as if it had not been.
  int64_t last_step() const { return last_step_; }
  void limit_steps(int64_t n) { last_step_ = std::min(total_steps_, n); }

  // Batch `step` of every stream's training part, uploaded; and its number of samples.
  Result<Batch> training_batch(int64_t step, int64_t* samples);
  CallInfo training_info(int64_t step) const;
  // Metrics of a split ("val", "test") over all its batches, or about `max_batches` of them: "test/accuracy". Of
  // several streams each is gone through once; a loss or metric averages over the batches that have what it reads.
  Result<MetricValues> evaluate(const std::string& split, int64_t step, int64_t max_batches = 0);
  bool has_split(const std::string& split) const;
  // Outputs of a model ("" the main one) on a split, batch by batch: `sink(columns of its stream's batch, output)`.
  Status predict(const std::string& split, const std::function<Status(const Columns&, const HostArray&)>& sink,
                 const std::string& model = "");
  const std::string& main_model() const;  // whose output metrics read
  // The plugin that drives the run; null: the built-in procedure, fit.
  Instance* procedure() { return procedure_.get(); }
  // Training draws from these rows of a stream's training part from now on (null: all), in an order that `key` decides.
  Status select_rows(size_t stream, const std::vector<int64_t>* rows, uint64_t key);
  // Rows of a column (null: all), transformed as in evaluation and in the model's type.
  Result<HostArray> rows(size_t stream, const std::string& split, const std::string& column, const std::vector<int64_t>* indices) const;
  HostArray in_model_type(HostArray values) const;
  DType type_in_model(DType t) const;
  // Batch `number` of one stream's part: as training draws it for "train", in order and again from the start for others.
  Result<Columns> batch_columns(size_t stream, const std::string& split, int64_t number);
  // Adds or replaces a column of a part.
  Status set_column(size_t stream, const std::string& split, const std::string& name, HostArray values);

  // Carries out what a plugin asked for.
  Status apply(const Objective::ModelChange& change);

  // Every tensor that a checkpoint holds: parameters and states of models, slots of optimizers and losses.
  std::vector<std::pair<std::string, Array>> saved_arrays() const;

 private:
  Experiment() = default;
  static Result<std::unique_ptr<Experiment>> with_plugins(Runtime& runtime, Catalog& catalog, Recipe recipe);
  Status use(std::vector<DataStream> streams);
  Status use_data(std::vector<DataStream> streams);
  Status create_plugins(Catalog& catalog);
  Status create_models(const Batch& batch);
  Status create_metrics(Catalog& catalog);
  Result<std::unique_ptr<Instance>> create_attack(Catalog& catalog, const proto::Attack& a, const std::string& of, const std::string& path) const;
  Status default_metrics();
  Status bind_parameters(const Batch& batch);
  Result<Batch> upload(const DataStream& stream, const Columns& columns, bool first, Batch batch) const;
  // One a stream; null for those that lack the part.
  using SplitBatchers = std::vector<std::unique_ptr<Batcher>>;
  Result<SplitBatchers> split_batchers(const std::string& split, int64_t max_batches) const;
  struct SplitBatch {
    std::map<std::string, Columns> columns;  // by stream
    std::map<std::string, int64_t> rows;
    Batch batch;
    std::set<std::string> absent;  // streams without a batch `b`
  };
  Result<SplitBatch> split_batch(SplitBatchers& batchers, int64_t b) const;
  Result<nn::BuildOptions> build_options(const proto::Model& m, const std::string& path) const;

  Runtime* runtime_ = nullptr;
  Catalog* catalog_ = nullptr;
  Recipe recipe_;
  std::vector<DataStream> streams_;
  Objective objective_;
  Optimizers optimizers_;
  std::unique_ptr<Instance> procedure_;
  std::vector<MetricUse> metrics_;
  std::vector<ModelFacts> facts_;  // of each model
  std::vector<std::unique_ptr<Batcher>> training_;
  uint64_t seed_ = 0;
  int64_t total_steps_ = 0, last_step_ = 0, steps_per_epoch_ = 1;
};

}  // namespace tenon
