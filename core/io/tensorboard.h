// Scalars for TensorBoard: event files, that is TFRecords of Event messages (event.proto).
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "core/base/status.h"
#include "core/io/append_file.h"

namespace tenon {

class EventWriter {
 public:
  // Begins a new event file in `folder` (made where missing). `resumed_after` >= 0: the run goes on after
  // that step; TensorBoard then forgets what earlier files of the folder say about later steps.
  static Result<EventWriter> create(const std::string& folder, int64_t resumed_after = -1);

  // Values by tag ("val/accuracy"), stored as f32. Each call is visible to TensorBoard when it returns.
  Status scalars(int64_t step, const std::map<std::string, double>& values);
  const std::string& path() const { return file_.path(); }

 private:
  explicit EventWriter(AppendFile file) : file_(std::move(file)) {}
  AppendFile file_;
};

// One record as TFRecord files frame it: u64 length, masked CRC-32C of the length, the data, masked CRC-32C
// of the data; little endian.
std::string tf_record(std::string_view data);

// The data of an Event with scalars, or (the first of a file) with the format's version.
std::string scalar_event(double wall_time, int64_t step, const std::map<std::string, double>& values);
std::string version_event(double wall_time);

}  // namespace tenon
