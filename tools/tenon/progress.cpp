#include "tools/tenon/progress.h"

#include <unistd.h>

#include <algorithm>
#include <csignal>

namespace tenon::cli {
namespace {

volatile std::sig_atomic_t interrupted = 0;

void on_interrupt(int) {
  interrupted = 1;
  std::signal(SIGINT, SIG_DFL);
}

std::string number(double v, const char* format = "%.4g") {
  char text[32];
  std::snprintf(text, sizeof text, format, v);
  return text;
}

std::string describe(const MetricValues& metrics) {
  std::string s;
  for (const auto& [name, value] : metrics) s += (s.empty() ? "" : "  ") + name + " " + number(value);
  return s;
}

}  // namespace

std::string duration(double seconds) {
  char text[48];
  const auto s = static_cast<long long>(seconds + 0.5);
  if (seconds < 60) std::snprintf(text, sizeof text, "%.1f s", seconds);
  else if (s < 3600) std::snprintf(text, sizeof text, "%lld:%02lld", s / 60, s % 60);
  else std::snprintf(text, sizeof text, "%lld:%02lld:%02lld", s / 3600, s / 60 % 60, s % 60);
  return text;
}

Progress::Progress(std::FILE* out, int64_t log_every)
    : out_(out), terminal_(isatty(fileno(out)) != 0), log_every_(log_every), started_(std::chrono::steady_clock::now()) {}

void Progress::catch_interrupts() { std::signal(SIGINT, on_interrupt); }

bool Progress::cancelled() { return interrupted != 0; }

void Progress::clear_line() {
  if (!line_open_) return;
  std::fputs("\r\033[K", out_);
  line_open_ = false;
}

void Progress::draw(const StepInfo& s) {
  const double done = static_cast<double>(s.step - first_step_ + 1);
  const double left = static_cast<double>(s.total_steps - s.step);
  const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - started_;
  std::string line;
  if (terminal_) {
    constexpr int kWidth = 24;
    const auto filled = static_cast<int>(kWidth * s.step / std::max<int64_t>(s.total_steps, 1));
    line = "[" + std::string(static_cast<size_t>(filled), '=') + std::string(static_cast<size_t>(kWidth - filled), ' ') + "] ";
  }
  line += "step " + std::to_string(s.step) + "/" + std::to_string(s.total_steps) + "  loss " + number(s.loss);
  for (const auto& [name, value] : s.parts) line += "  " + name + " " + number(value);
  line += "  " + number(s.samples_per_second, "%.0f") + " samples/s  " + duration(spent.count() / done * left) + " left";
  std::fputs(line.c_str(), out_);
}

void Progress::on_step(const StepInfo& s) {
  if (first_step_ < 0) first_step_ = s.step;
  const auto now = std::chrono::steady_clock::now();
  const bool last = s.step == s.total_steps;
  if (terminal_) {
    if (!last && now - drawn_ < std::chrono::milliseconds(100)) return;
    drawn_ = now;
    clear_line();
    draw(s);
    line_open_ = true;
  } else {
    const int64_t every = log_every_ > 0 ? log_every_ : std::max<int64_t>(1, s.total_steps / 20);
    if (!last && s.step % every != 0) return;
    draw(s);
    std::fputc('\n', out_);
  }
  std::fflush(out_);
}

void Progress::on_evaluation(int64_t step, const MetricValues& metrics) {
  on_message("step " + std::to_string(step) + "  " + describe(metrics));
}

void Progress::on_checkpoint(int64_t step, const std::string& path) {
  if (!terminal_) return;
  on_message("step " + std::to_string(step) + "  checkpoint " + path);
}

void Progress::on_message(const std::string& text) {
  clear_line();
  std::fprintf(out_, "%s\n", text.c_str());
  std::fflush(out_);
}

void Progress::finish() {
  if (line_open_) std::fputc('\n', out_);
  line_open_ = false;
}

}  // namespace tenon::cli
