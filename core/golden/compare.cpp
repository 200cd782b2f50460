#include <cmath>

#include "core/golden/golden.h"

namespace tenon::golden {

bool CaseResult::passed() const {
  return status.is_ok() && std::all_of(values.begin(), values.end(), [](const Comparison& c) { return c.passed; });
}

Comparison compare(const std::string& key, const Value& got, const Expected& expected, double rtol, double atol) {
  Comparison c;
  c.key = key;
  const auto* text = std::get_if<std::string>(&expected.value);
  const auto* got_text = std::get_if<std::string>(&got);
  if (text || got_text) {
    if (!text || !got_text) {
      c.problem = text ? "a number, where text is expected" : "text, where a number is expected";
      return c;
    }
    c.got_text = *got_text;
    c.expected_text = *text;
    c.passed = *text == *got_text;
    return c;
  }
  const HostArray &e = std::get<HostArray>(expected.value), &g = std::get<HostArray>(got);
  // A single number may be written as a number or as a vector of one.
  const bool single = e.numel() == 1 && g.numel() == 1 && e.shape().rank() <= 1 && g.shape().rank() <= 1;
  if (!single && (expected.is_tensor ? g.shape() != e.shape() : g.numel() != e.numel())) {
    c.problem = "has shape " + to_string(g.shape()) + ", expected is " + to_string(e.shape());
    return c;
  }
  // A whole number may be written for a real one.
  const bool exact = expected.exact && !is_floating(g.dtype());
  c.elements = e.numel();
  c.passed = true;
  double worst = -1;
  for (int64_t i = 0; i < e.numel(); ++i) {
    const double a = g.at(i), b = e.at(i), off = a == b || (std::isnan(a) && std::isnan(b)) ? 0 : std::abs(a - b);
    const double allowed = exact ? 0 : atol + rtol * std::abs(b);
    const bool ok = off <= allowed;  // false for NaN
    c.passed = c.passed && ok;
    const double badness = off == 0 ? 0 : std::isnan(off) ? INFINITY : allowed > 0 ? off / allowed : INFINITY;
    if (badness <= worst) continue;
    worst = badness;
    c.place = i;
    c.got = a;
    c.expected = b;
    c.absolute = off;
    c.relative = b != 0 ? off / std::abs(b) : off == 0 ? 0 : INFINITY;
    c.tolerance = allowed;
  }
  return c;
}

}  // namespace tenon::golden
