// The nearest name to a mistyped one, for "did you mean" in error messages.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

namespace tenon {

// Levenshtein distance, case ignored for ASCII letters.
inline size_t edit_distance(std::string_view a, std::string_view b) {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replace = diagonal + (lower(a[i - 1]) != lower(b[j - 1]));
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, replace});
    }
  }
  return row[b.size()];
}

// The name closest to `wrong`, or "" when none is near enough to be a likely typo. A name that begins with
// `wrong` ("warmup" of "warmup_steps") is near too; one without a letter in common is not, however short.
template <class Names>
std::string nearest(std::string_view wrong, const Names& names) {
  std::string best;
  const size_t limit = std::max<size_t>(2, wrong.size() / 3);
  size_t best_distance = limit + 1;
  for (const auto& name : names) {
    const std::string_view n(name);
    size_t d = edit_distance(wrong, n);
    if (wrong.size() >= 3 && n.substr(0, wrong.size()) == wrong) d = std::min(d, limit);
    if (d < best_distance && d < std::max(wrong.size(), n.size())) {
      best_distance = d;
      best = std::string(name);
    }
  }
  return best;
}

// " (did you mean 'x'?)", or when nothing is near: " (there are: a, b, c)", of at most 20 names.
template <class Names>
std::string did_you_mean(std::string_view wrong, const Names& names) {
  if (const std::string n = nearest(wrong, names); !n.empty()) return " (did you mean '" + n + "'?)";
  std::string all;
  size_t count = 0;
  for (const auto& name : names) {
    if (++count > 20) {
      all += ", ...";
      break;
    }
    all += (all.empty() ? "" : ", ") + std::string(name);
  }
  return all.empty() ? "" : " (there are: " + all + ")";
}

}  // namespace tenon
