// Procedures: small recipes that they drive.
#pragma once

#include "tools/validate/subject.h"

namespace tenon::validate {

// How many recipes there are: a classifier, one with a quantised model, and numbers to be predicted.
size_t small_recipes();
// The metrics that the run of recipe number `recipe` ended with; `catalog` must have the plugins that ship. Error: the
// procedure refuses its options or the recipe.
Result<Inputs> run_small_recipe(const Host& host, size_t recipe, const tn_descriptor& d, const Options& options);

}  // namespace tenon::validate
