#include "tools/bench/profile_report.h"

#include <cstdarg>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "tools/bench/measure.h"

namespace tenon::bench {
namespace {

constexpr int64_t kWarmUp = 3;

RuntimeStats difference(const RuntimeStats& after, const RuntimeStats& before) {
  return {.evals = after.evals - before.evals,
          .plan_hits = after.plan_hits - before.plan_hits,
          .plan_misses = after.plan_misses - before.plan_misses,
          .kernels = after.kernels - before.kernels,
          .reads = after.reads - before.reads,
          .arena_bytes = after.arena_bytes};
}

// The least time that the machine could need for the row's calls, over what they took.
double share_of_peak(const Profile::Row& r, const Limits& l) {
  return r.cost.least_seconds(l.flops_per_second, l.bytes_per_second) * static_cast<double>(r.calls) /
         r.seconds;
}

[[gnu::format(printf, 2, 3)]] void append(std::string& to, const char* format, ...) {
  char text[512];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  to += text;
}

std::string shortened(const std::string& text, size_t most) {
  return text.size() <= most ? text : text.substr(0, most - 2) + "..";
}

}  // namespace

Result<ProfiledSteps> profile_steps(Runtime& runtime, Profile& profile, int64_t steps,
                                    const std::function<Status(int64_t)>& step) {
  for (int64_t i = 0; i < kWarmUp; ++i) TN_RETURN_IF_ERROR(step(i));
  const RuntimeStats before = runtime.stats();
  Clock::duration total{};
  profile.start();
  for (int64_t i = kWarmUp; i < kWarmUp + steps; ++i) {
    const auto begin = Clock::now();
    const Status status = step(i);
    const auto end = Clock::now();
    TN_RETURN_IF_ERROR(status);
    profile.span("step " + std::to_string(i + 1), begin, end);
    total += end - begin;
  }
  profile.stop();
  const auto n = static_cast<double>(steps);
  ProfiledSteps s{.steps = steps,
                  .step_ms = std::chrono::duration<double, std::milli>(total).count() / n,
                  .kernel_ms = 0,
                  .peak_mb = peak_megabytes(),
                  .stats = difference(runtime.stats(), before),
                  .limits = {}};
  for (const Profile::Row& r : profile.rows()) s.kernel_ms += r.seconds * 1e3 / n;
  TN_ASSIGN(s.limits, measure_limits(runtime.backend().threads()));
  return s;
}

std::string table_of(const Profile& profile, const ProfiledSteps& s) {
  const auto per_step = [&](double total) { return total / static_cast<double>(s.steps); };
  std::string out;
  append(out, "%9s %6s %7s %9s %8s %7s  %s\n", "ms/step", "share", "calls", "GFLOP/s", "GB/s", "of peak",
         "kernel");
  const auto rows = profile.rows();
  int64_t rest = 0;  // kinds of kernels that together take no time to speak of
  double rest_ms = 0, rest_calls = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    const Profile::Row& r = rows[i];
    const double calls = static_cast<double>(r.calls), ms = per_step(r.seconds * 1e3);
    if (i >= 20 && ms < 0.002 * s.step_ms) {
      ++rest, rest_ms += ms, rest_calls += calls;
      continue;
    }
    append(out, "%9.3f %5.1f%% %7.4g %9.1f %8.1f %6.0f%%  %s  %s  %s\n", ms, 100 * ms / s.step_ms,
           per_step(calls), r.cost.flops * calls / r.seconds * 1e-9, r.cost.bytes * calls / r.seconds * 1e-9,
           100 * share_of_peak(r, s.limits), r.kernel.c_str(), shortened(r.ops, 60).c_str(),
           r.shapes.c_str());
  }
  if (rest > 0)
    append(out, "%9.3f %5.1f%% %7.4g %26s  %lld more kinds of kernels\n", rest_ms, 100 * rest_ms / s.step_ms,
           per_step(rest_calls), "", static_cast<long long>(rest));
  const double outside = s.step_ms - s.kernel_ms;
  append(out, "%9.3f %5.1f%% %34s  outside kernels: data, graph, derivatives, plan, launches\n", outside,
         100 * outside / s.step_ms, "");
  append(out, "%9.3f 100.0%% %34s  a step, the mean of %lld\n\n", s.step_ms, "",
         static_cast<long long>(s.steps));

  const Profile::Counts& c = profile.counts();
  const auto n = [&](int64_t total) { return per_step(static_cast<double>(total)); };
  append(out,
         "a step: %.4g kernels, %.4g plan hits, %.4g plan misses, %.4g reads on the way, %.4g "
         "synchronisations, ",
         n(c.kernels), n(s.stats.plan_hits), n(s.stats.plan_misses), n(s.stats.reads), n(c.synchronisations));
  append(out, "%.4g uploads, %.4g downloads, %.4g allocations (%.3g MB)\n", n(c.uploads), n(c.downloads),
         n(c.allocations), per_step(c.allocated_bytes) / (1 << 20));
  append(out, "memory: arena %.1f MB, process %.0f MB at most\n",
         static_cast<double>(s.stats.arena_bytes) / (1 << 20), s.peak_mb);
  append(
      out,
      "peak, measured here: %.0f GFLOP/s (f32 product), %.1f GB/s; `of peak` is the nearer of the two, above "
      "100 %% when data came from a cache\n",
      s.limits.flops_per_second * 1e-9, s.limits.bytes_per_second * 1e-9);
  return out;
}

nlohmann::ordered_json json_of(const Profile& profile, const ProfiledSteps& s) {
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const Profile::Row& r : profile.rows())
    rows.push_back({{"kernel", r.kernel},
                    {"ops", r.ops},
                    {"shapes", r.shapes},
                    {"calls", r.calls},
                    {"ms", r.seconds * 1e3},
                    {"flops", r.cost.flops},
                    {"bytes", r.cost.bytes},
                    {"share_of_peak", share_of_peak(r, s.limits)}});
  const Profile::Counts& c = profile.counts();
  return {{"steps", s.steps},
          {"step_ms", s.step_ms},
          {"kernel_ms", s.kernel_ms},
          {"kernels", c.kernels},
          {"compiled", c.compiled},
          {"plan_hits", s.stats.plan_hits},
          {"plan_misses", s.stats.plan_misses},
          {"reads", s.stats.reads},
          {"synchronisations", c.synchronisations},
          {"uploads", c.uploads},
          {"downloads", c.downloads},
          {"allocations", c.allocations},
          {"allocated_bytes", c.allocated_bytes},
          {"arena_bytes", s.stats.arena_bytes},
          {"peak_mb", s.peak_mb},
          {"peak_flops_per_second", s.limits.flops_per_second},
          {"peak_bytes_per_second", s.limits.bytes_per_second},
          {"rows", std::move(rows)}};
}

}  // namespace tenon::bench
