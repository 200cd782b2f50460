// JSON lines: one object a line, selected fields become columns.
#include <deque>
#include <nlohmann/json.hpp>

#include "core/base/nearest.h"
#include "core/data/files.h"
#include "core/data/reader_util.h"
#include "core/data/readers.h"

namespace tenon {
namespace {

using Json = nlohmann::json;

// A column being filled, from the field that "name=a.b" or "a" means.
struct Field {
  std::string name, path;
  DType dtype = DType::f32;
  Shape shape;  // of one record, from the first
  std::vector<double> values;
};

Field parse_field(const std::string& text, DType dtype) {
  const size_t eq = text.find('=');
  Field f;
  f.dtype = dtype;
  f.name = text.substr(0, eq);
  f.path = eq == std::string::npos ? text : text.substr(eq + 1);
  return f;
}

Result<const Json*> find(const Json& record, const std::string& path) {
  if (record.is_object())
    if (const auto it = record.find(path); it != record.end()) return &*it;
  const Json* at = &record;
  for (size_t begin = 0;;) {
    const size_t dot = path.find('.', begin);
    const std::string key = path.substr(begin, dot == std::string::npos ? dot : dot - begin);
    if (!at->is_object())
      return invalid("field '" + path + "': '" + key + "' is asked of something that is no object");
    const auto it = at->find(key);
    if (it == at->end()) {
      std::vector<std::string> keys;
      for (const auto& [k, v] : at->items()) keys.push_back(k);
      return not_found("has no field '" + key + "'" + did_you_mean(key, keys));
    }
    at = &*it;
    if (dot == std::string::npos) return at;
    begin = dot + 1;
  }
}

// Numbers of a nested array in row-major order; its shape must be the same everywhere (`known`: it is in
// f.shape already).
Status flatten(const Json& j, int axis, bool known, Field& f) {
  if (j.is_array()) {
    if (axis >= kMaxRank - 1) return invalid("arrays are nested too deep");
    const auto n = static_cast<int64_t>(j.size());
    if (axis == f.shape.rank() && !known)
      f.shape.push_back(n);
    else if (axis >= f.shape.rank() || f.shape[axis] != n)
      return invalid("has an array of " + std::to_string(n) + " elements where another record or row has " +
                     (axis < f.shape.rank() ? std::to_string(f.shape[axis]) : "a number"));
    for (size_t i = 0; i < j.size(); ++i) TN_RETURN_IF_ERROR(flatten(j[i], axis + 1, known || i > 0, f));
    return Status::ok();
  }
  if (axis != f.shape.rank()) return invalid("has a number where another record or row has an array");
  if (!j.is_number() && !j.is_boolean())
    return invalid("must hold numbers, not " + std::string(j.type_name()));
  const double v = j.is_boolean() ? static_cast<double>(j.get<bool>()) : j.get<double>();
  if (f.dtype == DType::i32 && (std::floor(v) != v || std::abs(v) > 2147483647.0))
    return invalid("must hold whole numbers of 32 bits, not " + j.dump());
  f.values.push_back(v);
  return Status::ok();
}

}  // namespace

Result<Dataset> read_jsonl(const std::vector<std::string>& files, const JsonlOptions& options,
                           const Schema* like) {
  if (files.empty()) return invalid("jsonl needs at least one file");
  if (options.text_length < 0) return invalid("text_length is negative");
  std::vector<Field> numbers, texts;
  for (const std::string& s : options.numbers) numbers.push_back(parse_field(s, DType::f32));
  for (const std::string& s : options.integers) numbers.push_back(parse_field(s, DType::i32));
  for (const std::string& s : options.text) texts.push_back(parse_field(s, DType::i32));
  if (numbers.empty() && texts.empty() && options.label.empty())
    return invalid("jsonl needs at least one field: name them in numbers, integers, text or label");

  std::vector<std::deque<std::string>> strings(texts.size());
  std::deque<std::string> labels;
  std::vector<Place> places;
  int64_t n = 0;
  for (const std::string& path : files) {
    TN_ASSIGN(const std::string content, read_file(path));
    const auto read_line = [&](std::string_view line, int64_t) -> Status {
      const Json record = Json::parse(line);
      if (!record.is_object())
        return invalid("each line must be one JSON object, this one is " + std::string(record.type_name()));
      for (Field& f : numbers) {
        TN_ASSIGN(const Json* j, find(record, f.path));
        TN_RETURN_IF_ERROR(flatten(*j, 0, n > 0, f).at("field '" + f.path + "'"));
      }
      for (size_t t = 0; t < texts.size(); ++t) {
        TN_ASSIGN(const Json* j, find(record, texts[t].path));
        if (!j->is_string())
          return invalid("field '" + texts[t].path + "' must be a string, not " + j->type_name());
        strings[t].push_back(j->get<std::string>());
      }
      if (!options.label.empty()) {
        TN_ASSIGN(const Json* j, find(record, options.label));
        if (!j->is_string() && !j->is_number() && !j->is_boolean())
          return invalid("field '" + options.label + "' must be a string or a whole number, not " +
                         j->type_name());
        labels.push_back(j->is_string()    ? j->get<std::string>()
                         : j->is_boolean() ? (j->get<bool>() ? "1" : "0")
                                           : j->dump());
      }
      ++n;
      return Status::ok();
    };
    TN_RETURN_IF_ERROR(for_each_line(content, [&](std::string_view line, int64_t number) -> Status {
      if (trim(line).empty()) return Status::ok();
      places.push_back({path, number});
      try {
        Status s = read_line(line, number);
        return s.is_ok() ? s : std::move(s).at(path + ":" + std::to_string(number));
      } catch (const Json::exception& e) {
        return invalid(at_line(path, number) + "not valid JSON: " + e.what());
      }
    }));
  }
  if (n == 0) return invalid(files[0] + ": has no records");

  Dataset data(n);
  for (Field& f : numbers) {
    Shape shape = f.shape;
    shape.insert(0, n);
    HostArray a(f.dtype, shape);
    for (size_t i = 0; i < f.values.size(); ++i) a.set(static_cast<int64_t>(i), f.values[i]);
    TN_RETURN_IF_ERROR(data.add(f.name, std::move(a)));
  }
  for (size_t t = 0; t < texts.size(); ++t)
    TN_RETURN_IF_ERROR(
        add_text(data, texts[t].name, {strings[t].begin(), strings[t].end()}, options.text_length));
  if (!options.label.empty()) {
    TN_ASSIGN(Labels y,
              encode_labels({labels.begin(), labels.end()},
                            like ? like->class_names : std::vector<std::string>{}, places, options.label));
    data.schema.class_names = std::move(y.names);
    TN_RETURN_IF_ERROR(data.add("y", std::move(y.values)));
  }
  data.add_ids();
  return data;
}

extern const Format jsonl_format;
const Format jsonl_format = {
    "jsonl", "JSON lines: one object a line, selected fields",
    [](const std::vector<std::string>& files, const Options& options, const Schema* like) -> Result<Dataset> {
      JsonlOptions o;
      TN_RETURN_IF_ERROR(OptionBinder(options)
                             .get("numbers", o.numbers)
                             .get("integers", o.integers)
                             .get("text", o.text)
                             .get("label", o.label)
                             .get("text_length", o.text_length)
                             .finish());
      return read_jsonl(files, o, like);
    }};

}  // namespace tenon
