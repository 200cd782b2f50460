#include "core/io/metrics_log.h"

#include <cmath>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/io/file.h"

namespace tenon {
namespace {

std::string format_line(int64_t step, const std::map<std::string, double>& values) {
  nlohmann::ordered_json line;
  line["step"] = step;
  for (const auto& [name, value] : values) line[name] = value;
  return line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

Result<MetricsLine> parse_line(std::string_view text) {
  const nlohmann::json json =
      nlohmann::json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || !json.contains("step") || !json["step"].is_number_integer())
    return invalid("it is not a JSON object with a step");
  MetricsLine line;
  line.step = json["step"].get<int64_t>();
  for (const auto& [name, value] : json.items()) {
    if (name == "step") continue;
    if (!value.is_number() && !value.is_null()) return invalid("'" + name + "' is not a number");
    line.values[name] = value.is_null() ? std::numeric_limits<double>::quiet_NaN() : value.get<double>();
  }
  return line;
}

}  // namespace

Result<std::vector<MetricsLine>> read_metrics(const std::string& path) {
  TN_ASSIGN(const std::string bytes, read_bytes(path));
  std::vector<MetricsLine> lines;
  size_t at = 0, end;
  for (int64_t number = 1; (end = bytes.find('\n', at)) != std::string::npos; at = end + 1, ++number) {
    auto line = parse_line(std::string_view(bytes).substr(at, end - at));
    if (!line) return std::move(line).status().at(path + ":" + std::to_string(number));
    lines.push_back(std::move(line).value());
  }
  return lines;
}

Result<MetricsLog> MetricsLog::open(const std::string& path, int64_t resumed_after) {
  std::string kept;
  std::error_code ignored;
  if (resumed_after >= 0 && std::filesystem::exists(path, ignored)) {
    TN_ASSIGN(const std::vector<MetricsLine> lines, read_metrics(path));
    for (const MetricsLine& line : lines)
      if (line.step <= resumed_after) kept += format_line(line.step, line.values);
  }
  TN_RETURN_IF_ERROR(write_atomically(path, kept));
  TN_ASSIGN(AppendFile file, AppendFile::open(path));
  return MetricsLog(std::move(file));
}

Status MetricsLog::write(int64_t step, const std::map<std::string, double>& values) {
  return file_.append(format_line(step, values));
}

}  // namespace tenon
