// Programs run from this one.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/base/status.h"

namespace tenon::bench {

using Environment = std::vector<std::pair<std::string, std::string>>;

// A running program that is asked on its standard input, a line each time, and answers with a line that
// begins with
// '{' (other lines are passed over). `arguments[0]` is looked up in PATH; `environment` is added to this
// process's own.
class Child {
 public:
  // `log`: a file that gets what the program writes to stderr ("": this process's stderr). Error: it can't be
  // started.
  static Result<std::unique_ptr<Child>> start(const std::vector<std::string>& arguments,
                                              const Environment& environment = {},
                                              const std::string& log = "");
  ~Child();  // ends its input and waits
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  // The answer. Error (state): it ended, or ends, without one.
  Result<std::string> ask(const std::string& line);
  // All that it writes until it ends, and its exit code (128 + n when signal n ended it).
  std::string read_all();
  int wait();

 private:
  Child(pid_t pid, int socket) : pid_(pid), socket_(socket) {}
  bool read_more();
  pid_t pid_;
  int socket_;
  std::string unread_;
};

// The path of the running program.
std::string this_program();

}  // namespace tenon::bench
