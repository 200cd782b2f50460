// What a running experiment tells the outside (terminal, JSON, an embedding program), and how it is asked to
// stop.
#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace tenon {

using MetricValues = std::map<std::string, double>;  // "test/accuracy" -> 0.981

struct StepInfo {
  int64_t step = 0, total_steps = 0;  // done so far, of how many
  int64_t epoch = 0;
  double loss = 0;           // of the batch
  double learning_rate = 0;  // of the first group
  double samples_per_second = 0;
  MetricValues parts;  // named parts that a loss reported
};

// All functions are called from the training thread.
class Observer {
 public:
  virtual ~Observer() = default;
  virtual void on_step(const StepInfo&) {}
  // Metrics of one split after `step` steps; names carry the split.
  virtual void on_evaluation(int64_t step, const MetricValues&) { (void)step; }
  virtual void on_checkpoint(int64_t step, const std::string& path) { (void)step, (void)path; }
  virtual void on_message(const std::string&) {}
  // Polled between steps: true ends the run after a checkpoint.
  virtual bool cancelled() { return false; }
};

// How a run ended.
struct Summary {
  MetricValues metrics;
  int64_t steps = 0;
  double seconds = 0;
  double step_ms = 0;  // median
  std::string checkpoint;
  bool cancelled = false;
};

}  // namespace tenon
