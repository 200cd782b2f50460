// Procedures: small recipes that they drive.
#pragma once

#include "core/train/experiment.h"
#include "tools/validate/check.h"

namespace tenon::validate {

// How much data a small recipe has, and how it is cut.
struct SmallData {
  int64_t samples = 80, features = 2, classes = 3;
  int64_t val = 16, test = 16;  // 0: without this part
  int64_t batch = 16;
};

// What procedures are tried with, from the simplest on: a classifier, numbers to be predicted, and the classifier quantised by each
// quantizer that is there, with its defaults and with each of its flags turned.
std::vector<std::string> small_recipes(const Host& host);
// Whole numbers above 4 are lowered to 4, or to the least that they may be: a search of 500 generations is checked with 4.
Options small_counts(const tn_descriptor& d);

// The experiment of such a recipe with this procedure; `catalog` must have the plugins that ship. Error: it refuses its options.
Result<std::unique_ptr<Experiment>> open_small(const Bench& bench, const Options& options, const SmallData& data = {});
// The metrics that its run ended with. Error: the procedure refuses the recipe.
Result<Inputs> run_small(Experiment& e);

// The checks that need more than its runs with other options; `expected`: what one alone ends with.
Verdict check_procedure_sizes(const Bench& bench);
Verdict check_procedure_instances(const Bench& bench, const Inputs& expected);
Verdict check_procedure_resume(const Bench& bench, const Inputs& expected);

}  // namespace tenon::validate
