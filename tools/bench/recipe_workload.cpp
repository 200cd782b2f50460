#include "core/train/step.h"
#include "tools/bench/values.h"
#include "tools/bench/workload.h"

namespace tenon::bench {
namespace {

class RecipeWorkload final : public Workload {
 public:
  static Result<std::unique_ptr<Workload>> make(Runtime& runtime, Catalog& catalog, Recipe recipe,
                                                Columns columns) {
    Dataset rows;
    for (auto& [name, values] : columns) TN_RETURN_IF_ERROR(rows.add(name, std::move(values)));
    recipe.proto.add_data()->set_shuffle(false);
    recipe.proto.mutable_train()->set_batch_size(rows.size());
    DataStream stream;
    stream.name = "data";
    stream.train = std::make_shared<const Dataset>(std::move(rows));
    std::vector<DataStream> streams;
    streams.push_back(std::move(stream));
    TN_ASSIGN(auto experiment, Experiment::open(runtime, catalog, std::move(recipe), std::move(streams)));
    for (const NamedParameter& p : experiment->optimizers().parameters())
      TN_RETURN_IF_ERROR(p.parameter->value.assign(initial(p.name, p.parameter->value.shape())));
    TN_ASSIGN(Batch batch, experiment->training_batch(0, nullptr));
    return std::unique_ptr<Workload>(new RecipeWorkload(std::move(experiment), std::move(batch)));
  }

  Status step() override {
    graph_.reset();
    experiment_->objective().begin(batch_, experiment_->training_info(step_++));
    TN_ASSIGN(const StepResult r, training_step(experiment_->objective(), experiment_->optimizers(), graph_));
    loss_ = r.loss;
    return Status::ok();
  }

  Result<std::vector<double>> outcome() override { return std::vector{loss_}; }

 private:
  RecipeWorkload(std::unique_ptr<Experiment> experiment, Batch batch)
      : experiment_(std::move(experiment)), batch_(std::move(batch)), graph_(experiment_->runtime()) {}

  std::unique_ptr<Experiment> experiment_;
  Batch batch_;
  Graph graph_;
  int64_t step_ = 0;
  double loss_ = 0;
};

}  // namespace

Result<std::unique_ptr<Workload>> recipe_workload(const Setup& setup, const std::string& text,
                                                  Columns batch) {
  TN_ASSIGN(Recipe recipe, parse_recipe(text, "workload"));
  TN_RETURN_IF_ERROR(set_field(recipe, "precision=" + setup.precision));
  return RecipeWorkload::make(setup.runtime, setup.catalog, std::move(recipe), std::move(batch));
}

}  // namespace tenon::bench
