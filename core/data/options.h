// Options as a recipe gives them, by name; each reader, transform and metric binds them to its own typed
// struct.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <map>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "core/base/status.h"

namespace tenon {

using OptionValue =
    std::variant<bool, int64_t, double, std::string, std::vector<std::string>, std::vector<double>>;
using Options = std::map<std::string, OptionValue>;

// Error unless `value` is one of `choices`, with the nearest.
Status check_choice(std::string_view name, std::string_view value,
                    std::initializer_list<std::string_view> choices);

// Binds options to variables: one `get` for each option that exists, then `finish`.
//   OptionBinder bind(options);
//   bind.get("delimiter", csv.delimiter).get("header", csv.header);
//   TN_RETURN_IF_ERROR(bind.finish());
// A variable keeps its value (the default) when the option is absent. Whole numbers are accepted where a real
// number is asked, and one string or number where a list is. Errors: an option nobody asked for (with the
// nearest name), a wrong type.
class OptionBinder {
 public:
  explicit OptionBinder(const Options& options) : options_(options) {}
  OptionBinder& get(std::string_view name, bool& out);
  OptionBinder& get(std::string_view name, int64_t& out);
  OptionBinder& get(std::string_view name, double& out);
  OptionBinder& get(std::string_view name, std::string& out);
  OptionBinder& get(std::string_view name, std::vector<std::string>& out);
  OptionBinder& get(std::string_view name, std::vector<double>& out);
  // The first error, if any; otherwise complains about options that were never asked for.
  Status finish();

 private:
  const OptionValue* find(std::string_view name);
  void fail(std::string message);
  void wrong_type(std::string_view name, std::string_view expected, const OptionValue& got);

  const Options& options_;
  std::vector<std::string> known_;
  Status error_;
};

}  // namespace tenon
