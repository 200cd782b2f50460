#include "core/io/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>

namespace tenon {
namespace {

std::string folder_of(const std::string& path) {
  const std::string folder = std::filesystem::path(path).parent_path().string();
  return folder.empty() ? "." : folder;
}

uint32_t extend_crc32(uint32_t crc, const void* data, size_t size) {
  const auto* p = static_cast<const Bytef*>(data);
  while (size > 0) {  // zlib counts in uInt
    const auto n = static_cast<uInt>(std::min<size_t>(size, 1u << 30));
    crc = static_cast<uint32_t>(::crc32(crc, p, n));
    p += n;
    size -= n;
  }
  return crc;
}

std::string sentence(std::string_view what, const std::string& path, int error_number) {
  return std::string(what) + " '" + path + "': " + std::system_category().message(error_number);
}

Status read_error(const std::string& path, int error_number) {
  return {error_number == ENOENT ? Code::not_found : Code::invalid, sentence("can't read", path, error_number)};
}

}  // namespace

Status write_error(std::string_view what, const std::string& path, int error_number) {
  return bad_state(sentence(what, path, error_number));
}

Result<std::string> read_bytes(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return read_error(path, errno);
  struct stat info {};
  if (::fstat(fd, &info) == 0 && S_ISDIR(info.st_mode)) {
    ::close(fd);
    return invalid("can't read '" + path + "': it is a folder");
  }
  std::string bytes;
  std::array<char, 1 << 16> chunk;
  if (info.st_size > 0) bytes.reserve(static_cast<size_t>(info.st_size));
  for (;;) {
    const ssize_t n = ::read(fd, chunk.data(), chunk.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      const int error_number = errno;
      ::close(fd);
      return read_error(path, error_number);
    }
    if (n == 0) break;
    bytes.append(chunk.data(), static_cast<size_t>(n));
  }
  ::close(fd);
  return bytes;
}

Status make_folders(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) return bad_state("can't make the folder '" + path + "': " + error.message());
  if (!std::filesystem::is_directory(path, error))
    return bad_state("can't make the folder '" + path + "': a file of that name is in the way");
  return Status::ok();
}

AtomicFile::AtomicFile(std::string path, std::string temporary, int fd)
    : path_(std::move(path)), temporary_(std::move(temporary)), fd_(fd) {}

AtomicFile::AtomicFile(AtomicFile&& other) noexcept { *this = std::move(other); }

AtomicFile& AtomicFile::operator=(AtomicFile&& other) noexcept {
  if (this == &other) return *this;
  discard();
  path_ = std::move(other.path_);
  temporary_ = std::move(other.temporary_);
  fd_ = std::exchange(other.fd_, -1);
  crc_ = other.crc_;
  size_ = other.size_;
  return *this;
}

AtomicFile::~AtomicFile() { discard(); }

void AtomicFile::discard() {
  if (fd_ < 0) return;
  ::close(fd_);
  fd_ = -1;
  ::unlink(temporary_.c_str());
}

Result<AtomicFile> AtomicFile::create(std::string path) {
  // The process number keeps two runs that share a folder from writing into each other's file.
  std::string temporary = path + ".tmp" + std::to_string(::getpid());
  const int fd = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return write_error("can't write", path, errno);
  return AtomicFile(std::move(path), std::move(temporary), fd);
}

Status AtomicFile::write(std::span<const std::byte> bytes) {
  if (fd_ < 0) return bad_state("can't write '" + path_ + "': an earlier write failed");
  const std::byte* p = bytes.data();
  size_t left = bytes.size();
  while (left > 0) {
    const ssize_t n = ::write(fd_, p, left);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      const int error_number = errno;
      discard();
      return write_error("can't write", path_, error_number);
    }
    p += n;
    left -= static_cast<size_t>(n);
  }
  crc_ = extend_crc32(crc_, bytes.data(), bytes.size());
  size_ += bytes.size();
  return Status::ok();
}

Status AtomicFile::commit() {
  if (fd_ < 0) return bad_state("can't write '" + path_ + "': an earlier write failed");
  if (::fsync(fd_) != 0) {
    const int error_number = errno;
    discard();
    return write_error("can't write", path_, error_number);
  }
  const int closed = ::close(std::exchange(fd_, -1));
  if (closed != 0 || ::rename(temporary_.c_str(), path_.c_str()) != 0) {
    const int error_number = errno;
    ::unlink(temporary_.c_str());
    return write_error("can't write", path_, error_number);
  }
  return sync_folder(folder_of(path_));
}

Status write_atomically(const std::string& path, std::string_view contents) {
  TN_ASSIGN(AtomicFile file, AtomicFile::create(path));
  TN_RETURN_IF_ERROR(file.write(contents));
  return file.commit();
}

Status sync_folder(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return write_error("can't open the folder", path, errno);
  const int synced = ::fsync(fd);
  const int error_number = errno;
  ::close(fd);
  // Some file systems have nothing to flush for a folder and say EINVAL.
  if (synced != 0 && error_number != EINVAL) return write_error("can't flush the folder", path, error_number);
  return Status::ok();
}

uint32_t crc32_of(std::string_view bytes) { return extend_crc32(0, bytes.data(), bytes.size()); }

uint32_t crc32c_of(std::string_view bytes) {
  // Reflected polynomial 0x1EDC6F41, bit by bit: the records are tens of bytes long.
  uint32_t crc = 0xffffffffu;
  for (const char c : bytes) {
    crc ^= static_cast<uint8_t>(c);
    for (int i = 0; i < 8; ++i) crc = (crc >> 1) ^ (0x82f63b78u & (0u - (crc & 1u)));
  }
  return ~crc;
}

}  // namespace tenon
