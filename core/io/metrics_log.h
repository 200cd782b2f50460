// Metrics as JSON lines: {"step":100,"train/loss":0.41,"val/accuracy":0.93}, one line each time something is
// measured. A number that JSON can't hold (NaN, infinity) is null.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/base/status.h"
#include "core/io/append_file.h"

namespace tenon {

class MetricsLog {
 public:
  // Begins an empty file; or, with `resumed_after` >= 0, keeps the lines of steps up to that one (and drops
  // later ones and what a kill left unfinished). Errors: the disk; lines that are not this format.
  static Result<MetricsLog> open(const std::string& path, int64_t resumed_after = -1);

  // Other programs see the line when this returns.
  Status write(int64_t step, const std::map<std::string, double>& values);

 private:
  explicit MetricsLog(AppendFile file) : file_(std::move(file)) {}
  AppendFile file_;
};

struct MetricsLine {
  int64_t step = 0;
  std::map<std::string, double> values;  // null is NaN
};
// Reads such a file. Error names the line; an unfinished last line is left out.
Result<std::vector<MetricsLine>> read_metrics(const std::string& path);

}  // namespace tenon
