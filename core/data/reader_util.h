// What several readers share: numbers in text, lines, class labels, strings as byte tokens.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/data/dataset.h"

namespace tenon {

// "path:line: "
std::string at_line(std::string_view path, int64_t line);

std::string_view trim(std::string_view s);

// A whole string as a number: no rest, surrounding spaces and a leading + allowed. "inf" and "nan" are not
// numbers here.
std::optional<double> parse_number(std::string_view s);

// Calls f(line, number) for each line (from 1) without its end (\n or \r\n); stops at the first error.
template <class F>
Status for_each_line(std::string_view text, F&& f) {
  int64_t number = 0;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text = end == std::string_view::npos ? std::string_view{} : text.substr(end + 1);
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    TN_RETURN_IF_ERROR(f(line, ++number));
  }
  return Status::ok();
}

// Class labels as text -> 0 .. C-1, i32 [N], and the names of the classes. With `known` names (not empty),
// those apply. Otherwise: whole numbers whose least is 0 stay as they are; other whole numbers and strings
// are numbered in order. where(i): the place of label i, for messages.
struct Labels {
  HostArray values;
  std::vector<std::string> names;
};
struct Place {
  std::string_view path;
  int64_t line;
};
Result<Labels> encode_labels(const std::vector<std::string_view>& labels,
                             const std::vector<std::string>& known, const std::vector<Place>& where,
                             std::string_view column);

// Strings as bytes: adds `name` i32 [N,L], padded with 0, and `name`_length i32 [N]. length 0: the longest,
// at least 1.
Status add_text(Dataset& data, const std::string& name, const std::vector<std::string_view>& strings,
                int64_t length);

}  // namespace tenon
