#include "tests/e2e/program.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <thread>

namespace tenon::test {
namespace {

namespace fs = std::filesystem;

std::string read_all(int file) {
  std::string text;
  char buffer[4096];
  lseek(file, 0, SEEK_SET);
  for (ssize_t n; (n = read(file, buffer, sizeof buffer)) > 0;) text.append(buffer, static_cast<size_t>(n));
  close(file);
  return text;
}

const char* device() {
  const char* device = std::getenv("TENON_TEST_DEVICE");
  return device ? device : "cpu";
}

}  // namespace

std::string Outcome::all() const {
  return "exit code " + std::to_string(code) + ", signal " + std::to_string(signal) + "\n--- stdout\n" + out +
         "--- stderr\n" + err;
}

// Between fork and exec only calls that are safe there; what they need is made before.
Child::Child(const std::vector<std::string>& arguments, const Launch& launch) : seconds_(launch.seconds) {
  const std::string path = program_path();
  std::vector<char*> argv{const_cast<char*>(path.c_str())};
  for (const std::string& a : arguments) argv.push_back(const_cast<char*>(a.c_str()));
  argv.push_back(nullptr);
  std::vector<std::string> variables;
  for (const auto& [name, value] : launch.environment) variables.push_back(name + "=" + value);
  for (char** e = environ; *e; ++e) {
    const std::string entry = *e;
    if (!launch.environment.contains(entry.substr(0, entry.find('=')))) variables.push_back(entry);
  }
  std::vector<char*> envp;
  for (std::string& v : variables) envp.push_back(v.data());
  envp.push_back(nullptr);
  out_ = launch.stdout_to.empty() ? memfd_create("stdout", MFD_CLOEXEC)
                                  : open(launch.stdout_to.c_str(), O_WRONLY | O_CLOEXEC);
  err_ = memfd_create("stderr", MFD_CLOEXEC);
  REQUIRE(out_ >= 0);
  REQUIRE(err_ >= 0);
  pid_ = fork();
  REQUIRE(pid_ >= 0);
  if (pid_ > 0) return;
  dup2(out_, STDOUT_FILENO);
  dup2(err_, STDERR_FILENO);
  if (launch.largest_file > 0) {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{launch.largest_file, launch.largest_file};
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  execve(path.c_str(), argv.data(), envp.data());
  _exit(127);
}

Child::~Child() {
  if (!ended_ && pid_ > 0) {
    kill(pid_, SIGKILL);
    waitpid(pid_, &status_, 0);
  }
  if (!ended_ && out_ >= 0) close(out_), close(err_);
}

bool Child::running() {
  if (!ended_ && waitpid(pid_, &status_, WNOHANG) == pid_) ended_ = true;
  return !ended_;
}

void Child::signal(int number) const { kill(pid_, number); }

Outcome Child::wait() {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(seconds_);
  bool late = false;
  while (running()) {
    if (!late && std::chrono::steady_clock::now() > deadline) {
      late = true;
      signal(SIGKILL);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  Outcome o;
  if (WIFEXITED(status_)) o.code = WEXITSTATUS(status_);
  if (WIFSIGNALED(status_)) o.signal = late ? SIGALRM : WTERMSIG(status_);
  o.out = read_all(out_);
  o.err = read_all(err_);
  return o;
}

Outcome program(const std::vector<std::string>& arguments, const Launch& launch) {
  return Child(arguments, launch).wait();
}

std::string program_path() { return build_path("tenon"); }
std::string source_path(const std::string& relative) {
  return std::string(TENON_SOURCE_DIR) + "/" + relative;
}
std::string build_path(const std::string& relative) { return std::string(TENON_BINARY_DIR) + "/" + relative; }

std::string complaint(const Outcome& o, int code) {
  INFO(o.all());
  CHECK(o.code == code);
  CHECK(o.err.starts_with("tenon: "));
  CHECK(o.err.ends_with("\n"));
  CHECK(std::count(o.err.begin(), o.err.end(), '\n') == 1);
  return o.err.substr(std::min<size_t>(7, o.err.size()));
}

std::string blobs_recipe(const std::string& more) {
  return R"(data { format: "synthetic" options { kind: "blobs" n: 200 } test_options { part: 1 n: 100 } }
model { layer { linear { units: 16 } } layer { relu {} } layer { linear {} } }
loss { id: "cross_entropy" }
optimizer { id: "adamw" options { lr: 0.01 } }
train { steps: 40 batch_size: 32 log_every: 1 }
)" + more;
}

std::string write_recipe(const TempFolder& folder, const std::string& text, const std::string& name) {
  const std::string path = folder.file(name);
  spill(path, text + "device: \"" + device() + "\" threads: 1\n");
  return path;
}

std::vector<nlohmann::json> metric_lines(const std::string& run) {
  std::vector<nlohmann::json> lines;
  std::istringstream in(slurp(run + "/metrics.jsonl"));
  for (std::string line; std::getline(in, line);) lines.push_back(nlohmann::json::parse(line));
  return lines;
}

std::map<int64_t, double> step_losses(const std::string& run) {
  std::map<int64_t, double> losses;
  for (const auto& line : metric_lines(run))
    if (line.contains("step/loss")) {
      const bool is_new = losses.emplace(line["step"], line["step/loss"]).second;
      CHECK(is_new);
    }
  return losses;
}

std::string final_tensors(const std::string& run) {
  std::string name = slurp(run + "/checkpoints/LATEST");
  name.erase(name.find_last_not_of('\n') + 1);
  return slurp(run + "/checkpoints/" + name + "/tensors.safetensors");
}

std::vector<std::string> leftovers(const std::string& folder) {
  std::vector<std::string> found;
  if (!fs::exists(folder)) return found;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(".") || name.find("tmp") != std::string::npos)
      found.push_back(entry.path().string());
  }
  return found;
}

}  // namespace tenon::test
