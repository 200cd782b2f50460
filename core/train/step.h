// One training step as graph: forward, losses, gradients, optimizer; one evaluation.
#pragma once

#include <string>
#include <vector>

#include "core/train/experiment.h"

namespace tenon {

struct StepResult {
  double loss = 0;
  MetricValues parts;  // what losses and optimizers reported
  int64_t samples = 0;
};

// Runs training step `step` of the experiment on `graph`, which is reset.
Result<StepResult> training_step(Experiment& e, Graph& graph, int64_t step);
// What comes after the data: a step on the batch that objective.begin() was given, appended to `graph` and run.
// Leaves `samples` 0.
Result<StepResult> training_step(Objective& objective, Optimizers& optimizers, Graph& graph);

}  // namespace tenon
