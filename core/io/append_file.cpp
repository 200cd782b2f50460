#include "core/io/append_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "core/io/file.h"

namespace tenon {

Result<AppendFile> AppendFile::open(std::string path) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (fd < 0) return write_error("can't write", path, errno);
  const off_t size = ::lseek(fd, 0, SEEK_END);
  return AppendFile(std::move(path), fd, size < 0 ? 0 : static_cast<int64_t>(size));
}

AppendFile::AppendFile(AppendFile&& other) noexcept
    : path_(std::move(other.path_)), fd_(std::exchange(other.fd_, -1)), size_(other.size_) {}

AppendFile& AppendFile::operator=(AppendFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(fd_, other.fd_);
  std::swap(size_, other.size_);
  return *this;
}

AppendFile::~AppendFile() {
  if (fd_ >= 0) ::close(fd_);
}

Status AppendFile::append(std::string_view record) {
  std::string_view left = record;
  while (!left.empty()) {
    const ssize_t n = ::write(fd_, left.data(), left.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      const int error_number = errno;
      // Best effort: the write's own error is the one to report.
      if (left.size() < record.size() && ::ftruncate(fd_, size_) != 0) errno = error_number;
      return write_error("can't write", path_, error_number);
    }
    left.remove_prefix(static_cast<size_t>(n));
  }
  size_ += static_cast<int64_t>(record.size());
  return Status::ok();
}

}  // namespace tenon
