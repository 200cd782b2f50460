#include "core/train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <span>

#include "core/base/nearest.h"

namespace tenon {
namespace {

using Curve = std::function<double(int64_t step, int64_t warmup, int64_t total)>;

// How far between the end of the warm-up and the end of the run.
double progress(int64_t step, int64_t warmup, int64_t total) {
  if (total <= warmup) return 1;
  return std::clamp(static_cast<double>(step - warmup) / static_cast<double>(total - warmup), 0.0, 1.0);
}

// From a (at t = 0) to b (at t = 1) along half a cosine.
double anneal(double a, double b, double t) { return b + (a - b) * (1 + std::cos(std::numbers::pi * t)) / 2; }

Result<Curve> make_constant(OptionBinder& bind) {
  TN_RETURN_IF_ERROR(bind.finish());
  return Curve([](int64_t, int64_t, int64_t) { return 1.0; });
}

Result<double> min_factor(OptionBinder& bind) {
  double least = 0;
  TN_RETURN_IF_ERROR(bind.get("min_factor", least).finish());
  if (!(least >= 0 && least <= 1)) return invalid("option 'min_factor' must be in 0 .. 1");
  return least;
}

Result<Curve> make_linear(OptionBinder& bind) {
  TN_ASSIGN(const double least, min_factor(bind));
  return Curve([least](int64_t s, int64_t w, int64_t t) { return 1 - (1 - least) * progress(s, w, t); });
}

Result<Curve> make_cosine(OptionBinder& bind) {
  TN_ASSIGN(const double least, min_factor(bind));
  return Curve([least](int64_t s, int64_t w, int64_t t) { return anneal(1, least, progress(s, w, t)); });
}

Result<Curve> make_step(OptionBinder& bind) {
  double gamma = 0.1;
  int64_t every = 0;
  std::vector<double> milestones;
  TN_RETURN_IF_ERROR(bind.get("gamma", gamma).get("every", every).get("milestones", milestones).finish());
  if (!(gamma > 0 && std::isfinite(gamma))) return invalid("option 'gamma' must be positive");
  if (every < 0) return invalid("option 'every' must be at least 1");
  if ((every > 0) == !milestones.empty())
    return invalid("schedule 'step' needs either 'every' (steps) or 'milestones' (a list of steps)");
  return Curve([=](int64_t s, int64_t, int64_t) {
    const auto passed = every > 0 ? s / every
                                  : std::count_if(milestones.begin(), milestones.end(),
                                                  [&](double m) { return m <= static_cast<double>(s); });
    return std::pow(gamma, static_cast<double>(passed));
  });
}

Result<Curve> make_inverse(OptionBinder& bind) {
  double gamma = 0.001, power = 0.75;
  TN_RETURN_IF_ERROR(bind.get("gamma", gamma).get("power", power).finish());
  if (!(gamma > 0 && std::isfinite(gamma) && power > 0 && std::isfinite(power))) return invalid("options 'gamma' and 'power' must be positive");
  return Curve([=](int64_t s, int64_t w, int64_t) { return std::pow(1 + gamma * static_cast<double>(s - w), -power); });
}

Result<Curve> make_one_cycle(OptionBinder& bind) {
  double pct_start = 0.3, div = 25, final_div = 1e4;
  TN_RETURN_IF_ERROR(
      bind.get("pct_start", pct_start).get("div_factor", div).get("final_div_factor", final_div).finish());
  if (!(pct_start >= 0 && pct_start <= 1)) return invalid("option 'pct_start' must be in 0 .. 1");
  if (!(div > 0 && final_div > 0))
    return invalid("options 'div_factor' and 'final_div_factor' must be positive");
  return Curve([=](int64_t step, int64_t, int64_t total) {
    const double first = 1 / div, last = first / final_div;
    const double peak = pct_start * static_cast<double>(total) - 1, end = static_cast<double>(total) - 1;
    const double s = std::min(static_cast<double>(step), end);
    if (s <= peak) return anneal(first, 1, peak > 0 ? s / peak : 1);
    return end > peak ? anneal(1, last, (s - peak) / (end - peak)) : last;
  });
}

struct Info {
  std::string_view id;
  Result<Curve> (*make)(OptionBinder& bind);
  bool warms_up, has_total;
};
constexpr Info kSchedules[] = {{"constant", make_constant, true, false},
                               {"linear", make_linear, true, true},
                               {"cosine", make_cosine, true, true},
                               {"step", make_step, true, false},
                               {"inverse", make_inverse, true, false},
                               {"one_cycle", make_one_cycle, false, true}};

}  // namespace

std::vector<std::string_view> schedule_ids() {
  std::vector<std::string_view> ids;
  for (const Info& s : kSchedules) ids.push_back(s.id);
  return ids;
}

Result<Schedule> Schedule::make(std::string_view id, const Options& options) {
  const auto* info =
      std::find_if(std::begin(kSchedules), std::end(kSchedules), [&](const Info& s) { return s.id == id; });
  if (info == std::end(kSchedules))
    return invalid("no schedule '" + std::string(id) + "'" + did_you_mean(id, schedule_ids()));
  Schedule schedule;
  OptionBinder bind(options);
  if (info->warms_up) bind.get("warmup_steps", schedule.warmup_);
  if (info->has_total) bind.get("total_steps", schedule.total_);
  Result<Curve> curve = info->make(bind);
  if (!curve) return std::move(curve).status().at("schedule '" + std::string(id) + "'");
  if (schedule.warmup_ < 0 || schedule.total_ < 0)
    return invalid("schedule '" + std::string(id) + "': steps can't be negative");
  schedule.after_warmup_ = std::move(curve).value();
  return schedule;
}

double Schedule::factor(int64_t step, int64_t total) const {
  if (step < warmup_) return static_cast<double>(step + 1) / static_cast<double>(warmup_ + 1);
  return after_warmup_ ? after_warmup_(step, warmup_, total_ > 0 ? total_ : total) : 1;
}

}  // namespace tenon
