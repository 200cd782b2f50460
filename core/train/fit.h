// The built-in procedure: steps over batches, with evaluation, logging and checkpoints on the way.
#pragma once

#include "core/train/experiment.h"
#include "core/train/observer.h"

namespace tenon {

class RunFolder;

// Trains from `first_step` (0, or where a checkpoint left off) to the experiment's last step. `folder` may be null:
// nothing is written. Errors: the loss is no longer finite (names the step and the last checkpoint), what data, model,
// plugins or the disk say.
Result<Summary> fit(Experiment& e, RunFolder* folder, Observer& observer, int64_t first_step = 0);

// Runs the recipe by its procedure: fit, or the plugin that it names.
Result<Summary> run_recipe(Experiment& e, RunFolder* folder, Observer& observer, int64_t first_step = 0);

}  // namespace tenon
