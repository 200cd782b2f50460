// Where the time of steps goes: a backend that wraps another one and times every kernel that it compiled.
// Without it nothing is timed, so a run that is not profiled pays nothing.
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "backends/backend.h"
#include "tools/bench/cost.h"

namespace tenon::bench {

using Clock = std::chrono::steady_clock;

class Profile {
 public:
  // What runs between start() and stop() counts.
  void start() { running_ = true; }
  void stop() { running_ = false; }

  // Kernels that do the same: equal name, operations and shapes.
  struct Row {
    std::string kernel;  // who does it: "onednn:matmul"
    std::string ops;     // what: "matmul+add+relu"
    std::string shapes;  // "f32[64, 123] f32[64, 123] -> f32[64, 64]"
    Cost cost;           // of a call
    int64_t calls = 0;
    double seconds = 0;  // of all calls
  };
  // Most time first; kernels that never ran are left out.
  std::vector<Row> rows() const;

  struct Counts {
    int64_t kernels = 0, compiled = 0;
    int64_t allocations = 0, uploads = 0, downloads = 0, synchronisations = 0;
    double allocated_bytes = 0;
  };
  const Counts& counts() const { return counts_; }

  // A span of the host's time for the trace: "step 3".
  void span(std::string name, Clock::time_point begin, Clock::time_point end);
  // Chrome's trace event format (Perfetto and chrome://tracing read it): kernels on one track, spans on
  // another.
  Status write_trace(const std::string& path) const;

 private:
  friend class ProfiledKernel;
  friend class ProfiledBackend;
  size_t add(const Kernel& kernel, const Piece& piece);
  void ran(size_t row, Clock::time_point begin, Clock::time_point end);

  struct Event {
    size_t row;  // or of spans_
    Clock::time_point begin, end;
  };
  bool running_ = false;
  std::vector<Row> rows_;
  std::map<std::string, size_t> known_;
  Counts counts_;
  std::vector<Event> kernel_events_;
  std::vector<std::pair<std::string, Event>> spans_;
};

// `profile` must outlive the backend.
std::unique_ptr<Backend> profiled(std::unique_ptr<Backend> backend, Profile& profile);

}  // namespace tenon::bench
