// A folder of small files for one test, removed at its end.
#pragma once

#include <unistd.h>
#include <zlib.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <string>
#include <string_view>

#include "core/base/status.h"

class TempFiles {
 public:
  TempFiles() {
    static std::atomic<int> count{0};
    dir_ = std::filesystem::temp_directory_path() /
           ("tenon-data-" + std::to_string(::getpid()) + "-" + std::to_string(count++));
    std::filesystem::create_directories(dir_);
  }
  ~TempFiles() {
    std::error_code ec;
    std::filesystem::remove_all(dir_, ec);
  }
  TempFiles(const TempFiles&) = delete;
  TempFiles& operator=(const TempFiles&) = delete;

  std::string dir() const { return dir_.string(); }
  std::string path(const std::string& name) const { return (dir_ / name).string(); }

  std::string write(const std::string& name, std::string_view content) const {
    std::ofstream(path(name), std::ios::binary) << content;
    return path(name);
  }
  std::string write_gz(const std::string& name, std::string_view content) const {
    gzFile f = gzopen(path(name).c_str(), "wb");
    gzwrite(f, content.data(), static_cast<unsigned>(content.size()));
    gzclose(f);
    return path(name);
  }

 private:
  std::filesystem::path dir_;
};

// Whether a message has every one of the parts.
inline bool mentions(const std::string& message, std::initializer_list<std::string_view> parts) {
  for (std::string_view p : parts)
    if (message.find(p) == std::string::npos) return false;
  return true;
}

// `result` must have failed, with a message that has all the parts.
#define CHECK_FAILS(result, ...)                       \
  do {                                                 \
    const auto& checked_ = (result);                   \
    REQUIRE_FALSE(checked_.is_ok());                   \
    const std::string message_ = message_of(checked_); \
    INFO(message_);                                    \
    CHECK(mentions(message_, {__VA_ARGS__}));          \
  } while (0)

template <class T>
std::string message_of(const T& r) {
  if constexpr (requires { r.message(); })
    return r.message();
  else
    return r.status().message();
}

// `decl` takes the value of a Result that must be good.
#define REQUIRE_GOOD(decl, expr) REQUIRE_GOOD_IMPL_(TN_CONCAT(good_, __LINE__), decl, expr)
#define REQUIRE_GOOD_IMPL_(tmp, decl, expr) \
  auto tmp = (expr);                        \
  if (!tmp.is_ok()) FAIL(message_of(tmp));  \
  decl = std::move(tmp).value()
