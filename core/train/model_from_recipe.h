// Builds the model that a recipe describes.
#pragma once

#include <string>
#include <vector>

#include "core/nn/layers.h"
#include "core/train/recipe.h"

namespace tenon {

// What the data says about a model: the types of its inputs (first dimension: any small batch), and sizes
// that a recipe may leave out. 0: the data does not say.
struct ModelFacts {
  std::vector<TensorType> inputs;  // one for each proto input; floating ones take the model's dtype
  int64_t outputs = 0;             // classes, vocabulary, or 1 for a number
  int64_t vocab = 0;
  int64_t context = 0;
};

// A mixture-of-experts layer whose router the recipe names.
struct RouterUse {
  std::string layer;  // Module::name
  proto::Router router;
  int64_t top_k = 0;
  std::shared_ptr<nn::MoeRouter> slot;  // where it goes
};

struct RecipeModel {
  nn::Model model;
  std::vector<RouterUse> routers;
};

// `path` is the model's place in the recipe, "model" or "model[1]", for messages. Parameters are frozen when
// the recipe says so; sharing is BuildOptions::share. Errors: unknown initialisers, activations and names,
// sizes that neither recipe nor data give, layers that do not fit their input.
Result<RecipeModel> model_from_recipe(Runtime& runtime, const Recipe& recipe, const proto::Model& model,
                                      const std::string& path, const ModelFacts& facts,
                                      nn::BuildOptions options);

}  // namespace tenon
