// Golden files: numbers of an independent implementation, which a plugin has to give through the contract.
//
//   {"paper": "..", "cases": [{"name", "target", "options", "inputs", "expected", "rtol"?, "atol"?, "repeat"?,
//                              "model"?, "loss"?, ..}]}
//
// `target` is "<kind>:<plugin id>" or "<kind>:<plugin id>/<probe>". A tensor is {"shape", "dtype", "data"} in
// row-major order (dtype left out: f64); numbers, truth values and text stand for themselves. What the inputs and
// expected values of a kind are called is written at the head of the file that runs the kind.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "core/data/options.h"
#include "core/plugin/catalog.h"
#include "core/runtime.h"
#include "core/tensor/host_array.h"

namespace tenon::golden {

// A tensor or number (rank 0), or text.
using Value = std::variant<HostArray, std::string>;

struct Expected {
  Value value;
  bool is_tensor = false;  // written with a shape, which must then be equal
  bool exact = false;      // an integer, truth value or text
};

struct Case {
  std::string name, target;
  std::string kind, id, probe;  // of the target; probe "": none is named
  Options options;
  std::vector<std::pair<std::string, HostArray>> inputs;  // in the file's order
  std::vector<std::pair<std::string, Expected>> expected;
  double rtol = 1e-9, atol = 1e-12;
  int64_t repeat = 1;
  std::string model, loss, setup;  // how the case states an objective, in words

  const HostArray* input(std::string_view key) const;  // null when there is none
  bool has(std::string_view key) const { return input(key) != nullptr; }
  bool expects(std::string_view key) const;
  // The number that an option or an input of this name gives.
  double number(std::string_view key, double otherwise) const;
};

// What became of one expected value.
struct Comparison {
  std::string key;
  bool passed = false;
  std::string problem;  // why there is nothing to compare; "": there is
  // The element that is furthest off, with its place in row-major order.
  double got = 0, expected = 0, absolute = 0, relative = 0, tolerance = 0;
  int64_t place = 0, elements = 1;
  std::string got_text, expected_text;  // text instead of numbers
};

struct CaseResult {
  std::string name, target;
  Status status;  // why the case could not be run
  std::vector<Comparison> values;
  bool passed() const;
};

// The cases of a file. Errors: no such file, not JSON, not this format (names the case and the field).
Result<std::vector<Case>> load(const std::string& path);
// |got - expected| <= atol + rtol |expected| for each element; integers, truth values and text must be equal.
Comparison compare(const std::string& key, const Value& got, const Expected& expected, double rtol, double atol);
// Runs one case through the plugin's own contract.
CaseResult run(Runtime& runtime, Catalog& catalog, const Case& c);

}  // namespace tenon::golden
