// Files written whole or not at all, and read with a clear sentence when they can't be.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "core/base/status.h"

namespace tenon {

// "can't write 'runs/a/x.bin': No space left on device": no fault of the input, whatever the reason.
Status write_error(std::string_view what, const std::string& path, int error_number);

// The bytes of a file, as they are. Errors: missing, a folder, unreadable.
Result<std::string> read_bytes(const std::string& path);

// Makes a folder and those above it. Error: no permission, a file is in the way.
Status make_folders(const std::string& path);

// A file that appears under its name only once it is complete and on the disk: written beside it under a
// temporary name, flushed (fsync), renamed, and the folder flushed. Destroyed before commit(), it leaves
// nothing behind.
class AtomicFile {
 public:
  static Result<AtomicFile> create(std::string path);
  AtomicFile(AtomicFile&& other) noexcept;
  AtomicFile& operator=(AtomicFile&& other) noexcept;
  ~AtomicFile();

  // Errors carry the system's reason (a full disk, ..); the temporary file is then removed.
  Status write(std::span<const std::byte> bytes);
  Status write(std::string_view text) { return write(std::as_bytes(std::span(text))); }
  Status commit();

  uint32_t crc32() const { return crc_; }  // of all bytes written so far (zlib's polynomial)
  uint64_t size() const { return size_; }

 private:
  AtomicFile(std::string path, std::string temporary, int fd);
  void discard();

  std::string path_, temporary_;
  int fd_ = -1;
  uint32_t crc_ = 0;
  uint64_t size_ = 0;
};

// AtomicFile in one call.
Status write_atomically(const std::string& path, std::string_view contents);

// Makes renames and removals in a folder durable.
Status sync_folder(const std::string& path);

// CRC-32 as zlib and gzip compute it.
uint32_t crc32_of(std::string_view bytes);
// CRC-32C (Castagnoli), as TFRecord files use it.
uint32_t crc32c_of(std::string_view bytes);

}  // namespace tenon
