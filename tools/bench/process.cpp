#include "tools/bench/process.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

namespace tenon::bench {

std::string this_program() {
  std::error_code ec;
  return std::filesystem::read_symlink("/proc/self/exe", ec).string();
}

Result<std::unique_ptr<Child>> Child::start(const std::vector<std::string>& arguments,
                                            const Environment& environment, const std::string& log) {
  std::vector<char*> argv;
  for (const std::string& a : arguments) argv.push_back(const_cast<char*>(a.c_str()));
  argv.push_back(nullptr);
  std::vector<std::string> variables;
  for (const auto& [name, value] : environment) variables.push_back(name + "=" + value);
  for (char** e = environ; *e; ++e) {
    const std::string entry = *e, name = entry.substr(0, entry.find('='));
    bool replaced = false;
    for (const auto& v : environment) replaced |= v.first == name;
    if (!replaced) variables.push_back(entry);
  }
  std::vector<char*> envp;
  for (std::string& v : variables) envp.push_back(v.data());
  envp.push_back(nullptr);

  int ends[2];  // ours, the child's: a socket, because writing to one whose other end is gone need not be a
                // signal
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
    return bad_state(std::string("can't make a socket: ") + std::strerror(errno));
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  if (!log.empty())
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, log.c_str(), O_WRONLY | O_CREAT | O_APPEND,
                                     0644);
  pid_t pid = 0;
  const int error = posix_spawnp(&pid, argv[0], &actions, nullptr, argv.data(), envp.data());
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  if (error != 0) {
    close(ends[0]);
    return not_found("can't run '" + arguments[0] + "': " + std::strerror(error));
  }
  return std::unique_ptr<Child>(new Child(pid, ends[0]));
}

Child::~Child() {
  if (pid_ > 0) wait();
}

bool Child::read_more() {
  char buffer[4096];
  ssize_t n = 0;
  while ((n = read(socket_, buffer, sizeof buffer)) < 0 && errno == EINTR) {
  }
  if (n <= 0) return false;
  unread_.append(buffer, static_cast<size_t>(n));
  return true;
}

Result<std::string> Child::ask(const std::string& line) {
  const std::string text = line + "\n";
  for (size_t sent = 0; sent < text.size();) {
    const ssize_t n = send(socket_, text.data() + sent, text.size() - sent, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return bad_state("the program ended before it was asked");
    sent += static_cast<size_t>(n);
  }
  for (;;) {
    for (size_t end; (end = unread_.find('\n')) != std::string::npos;) {
      const std::string answer = unread_.substr(0, end);
      unread_.erase(0, end + 1);
      if (answer.starts_with('{')) return answer;
    }
    if (!read_more()) return bad_state("the program ended without an answer");
  }
}

std::string Child::read_all() {
  shutdown(socket_, SHUT_WR);
  while (read_more()) {
  }
  return std::move(unread_);
}

int Child::wait() {
  shutdown(socket_, SHUT_RDWR);
  close(socket_);
  int status = 0;
  while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace tenon::bench
