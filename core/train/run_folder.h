// The folder of a run: resolved recipe, metrics (JSON lines and TensorBoard events), checkpoints.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "core/io/metrics_log.h"
#include "core/io/tensorboard.h"
#include "core/train/checkpoint.h"
#include "core/train/experiment.h"
#include "core/train/made_plugins.h"

namespace tenon {

class RunFolder {
 public:
  // Makes the folder, or with `resume` opens the one of an earlier run. Errors: it holds a run already (without
  // resume), it holds none (with), it can't be written.
  static Result<RunFolder> open(const std::string& dir, bool resume, const Recipe& recipe);

  const std::string& dir() const { return dir_; }
  // The newest checkpoint's folder, "" when there is none.
  const std::string& last_checkpoint() const { return last_; }

  // Restores the newest checkpoint into the experiment and drops what was logged after it; returns its step.
  Result<int64_t> restore(Experiment& e);
  Status log(int64_t step, const MetricValues& values);
  // Writes a checkpoint after `step` steps; `metrics` are those of its evaluation (for checkpoint.best).
  Status save(Experiment& e, int64_t step, const MetricValues& metrics);
  // Of the procedure that runs: saved and restored with the rest.
  MadePlugins& made_plugins() { return made_plugins_; }
  // After a failure: removes the folder if the run came to nothing, no metric and no checkpoint, so that another try is
  // not refused because of it.
  void discard_if_unused();

 private:
  Status open_logs(int64_t from_step);
  std::string dir_, last_;
  std::optional<double> best_;  // value of checkpoint.best in the checkpoint that is marked
  std::unique_ptr<MetricsLog> lines_;
  std::unique_ptr<EventWriter> events_;
  MadePlugins made_plugins_;
};

// Tensors of a checkpoint into an experiment. `step` and `made` get the checkpoint's. Errors: another model's checkpoint.
Status restore_checkpoint(const std::string& path, Experiment& e, int64_t* step, MadePlugins* made = nullptr);
// Parameters of a model (by its name in the recipe) from a checkpoint folder or a .safetensors file.
Status load_parameters(const std::string& path, const std::string& recipe_dir, const std::string& model_name, nn::Model& model);

}  // namespace tenon
