// Plugins inside models: parametrizations of their weights, and routers of their mixture-of-experts layers.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/plugin/instance.h"
#include "core/train/model_from_recipe.h"

namespace tenon {

class LayerPlugins {
 public:
  // Makes one instance of everything that the recipe names, so that options are checked before any data is read.
  static Status check(Catalog& catalog, const Recipe& recipe);
  // Gives the weights of a model just built their parametrizations, and its layers their routers. A parametrization sees
  // the initial weight, and may replace it. Errors: what the plugins say, with the recipe's line.
  Status attach(Runtime& runtime, Catalog& catalog, const Recipe& recipe, const std::string& model, RecipeModel& built);
  // Every pattern of the recipe's parametrizations must have taken some weight; after the last attach.
  Status check_patterns(const Recipe& recipe) const;

  // Where in the run the passes are that follow. `replay`: the batch is seen again within a step.
  void begin(const CallInfo& info, bool replay);
  // All instances, by their names in checkpoints.
  std::vector<std::pair<std::string, Instance*>> instances() const;

 private:
  struct Placed {
    std::string name;  // "parametrization/model.linear0.weight"
    std::unique_ptr<Instance> instance;
  };
  Status parametrize(Runtime& runtime, Catalog& catalog, const Recipe& recipe, int index, const std::string& model,
                     const nn::ParameterPtr& p);
  Status give_router(Catalog& catalog, const Recipe& recipe, const std::string& model, const RouterUse& use);

  std::shared_ptr<CallInfo> info_ = std::make_shared<CallInfo>();  // read by the closures that layers hold
  std::vector<Placed> placed_;
  std::vector<bool> taken_;  // by the recipe's parametrizations
};

}  // namespace tenon
