// Progress of a run for a person: one line redrawn in place on a terminal, plain lines when piped.
#pragma once

#include <chrono>
#include <cstdio>

#include "core/train/observer.h"

namespace tenon::cli {

class Progress : public Observer {
 public:
  // Plain lines appear at most every `log_every` steps; 0 chooses about twenty a run.
  explicit Progress(std::FILE* out, int64_t log_every = 0);
  void on_step(const StepInfo& s) override;
  void on_evaluation(int64_t step, const MetricValues& metrics) override;
  void on_checkpoint(int64_t step, const std::string& path) override;
  void on_message(const std::string& text) override;
  bool cancelled() override;
  // Ends the redrawn line.
  void finish();

  // Ctrl-C asks the run to stop after a checkpoint; a second one kills the process as usual.
  static void catch_interrupts();

 private:
  void draw(const StepInfo& s);
  void clear_line();

  std::FILE* out_;
  bool terminal_;
  bool line_open_ = false;
  int64_t log_every_;
  std::chrono::steady_clock::time_point started_, drawn_{};
  int64_t first_step_ = -1;
};

// "12.3 s", "4:05", "2:10:00"
std::string duration(double seconds);

}  // namespace tenon::cli
