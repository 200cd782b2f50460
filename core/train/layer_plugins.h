// Plugins inside models: parametrizations of their weights, routers of their mixture-of-experts layers, quantizers of
// their layers' weights and inputs.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/plugin/quantizer.h"
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
  // The quantised forms of a model. A site's choice holds for whatever is built from then on.
  struct Site {
    std::string model;
    QuantSite place;
    Instance* instance = nullptr;
    std::vector<int64_t> choices;  // empty: a single form
    int64_t choice = 0;
  };
  std::vector<Site*> sites(const std::string& model) const;
  // Error: another number of sites, an index that is no choice.
  Status configure(const std::string& model, const std::vector<int64_t>& choices);
  // which: 0 random, 1 the first choice of each site, 2 the last, unless the plugin says otherwise.
  Result<std::vector<int64_t>> sample(const std::string& model, uint64_t key, int32_t which) const;

  // All instances; by their names in checkpoints, or alone.
  std::vector<std::pair<std::string, Instance*>> named() const;
  std::vector<Instance*> instances() const;

 private:
  struct Placed {
    std::string name;  // "parametrization/model.linear0.weight"
    std::unique_ptr<Instance> instance;
  };
  Status parametrize(Runtime& runtime, Catalog& catalog, const Recipe& recipe, int index, const std::string& model,
                     const nn::ParameterPtr& p);
  Status quantize_model(Runtime& runtime, Catalog& catalog, const proto::Quantizer& said, const std::string& model, const nn::Model& built);
  Result<Site*> add_site(Catalog& catalog, const proto::Quantizer& said, const std::string& model, QuantSite place);
  Status give_router(Catalog& catalog, const Recipe& recipe, const std::string& model, const RouterUse& use);

  std::shared_ptr<CallInfo> info_ = std::make_shared<CallInfo>();  // read by the closures that layers hold
  std::vector<Placed> placed_;
  std::vector<std::unique_ptr<Site>> sites_;
  std::map<int, Instance*> shared_;  // of the recipe's parametrizations, the last instance made
  std::vector<bool> taken_;          // which of them have taken a weight
};

}  // namespace tenon
