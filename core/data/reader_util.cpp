#include "core/data/reader_util.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <set>

#include "core/base/nearest.h"

namespace tenon {
namespace {

// A class number above this is a mistake (an id, a price) and would make an absurd output layer.
constexpr int64_t kMaxClasses = 1'000'000;

std::optional<int64_t> whole(std::string_view s) {
  const auto v = parse_number(s);
  if (!v || std::floor(*v) != *v || std::abs(*v) > 9e15) return std::nullopt;
  return static_cast<int64_t>(*v);
}

}  // namespace

std::string at_line(std::string_view path, int64_t line) {
  return std::string(path) + ":" + std::to_string(line) + ": ";
}

std::string_view trim(std::string_view s) {
  constexpr std::string_view spaces = " \t\r\n\v\f";
  const size_t begin = s.find_first_not_of(spaces);
  if (begin == std::string_view::npos) return {};
  return s.substr(begin, s.find_last_not_of(spaces) - begin + 1);
}

std::optional<double> parse_number(std::string_view s) {
  s = trim(s);
  if (s.size() > 1 && s[0] == '+' && s[1] != '-') s.remove_prefix(1);
  double v = 0;
  const auto [end, ec] = std::from_chars(s.data(), s.data() + s.size(), v);
  if (ec != std::errc{} || end != s.data() + s.size() || !std::isfinite(v)) return std::nullopt;
  return v;
}

Result<Labels> encode_labels(const std::vector<std::string_view>& labels,
                             const std::vector<std::string>& known, const std::vector<Place>& where,
                             std::string_view column) {
  Labels out;
  out.values = HostArray(DType::i32, Shape{static_cast<int64_t>(labels.size())});
  const auto codes = out.values.as<int32_t>();
  std::vector<std::string> names(labels.size());  // in one spelling: "1", "+1" and "1.0" are one class
  bool numeric = true;
  for (size_t i = 0; i < labels.size(); ++i) {
    const auto v = whole(labels[i]);
    names[i] = v ? std::to_string(*v) : std::string(trim(labels[i]));
    if (v) continue;
    if (parse_number(labels[i]))
      return invalid(at_line(where[i].path, where[i].line) + "label '" + names[i] + "' in column '" +
                     std::string(column) +
                     "' is not a whole number; for a numeric target set target_kind: \"number\"");
    numeric = false;
  }
  if (!known.empty()) {
    std::map<std::string_view, int32_t> code;
    for (size_t c = 0; c < known.size(); ++c) code.emplace(known[c], static_cast<int32_t>(c));
    for (size_t i = 0; i < names.size(); ++i) {
      const auto it = code.find(names[i]);
      if (it == code.end())
        return invalid(at_line(where[i].path, where[i].line) + "label '" + names[i] + "' in column '" +
                       std::string(column) + "' is not a class of the training part" +
                       did_you_mean(names[i], known));
      codes[i] = it->second;
    }
    out.names = known;
    return out;
  }
  if (numeric && !names.empty()) {
    std::set<int64_t> values;
    for (const std::string& n : names) values.insert(*whole(n));
    if (*values.begin() == 0) {
      if (*values.rbegin() >= kMaxClasses)
        return invalid("column '" + std::string(column) + "' has label " + std::to_string(*values.rbegin()) +
                       ": not a class number; for a numeric target set target_kind: \"number\"");
      for (int64_t c = 0; c <= *values.rbegin(); ++c) out.names.push_back(std::to_string(c));
      for (size_t i = 0; i < names.size(); ++i) codes[i] = static_cast<int32_t>(*whole(names[i]));
      return out;
    }
    for (int64_t v : values) out.names.push_back(std::to_string(v));
  } else {
    const std::set<std::string> values(names.begin(), names.end());
    out.names.assign(values.begin(), values.end());
  }
  std::map<std::string_view, int32_t> code;
  for (size_t c = 0; c < out.names.size(); ++c) code.emplace(out.names[c], static_cast<int32_t>(c));
  for (size_t i = 0; i < names.size(); ++i) codes[i] = code.at(names[i]);
  return out;
}

Status add_text(Dataset& data, const std::string& name, const std::vector<std::string_view>& strings,
                int64_t length) {
  if (length == 0) {
    length = 1;
    for (std::string_view s : strings) length = std::max(length, static_cast<int64_t>(s.size()));
  }
  const auto n = static_cast<int64_t>(strings.size());
  HostArray tokens(DType::i32, Shape{n, length}), lengths(DType::i32, Shape{n});
  const auto t = tokens.as<int32_t>();
  for (size_t i = 0; i < strings.size(); ++i) {
    const size_t kept = std::min(strings[i].size(), static_cast<size_t>(length));
    for (size_t j = 0; j < kept; ++j)
      t[i * static_cast<size_t>(length) + j] = static_cast<unsigned char>(strings[i][j]);
    lengths.as<int32_t>()[i] = static_cast<int32_t>(kept);
  }
  TN_RETURN_IF_ERROR(data.add(name, std::move(tokens)));
  return data.add(name + "_length", std::move(lengths));
}

}  // namespace tenon
