// Inputs for a plugin that nobody has described beyond its roles: shapes as the roles' help writes them ("[B, C] class
// scores"), and values of the usual sorts, among which those are searched that the plugin accepts.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "core/abi/tenon_plugin.h"
#include "core/base/status.h"
#include "core/tensor/host_array.h"

namespace tenon::validate {

using Inputs = std::vector<std::pair<std::string, HostArray>>;

// What the letters of shapes stand for.
struct Sizes {
  int64_t batch = 6;  // the first axis of the first input, and B
  std::vector<int64_t> others = {4, 5, 3, 7};  // the other letters, in the order in which they appear
  int64_t more = 2;   // ".."
  std::map<std::string, int64_t> fixed = {};  // letters that stand for an option's value
};
// Letters that the help of an integer option begins with ("R, routed experts"), with its default.
std::map<std::string, int64_t> letters_of_options(const tn_descriptor& d);

enum class Values : uint8_t { absent, normal, unit, simplex, signs, classes, binary, numbers, truth };

// One way to fill an input.
struct Form {
  std::string shape;  // "B, .., C"
  DType dtype = DType::f64;
  Values values = Values::normal;
};

// An input, with its forms from the most likely on.
struct Wanted {
  std::string name;
  std::vector<Form> forms;
  uint32_t flags = 0;  // TN_ROLE_*
};

// A form for each input.
using Choice = std::vector<Form>;

// What the roles say. An input of a role of many is called x0, x1.
std::vector<Wanted> wanted_by_roles(const tn_descriptor& d);
// The same for one more input: `help` begins with its shape.
Wanted wanted_input(const std::string& name, const std::string& help, int32_t dtype_class = TN_CLASS_FLOATING);

// Values of these forms; those of another seed are others.
Inputs make_inputs(const std::vector<Wanted>& wanted, const Choice& choice, const Sizes& sizes, uint64_t seed);

// The first choice that `accepts` takes. Error: what it said of the first one, when it takes none.
Result<Choice> find_choice(const std::vector<Wanted>& wanted, const std::function<Status(const Choice&)>& accepts);

}  // namespace tenon::validate
