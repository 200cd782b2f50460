// The runs that are done, kept in a file so that they are not made twice: one JSON object a line.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "core/io/append_file.h"
#include "core/train/observer.h"
#include "tools/zoo/description.h"

namespace tenon::zoo {

class Journal {
 public:
  // folder/runs.jsonl, made where it is missing. A line that a killed process left incomplete is passed over. Error: the
  // folder can't be written.
  static Result<Journal> open(const std::string& folder);

  // Null when the job, with exactly this recipe, has not been done.
  const MetricValues* find(const Job& job) const;
  Status add(const Description& d, const Job& job, const MetricValues& metrics);

 private:
  explicit Journal(AppendFile file) : file_(std::move(file)) {}
  AppendFile file_;
  std::map<std::string, MetricValues> done_;  // by fingerprint
};

}  // namespace tenon::zoo
