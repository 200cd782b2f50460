// Runs the real program as a child process, as a person would.
#pragma once

#include <sys/types.h>

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/io/temp_folder.h"

namespace tenon::test {

struct Outcome {
  int code = -1;   // exit code; -1 when a signal ended the program
  int signal = 0;  // that signal; SIGALRM when it ran out of time
  std::string out, err;

  // What a person or a script sees first when something fails: everything on one line.
  std::string all() const;
  nlohmann::json json() const { return nlohmann::json::parse(out); }
};

struct Launch {
  std::map<std::string, std::string> environment = {};  // beside the test's own
  uint64_t largest_file = 0;                            // bytes, 0: no limit; a full disk for one process
  std::string stdout_to = {};                           // a file instead of Outcome::out
  int seconds = 120;
};

// A running program. What it is killed with, and when, is up to the test.
class Child {
 public:
  Child(const std::vector<std::string>& arguments, const Launch& launch);
  ~Child();
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  bool running();
  void signal(int number) const;
  Outcome wait();

 private:
  pid_t pid_ = -1;
  int out_ = -1, err_ = -1, status_ = 0, seconds_ = 0;
  bool ended_ = false;
};

// The program with these arguments, to its end.
Outcome program(const std::vector<std::string>& arguments, const Launch& launch = {});

std::string program_path();
std::string source_path(const std::string& relative);
std::string build_path(const std::string& relative);

// The one line that the program ends with when it is given bad input. Checks that it says so on stderr, in
// one line that begins with "tenon: ", and returns what follows.
std::string complaint(const Outcome& o, int code = 2);

// --- recipes ---
// Three classes of points, 16 hidden units, AdamW; `more` is appended, and later fields win. The device is
// the one under test, one thread so that runs beside each other don't wait.
std::string blobs_recipe(const std::string& more = "");
std::string write_recipe(const TempFolder& folder, const std::string& text,
                         const std::string& name = "recipe.txtpb");

// --- what a run left ---
// Lines of metrics.jsonl.
std::vector<nlohmann::json> metric_lines(const std::string& run);
// step -> value of "step/loss".
std::map<int64_t, double> step_losses(const std::string& run);
// tensors.safetensors of the newest checkpoint.
std::string final_tensors(const std::string& run);
// Names in a folder that a run must not leave: temporary files and half-written checkpoints.
std::vector<std::string> leftovers(const std::string& folder);

}  // namespace tenon::test
