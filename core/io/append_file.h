// A file that grows by whole records: a record that can't be written in full is taken back.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "core/base/status.h"

namespace tenon {

class AppendFile {
 public:
  // Makes the file where it is missing. Error: a folder that is missing or not writable.
  static Result<AppendFile> open(std::string path);
  AppendFile(AppendFile&& other) noexcept;
  AppendFile& operator=(AppendFile&& other) noexcept;
  ~AppendFile();

  // After this call other programs see the whole record, or (on error, with the system's reason) nothing of
  // it.
  Status append(std::string_view record);
  const std::string& path() const { return path_; }

 private:
  AppendFile(std::string path, int fd, int64_t size) : path_(std::move(path)), fd_(fd), size_(size) {}
  std::string path_;
  int fd_ = -1;
  int64_t size_ = 0;
};

}  // namespace tenon
