// Options: defaults, ends of ranges, choices, and random values.
#include <algorithm>
#include <cmath>

#include "core/base/random.h"
#include "core/plugin/options.h"
#include "tools/validate/check.h"
#include "tools/validate/procedure.h"

namespace tenon::validate {
namespace {

constexpr int kRandomTrials = 24;
constexpr double kNudge = 1e-6;  // from an end that is not part of the range

std::string text_of(const OptionValue& v) {
  return std::visit(
      [](const auto& x) -> std::string {
        using T = std::decay_t<decltype(x)>;
        if constexpr (std::is_same_v<T, bool>) return x ? "true" : "false";
        else if constexpr (std::is_same_v<T, std::string>) return "'" + x + "'";
        else if constexpr (std::is_same_v<T, double>) {
          char text[32];
          std::snprintf(text, sizeof text, "%.9g", x);
          return text;
        } else if constexpr (std::is_arithmetic_v<T>) return std::to_string(x);
        else return "a list of " + std::to_string(x.size());
      },
      v);
}
std::string text_of(const Options& options) {
  std::string out;
  for (const auto& [name, value] : options) out += (out.empty() ? "" : ", ") + name + " = " + text_of(value);
  return out.empty() ? "its defaults" : out;
}

// A step with these options: it may be refused, but not by a defect.
Status try_options(const Bench& bench, const Options& options) {
  bench.doing("with " + text_of(options));
  const auto steps = bench.steps(options, 1);
  if (steps || (steps.status().code() != Code::internal && steps.status().message().find("without a message") == std::string::npos)) return Status::ok();
  return invalid("with " + text_of(options) + ": " + steps.status().message());
}

// The default as a recipe would give it.
Options as_given(const tn_option& o) {
  const tn_attr attr{o.name, o.fallback};
  return options_of(&attr, 1);
}

OptionValue number(const tn_option& o, double v) {
  return o.type == TN_VALUE_I64 ? OptionValue(static_cast<int64_t>(v)) : OptionValue(v);
}

// `counts`: the upper ends of integers, too; a procedure would take for ever.
std::vector<OptionValue> ends_of(const tn_option& o, bool counts) {
  std::vector<OptionValue> out;
  const double nudge = o.type == TN_VALUE_I64 ? 1 : kNudge;
  switch (o.type) {
    case TN_VALUE_BOOL: return {true, false};
    case TN_VALUE_STR:
      for (uint32_t i = 0; TN_HAS(&o, choices) && i < o.n_choices; ++i) out.emplace_back(std::string(o.choices[i]));
      return out;
    case TN_VALUE_I64:
    case TN_VALUE_F64:
      if (o.flags & TN_OPTION_MIN) out.push_back(number(o, o.flags & TN_OPTION_MIN_OPEN ? o.min + nudge * std::max(1.0, std::abs(o.min)) : o.min));
      if ((o.flags & TN_OPTION_MAX) && (counts || o.type == TN_VALUE_F64)) out.push_back(number(o, o.flags & TN_OPTION_MAX_OPEN ? o.max - nudge * std::max(1.0, std::abs(o.max)) : o.max));
      return out;
    default: return out;
  }
}

// Inside the range, and near the default, or that of `counts`, where an end is missing.
OptionValue random_value(const tn_option& o, Philox& random, const Options& counts = {}) {
  const auto count = counts.find(o.name);
  const double at = count != counts.end() ? static_cast<double>(std::get<int64_t>(count->second))
                    : !has_default(o)     ? 1
                    : o.type == TN_VALUE_I64 ? static_cast<double>(o.fallback.as.i64) : o.fallback.as.f64;
  const double scale = std::isfinite(at) ? std::max(1.0, std::abs(at)) : 1;
  switch (o.type) {
    case TN_VALUE_BOOL: return random.uniform() < 0.5;
    case TN_VALUE_STR: return std::string(o.choices[random.below(o.n_choices)]);
    case TN_VALUE_I64:
    case TN_VALUE_F64: {
      const bool low = o.flags & TN_OPTION_MIN, high = o.flags & TN_OPTION_MAX, whole = o.type == TN_VALUE_I64;
      const double inside = std::clamp(random.uniform(), 1e-3, 0.999);
      double v = at + scale * random.normal();
      if (whole) v = std::round(at + 4 * random.normal());  // counts stay small
      else if (low && high) v = o.min + inside * (o.max - o.min);
      else if (low) v = o.min - scale * std::log(inside);
      else if (high) v = o.max + scale * std::log(inside);
      if (whole && low) v = std::max(v, o.min + 1);  // the ends themselves are another check's
      if (whole && high) v = std::min(v, std::max(o.min, o.max - 1));
      return number(o, v);
    }
    default: return {};
  }
}

bool can_vary(const tn_option& o) {
  return o.type == TN_VALUE_BOOL || o.type == TN_VALUE_I64 || o.type == TN_VALUE_F64 || (o.type == TN_VALUE_STR && TN_HAS(&o, choices) && o.n_choices > 0);
}

std::string plural(size_t n, const char* what) { return std::to_string(n) + " " + what + (n == 1 ? "" : "s"); }

}  // namespace

Verdict check_defaults(const Bench& bench) {
  const std::vector<const tn_option*> schema = schema_of(bench.descriptor);
  for (const tn_option* o : schema) {
    if (!TN_HAS(o, help)) return failed("option '" + std::string(o->name) + "' has no help");
    if (!has_default(*o)) continue;
    Options given = as_given(*o);
    for (const tn_option* other : schema)  // values for what must be given
      if ((other->flags & TN_OPTION_REQUIRED) && other != o) {
        Philox random(bench.seed);
        given[other->name] = random_value(*other, random);
      }
    const auto checked = PluginOptions::check(bench.who(), schema.data(), static_cast<uint32_t>(schema.size()), given);
    if (!checked) return failed("the default breaks the option's own rule: " + checked.status().message());
  }
  return ok(bench.is_procedure() ? "" : plural(schema.size(), "option") + ", " + plural(bench.wanted.size(), "input"));
}

Verdict check_edges(const Bench& bench) {
  size_t n = 0;
  for (const tn_option* o : schema_of(bench.descriptor))
    for (const OptionValue& v : ends_of(*o, !bench.is_procedure())) {
      if (Status s = try_options(bench, {{o->name, v}}); !s.is_ok()) return failed(s.message());
      ++n;
    }
  return n == 0 ? not_applicable("it has no option with ends or choices") : ok(plural(n, "value"));
}

Verdict check_random(const Bench& bench) {
  const std::string seed = "seed " + std::to_string(bench.seed);
  std::vector<const tn_option*> schema = schema_of(bench.descriptor);
  std::erase_if(schema, [](const tn_option* o) { return !can_vary(*o); });
  if (schema.empty()) return not_applicable("it has no option that could be drawn");
  Philox random(bench.seed, "options");
  const int trials = bench.is_procedure() ? 3 : kRandomTrials;
  const Options counts = bench.is_procedure() ? small_counts(bench.descriptor) : Options{};
  for (int trial = 0; trial < trials; ++trial) {
    Options options;
    for (const tn_option* o : schema)
      if ((o->flags & TN_OPTION_REQUIRED) || schema.size() == 1 || random.uniform() < 0.6) options[o->name] = random_value(*o, random, counts);
    if (Status s = try_options(bench, options); !s.is_ok()) return failed(s.message() + " (" + seed + ")");
  }
  return ok(plural(static_cast<size_t>(trials), "draw") + ", " + seed);
}

}  // namespace tenon::validate
