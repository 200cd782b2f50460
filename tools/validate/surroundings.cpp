#include "tools/validate/surroundings.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cfenv>
#include <clocale>
#include <csignal>
#include <cstdio>
#include <filesystem>
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace tenon::validate {
namespace {

namespace fs = std::filesystem;

std::string joined(std::vector<std::string> lines) {
  std::sort(lines.begin(), lines.end());
  std::string out;
  for (const std::string& l : lines) out += l + "\n";
  return out;
}

std::string written(int file) {
  struct stat s {};
  return fstat(file, &s) == 0 ? std::to_string(s.st_size) : "";
}

std::string files_here() {
  std::vector<std::string> names;
  std::error_code ec;
  for (fs::recursive_directory_iterator it(".", ec), end; !ec && it != end; it.increment(ec)) names.push_back(it->path().string());
  return joined(std::move(names));
}

std::string open_files() {
  std::vector<std::string> all;
  std::error_code ec;
  for (fs::directory_iterator it("/proc/self/fd", ec), end; !ec && it != end; it.increment(ec)) {
    const std::string to = fs::read_symlink(it->path(), ec).string();
    if (!ec && to.find("/proc/") == std::string::npos) all.push_back(it->path().filename().string() + " " + to);  // (not the folder being read)
    ec.clear();
  }
  return joined(std::move(all));
}

std::string environment() {
  std::vector<std::string> all;
  for (char** e = environ; *e; ++e) all.emplace_back(*e);
  return joined(std::move(all));
}

std::string signals() {
  std::string out;
  for (int s = 1; s < NSIG; ++s) {
    struct sigaction a {};
    if (sigaction(s, nullptr, &a) == 0)
      out += std::to_string(reinterpret_cast<uintptr_t>(a.sa_flags & SA_SIGINFO ? reinterpret_cast<void*>(a.sa_sigaction) : reinterpret_cast<void*>(a.sa_handler))) + " ";
  }
  sigset_t mask;
  sigprocmask(SIG_BLOCK, nullptr, &mask);
  for (int s = 1; s < NSIG; ++s) out += sigismember(&mask, s) == 1 ? '1' : '0';
  return out;
}

std::string arithmetic() {
  std::string out = std::to_string(fegetround());
#if defined(__x86_64__)
  out += " " + std::to_string(_mm_getcsr() & ~0x3fu);  // the low six bits say what has happened, not what is to
#endif
  return out;
}

std::string threads() {
  size_t n = 0;
  std::error_code ec;
  for (fs::directory_iterator it("/proc/self/task", ec), end; !ec && it != end; it.increment(ec)) ++n;
  return std::to_string(n);
}

}  // namespace

Surroundings look_around() {
  std::fflush(nullptr);
  std::error_code ec;
  return {{{"what it prints", written(STDOUT_FILENO) + " " + written(STDERR_FILENO)},
           {"files in the working folder", files_here()},
           {"open files", open_files()},
           {"the environment", environment()},
           {"the locale", setlocale(LC_ALL, nullptr)},
           {"the working folder", fs::current_path(ec).string()},
           {"signal handlers", signals()},
           {"the modes of floating-point arithmetic", arithmetic()},
           {"threads", threads()}}};
}

std::string changes(const Surroundings& before, const Surroundings& after) {
  std::string out;
  for (size_t i = 0; i < before.parts.size(); ++i)
    if (before.parts[i].second != after.parts[i].second) out += (out.empty() ? "" : " and ") + before.parts[i].first;
  return out;
}

}  // namespace tenon::validate
