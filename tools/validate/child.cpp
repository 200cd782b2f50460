#include "tools/validate/child.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <filesystem>

namespace tenon::validate {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

struct EmptyFolder {
  std::string path;
  EmptyFolder() {
    std::error_code ec;
    path = (fs::temp_directory_path(ec) / "tenon-validate-XXXXXX").string();
    if (!mkdtemp(path.data())) path.clear();
  }
  ~EmptyFolder() {
    std::error_code ec;
    if (!path.empty()) fs::remove_all(path, ec);
  }
  EmptyFolder(const EmptyFolder&) = delete;
  EmptyFolder& operator=(const EmptyFolder&) = delete;
};

struct File {
  int fd = -1;
  ~File() {
    if (fd >= 0) close(fd);
  }
  std::string text() const {
    std::string out;
    char buffer[4096];
    lseek(fd, 0, SEEK_SET);
    for (ssize_t n; (n = read(fd, buffer, sizeof buffer)) > 0;) out.append(buffer, static_cast<size_t>(n));
    return out;
  }
};

}  // namespace

Result<ChildResult> run_child(const std::vector<std::string>& arguments, double seconds) {
  const EmptyFolder folder;
  const File output{memfd_create("output", MFD_CLOEXEC)}, report{memfd_create("report", MFD_CLOEXEC)};
  if (folder.path.empty() || output.fd < 0 || report.fd < 0) return bad_state(std::string("no place for a process: ") + std::strerror(errno));
  std::error_code ec;
  std::string program = fs::read_symlink("/proc/self/exe", ec).string();
  std::vector<char*> argv{program.data()};
  std::vector<std::string> copies = arguments;
  for (std::string& a : copies) argv.push_back(a.data());
  argv.push_back(nullptr);

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, output.fd, STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, output.fd, STDERR_FILENO);
  posix_spawn_file_actions_adddup2(&actions, report.fd, kReportFile);
  posix_spawn_file_actions_addchdir_np(&actions, folder.path.c_str());
  pid_t pid = 0;
  const int error = posix_spawn(&pid, program.c_str(), &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return bad_state("can't run '" + program + "': " + std::strerror(error));

  ChildResult result;
  const auto deadline = Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
  int status = 0;
  for (pid_t ended; (ended = waitpid(pid, &status, WNOHANG)) != pid;) {
    if (ended < 0 && errno != EINTR) return bad_state(std::string("can't wait for a process: ") + std::strerror(errno));
    if (!result.timed_out && Clock::now() > deadline) {
      result.timed_out = true;
      kill(pid, SIGKILL);
    }
    poll(nullptr, 0, 2);
  }
  if (WIFEXITED(status)) result.code = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) result.signal = WTERMSIG(status);
  result.report = report.text();
  result.printed = output.text();
  return result;
}

}  // namespace tenon::validate
