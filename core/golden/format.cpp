#include <fstream>
#include <nlohmann/json.hpp>

#include "core/golden/golden.h"

namespace tenon::golden {
namespace {

using Json = nlohmann::ordered_json;

Result<Shape> shape_of(const Json& j) {
  if (!j.is_array() || j.size() > static_cast<size_t>(kMaxRank)) return invalid("'shape' must be a list of at most 8 integers");
  Shape shape;
  for (const Json& d : j) {
    if (!d.is_number_integer() || d.get<int64_t>() < 0) return invalid("'shape' must be a list of sizes");
    shape.push_back(d.get<int64_t>());
  }
  return shape;
}

// The element as a double; text stands for numbers that JSON lacks.
Result<double> element(const Json& j) {
  if (j.is_number()) return j.get<double>();
  if (j.is_boolean()) return j.get<bool>() ? 1.0 : 0.0;
  if (j.is_string()) {
    const std::string s = j.get<std::string>();
    if (s == "inf" || s == "Infinity") return std::numeric_limits<double>::infinity();
    if (s == "-inf" || s == "-Infinity") return -std::numeric_limits<double>::infinity();
    if (s == "nan" || s == "NaN") return std::numeric_limits<double>::quiet_NaN();
  }
  return invalid("'data' must be a list of numbers");
}

// {"shape", "dtype", "data"}
Result<HostArray> tensor(const Json& j) {
  if (!j.contains("shape") || !j.contains("data")) return invalid("a tensor needs 'shape' and 'data'");
  TN_ASSIGN(const Shape shape, shape_of(j["shape"]));
  DType dtype = DType::f64;
  if (j.contains("dtype")) {
    const auto known = j["dtype"].is_string() ? dtype_from_name(j["dtype"].get<std::string>()) : std::nullopt;
    if (!known) return invalid("'dtype' is " + j["dtype"].dump() + "; it must be f64, f32, i64, i32 or bool");
    dtype = *known;
  }
  const Json& data = j["data"];
  if (!data.is_array() || static_cast<int64_t>(data.size()) != shape.numel())
    return invalid("'data' must be a list of " + std::to_string(shape.numel()) + " numbers, as 'shape' " + to_string(shape) + " says");
  HostArray out(dtype, shape);
  for (size_t i = 0; i < data.size(); ++i) {
    if (dtype == DType::i64 && data[i].is_number_integer()) {
      out.as<int64_t>()[i] = data[i].get<int64_t>();
      continue;
    }
    TN_ASSIGN(const double v, element(data[i]));
    out.set(static_cast<int64_t>(i), v);
  }
  return out;
}

template <class T>
HostArray scalar(T v) {
  return HostArray::of<T>(std::span<const T>(&v, 1), Shape{});
}

// A tensor, a number or a truth value; a bare list is a vector.
Result<HostArray> array(const Json& j) {
  if (j.is_object()) return tensor(j);
  if (j.is_boolean()) return scalar(j.get<bool>());
  if (j.is_number_integer()) return scalar(j.get<int64_t>());
  if (j.is_number()) return scalar(j.get<double>());
  if (j.is_array()) {
    HostArray out(DType::f64, Shape{static_cast<int64_t>(j.size())});
    for (size_t i = 0; i < j.size(); ++i) {
      TN_ASSIGN(const double v, element(j[i]));
      out.set(static_cast<int64_t>(i), v);
    }
    return out;
  }
  return invalid("must be a number or a tensor");
}

Result<Expected> expected(const Json& j) {
  Expected e;
  if (j.is_string()) {
    e.value = j.get<std::string>();
    e.exact = true;
    return e;
  }
  TN_ASSIGN(HostArray a, array(j));
  e.is_tensor = j.is_object();
  e.exact = !is_floating(a.dtype());
  e.value = std::move(a);
  return e;
}

// Options as a recipe would give them; structured ones as JSON text.
OptionValue option(const Json& j) {
  if (j.is_boolean()) return j.get<bool>();
  if (j.is_number_integer()) return j.get<int64_t>();
  if (j.is_number()) return j.get<double>();
  if (j.is_string()) return j.get<std::string>();
  const auto all = [&](auto is) { return j.is_array() && !j.empty() && std::all_of(j.begin(), j.end(), is); };
  if (all([](const Json& v) { return v.is_number(); })) return j.get<std::vector<double>>();
  if (all([](const Json& v) { return v.is_string(); }) || (j.is_array() && j.empty())) return j.get<std::vector<std::string>>();
  return j.dump();
}

Status read_target(Case& c) {
  const size_t colon = c.target.find(':');
  if (colon == std::string::npos || colon == 0 || colon + 1 == c.target.size())
    return invalid("'target' is '" + c.target + "'; it must be <kind>:<plugin id> or <kind>:<plugin id>/<probe>");
  c.kind = c.target.substr(0, colon);
  const size_t slash = c.target.find('/', colon);
  c.id = c.target.substr(colon + 1, slash == std::string::npos ? slash : slash - colon - 1);
  if (slash != std::string::npos) c.probe = c.target.substr(slash + 1);
  return Status::ok();
}

Result<Case> read_case(const Json& j) {
  Case c;
  if (!j.is_object()) return invalid("must be an object");
  const auto text = [&](const char* key, std::string& to) {
    if (j.contains(key) && j[key].is_string()) to = j[key].get<std::string>();
  };
  text("name", c.name);
  text("target", c.target);
  text("model", c.model);
  text("loss", c.loss);
  text("setup", c.setup);
  TN_RETURN_IF_ERROR(read_target(c));
  const auto section = [&](const char* key) -> Result<Json> {
    if (!j.contains(key)) return Json::object();
    if (!j[key].is_object()) return invalid(std::string("'") + key + "' must be an object");
    return j[key];
  };
  TN_ASSIGN(const Json options, section("options"));
  for (const auto& [key, v] : options.items()) c.options[key] = option(v);
  TN_ASSIGN(const Json inputs, section("inputs"));
  for (const auto& [key, v] : inputs.items()) {
    auto a = array(v);
    if (!a) return std::move(a).status().at("input '" + key + "'");
    c.inputs.emplace_back(key, std::move(a).value());
  }
  TN_ASSIGN(const Json wanted, section("expected"));
  if (wanted.empty()) return invalid("'expected' names nothing to compare");
  for (const auto& [key, v] : wanted.items()) {
    auto e = expected(v);
    if (!e) return std::move(e).status().at("expected '" + key + "'");
    c.expected.emplace_back(key, std::move(e).value());
  }
  for (const auto& [key, to] : {std::pair("rtol", &c.rtol), std::pair("atol", &c.atol)}) {
    if (!j.contains(key)) continue;
    if (!j[key].is_number() || !(j[key].get<double>() >= 0)) return invalid(std::string("'") + key + "' must be a number of at least 0");
    *to = j[key].get<double>();
  }
  if (j.contains("repeat")) {
    if (!j["repeat"].is_number_integer() || j["repeat"].get<int64_t>() < 1 || j["repeat"].get<int64_t>() > 1000000)
      return invalid("'repeat' must be a whole number of at least 1");
    c.repeat = j["repeat"].get<int64_t>();
  }
  return c;
}

}  // namespace

const HostArray* Case::input(std::string_view key) const {
  for (const auto& [input_name, value] : inputs)
    if (input_name == key) return &value;
  return nullptr;
}

bool Case::expects(std::string_view key) const {
  return std::any_of(expected.begin(), expected.end(), [&](const auto& e) { return e.first == key; });
}

double Case::number(std::string_view key, double otherwise) const {
  if (const HostArray* a = input(key); a && a->numel() == 1) return a->at(0);
  const auto it = options.find(std::string(key));
  if (it == options.end()) return otherwise;
  if (const auto* d = std::get_if<double>(&it->second)) return *d;
  if (const auto* i = std::get_if<int64_t>(&it->second)) return static_cast<double>(*i);
  return otherwise;
}

Result<std::vector<Case>> load(const std::string& path) {
  std::ifstream in(path);
  if (!in) return not_found(path + ": no such file");
  Json j;
  try {
    j = Json::parse(in);
  } catch (const Json::exception& e) {
    return invalid(path + ": not JSON: " + e.what());
  }
  if (!j.is_object() || !j.contains("cases") || !j["cases"].is_array()) return invalid(path + ": not a golden file: it has no list of 'cases'");
  std::vector<Case> out;
  for (const Json& item : j["cases"]) {
    auto c = read_case(item);
    if (!c) return std::move(c).status().at(path + ": case " + std::to_string(out.size()));
    if (c->name.empty()) c->name = "case " + std::to_string(out.size());
    out.push_back(std::move(c).value());
  }
  if (out.empty()) return invalid(path + ": the list of cases is empty");
  return out;
}

}  // namespace tenon::golden
