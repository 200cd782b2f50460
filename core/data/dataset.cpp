#include "core/data/dataset.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "core/base/nearest.h"

namespace tenon {
namespace {

std::string number_text(double v) {
  std::string s = std::to_string(v);
  if (s.find('.') != std::string::npos) {
    s.erase(s.find_last_not_of('0') + 1);
    if (s.back() == '.') s.pop_back();
  }
  return s;
}

// Names come from files and need not be UTF-8, which JSON must be. So each byte travels as the character of
// its number (Latin-1), and comes back exactly.
std::string widen(const std::string& bytes) {
  std::string s;
  for (char c : bytes) {
    const auto b = static_cast<uint8_t>(c);
    if (b < 0x80)
      s += c;
    else
      s += {static_cast<char>(0xc0 | b >> 6), static_cast<char>(0x80 | (b & 0x3f))};
  }
  return s;
}
std::string narrow(const std::string& s) {
  std::string bytes;
  for (size_t i = 0; i < s.size(); ++i) {
    const auto b = static_cast<uint8_t>(s[i]);
    const bool pair = b >= 0xc0 && i + 1 < s.size();
    bytes += pair ? static_cast<char>((b & 0x03) << 6 | (static_cast<uint8_t>(s[++i]) & 0x3f)) : s[i];
  }
  return bytes;
}
template <class F>
std::vector<std::string> each(std::vector<std::string> v, F f) {
  for (std::string& s : v) s = f(s);
  return v;
}
std::vector<std::string> widen(const std::vector<std::string>& v) {
  return each(v, [](const std::string& s) { return widen(s); });
}
std::vector<std::string> narrow(const std::vector<std::string>& v) {
  return each(v, [](const std::string& s) { return narrow(s); });
}
template <class V>
std::map<std::string, V> widen(const std::map<std::string, V>& m) {
  std::map<std::string, V> out;
  for (const auto& [k, v] : m) out.emplace(widen(k), widen(v));
  return out;
}
template <class V>
std::map<std::string, V> narrow(const std::map<std::string, V>& m) {
  std::map<std::string, V> out;
  for (const auto& [k, v] : m) out.emplace(narrow(k), narrow(v));
  return out;
}

size_t row_bytes(const HostArray& a) {
  return a.shape()[0] == 0 ? 0 : a.size_bytes() / static_cast<size_t>(a.shape()[0]);
}

}  // namespace

std::string Schema::to_json() const {
  nlohmann::json j;
  j["feature_names"] = widen(feature_names);
  j["class_names"] = widen(class_names);
  j["vocabulary"] = widen(vocabulary);
  j["text_level"] = text_level;
  j["categories"] = widen(categories);
  j["fills"] = widen(fills);
  j["features"] = features;
  return j.dump();
}

Result<Schema> Schema::from_json(std::string_view text) {
  try {
    const nlohmann::json j = nlohmann::json::parse(text);
    Schema s;
    j.at("feature_names").get_to(s.feature_names);
    j.at("class_names").get_to(s.class_names);
    j.at("vocabulary").get_to(s.vocabulary);
    j.at("text_level").get_to(s.text_level);
    j.at("categories").get_to(s.categories);
    j.at("fills").get_to(s.fills);
    j.at("features").get_to(s.features);
    s.feature_names = narrow(s.feature_names);
    s.class_names = narrow(s.class_names);
    s.vocabulary = narrow(s.vocabulary);
    s.categories = narrow(s.categories);
    s.fills = narrow(s.fills);
    return s;
  } catch (const nlohmann::json::exception& e) {
    return invalid(std::string("the stored data schema is damaged: ") + e.what());
  }
}

Status Dataset::add(std::string name, HostArray values) {
  if (values.shape().rank() == 0)
    return invalid("column '" + name + "' is a scalar; its first axis must be the samples");
  const int64_t rows = values.shape()[0];
  if (size_ < 0) size_ = rows;
  if (rows != size_)
    return invalid("column '" + name + "' has " + std::to_string(rows) + " samples, the others have " +
                   std::to_string(size_));
  columns_.insert_or_assign(std::move(name), std::move(values));
  return Status::ok();
}

void Dataset::add_ids() {
  if (has("id") || size_ < 0) return;
  HostArray ids(DType::i64, Shape{size_});
  std::iota(ids.as<int64_t>().begin(), ids.as<int64_t>().end(), int64_t{0});
  columns_.emplace("id", std::move(ids));
}

Result<const HostArray*> Dataset::column(std::string_view name) const {
  if (const auto it = columns_.find(name); it != columns_.end()) return &it->second;
  std::vector<std::string> names;
  for (const auto& [n, a] : columns_) names.push_back(n);
  return not_found("the data has no column '" + std::string(name) + "'" + did_you_mean(name, names));
}

std::vector<std::pair<int64_t, int64_t>> file_ranges(const Dataset& data) {
  std::vector<std::pair<int64_t, int64_t>> out;
  if (!data.has("tokens") || !data.has("file")) return {{0, std::max<int64_t>(data.size(), 0)}};
  const auto file = data.columns().find("file")->second.as<int32_t>();
  for (size_t i = 0; i < file.size(); ++i) {
    if (i == 0 || file[i] != file[i - 1]) out.emplace_back(static_cast<int64_t>(i), static_cast<int64_t>(i));
    ++out.back().second;
  }
  return out;
}

HostArray gather_rows(const HostArray& a, std::span<const int64_t> rows) {
  Shape shape = a.shape();
  shape[0] = static_cast<int64_t>(rows.size());
  HostArray out(a.dtype(), shape);
  const size_t bytes = row_bytes(a);
  if (bytes == 0) return out;
  for (size_t i = 0; i < rows.size(); ++i) {
    assert(rows[i] >= 0 && rows[i] < a.shape()[0]);
    std::memcpy(out.data() + i * bytes, a.data() + static_cast<size_t>(rows[i]) * bytes, bytes);
  }
  return out;
}

Dataset Dataset::take(std::span<const int64_t> rows) const {
  Dataset out(static_cast<int64_t>(rows.size()));
  out.schema = schema;
  for (const auto& [name, values] : columns_) out.columns_.emplace(name, gather_rows(values, rows));
  return out;
}

Status Dataset::append(const Dataset& other) {
  if (columns_.size() != other.columns_.size())
    return invalid("has " + std::to_string(other.columns_.size()) + " columns, the files before it have " +
                   std::to_string(columns_.size()));
  Columns joined;
  for (const auto& [name, a] : columns_) {
    const auto it = other.columns_.find(name);
    if (it == other.columns_.end()) return invalid("has no column '" + name + "', the files before it have");
    const HostArray& b = it->second;
    Shape shape = a.shape(), same = b.shape();
    same[0] = shape[0];
    if (b.dtype() != a.dtype() || !(same == shape))
      return invalid("column '" + name + "' is " + std::string(name_of(b.dtype())) + to_string(b.shape()) +
                     ", in the files before it " + std::string(name_of(a.dtype())) + to_string(a.shape()));
    shape[0] += b.shape()[0];
    HostArray c(a.dtype(), shape);
    if (a.size_bytes()) std::memcpy(c.data(), a.data(), a.size_bytes());
    if (b.size_bytes()) std::memcpy(c.data() + a.size_bytes(), b.data(), b.size_bytes());
    joined.emplace(name, std::move(c));
  }
  columns_ = std::move(joined);
  size_ += other.size_;
  return Status::ok();
}

Status check_labels(const HostArray& labels, int64_t classes, std::string_view column) {
  const int64_t n = labels.numel();
  const int64_t width = labels.shape().rank() > 0 && labels.shape()[0] > 0 ? n / labels.shape()[0] : 1;
  for (int64_t i = 0; i < n; ++i) {
    const double v = labels.at(i);
    if (v >= 0 && v < static_cast<double>(classes) && std::floor(v) == v) continue;
    return invalid("column '" + std::string(column) + "', row " + std::to_string(i / width) + ": label " +
                   number_text(v) + " is not a whole number in 0.." + std::to_string(classes - 1) +
                   "; correct the data or the number of classes");
  }
  return Status::ok();
}

Status check_finite(const HostArray& values, std::string_view column,
                    std::span<const std::string> feature_names) {
  if (!is_floating(values.dtype())) return Status::ok();
  const int64_t n = values.numel();
  const int64_t width = values.shape().rank() > 0 && values.shape()[0] > 0 ? n / values.shape()[0] : 1;
  for (int64_t i = 0; i < n; ++i) {
    const double v = values.at(i);
    if (std::isfinite(v)) continue;
    const int64_t feature = i % width;
    std::string where = "column '" + std::string(column) + "', row " + std::to_string(i / width);
    if (width > 1) {
      where += ", feature " + std::to_string(feature);
      if (static_cast<int64_t>(feature_names.size()) == width)
        where += " ('" + feature_names[static_cast<size_t>(feature)] + "')";
    }
    return invalid(where + " is " + (std::isnan(v) ? "NaN" : "infinite") +
                   "; correct the value, or drop or impute missing ones");
  }
  return Status::ok();
}

}  // namespace tenon
