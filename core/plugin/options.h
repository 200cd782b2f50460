// Options of a plugin: recipe values checked against the plugin's schema, before any of its code runs.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "core/abi/tenon_plugin.h"
#include "core/base/status.h"
#include "core/data/options.h"

namespace tenon {

// Checked values with defaults filled in, in the schema's order, in the form the ABI passes them. Owns all
// memory that the attributes point to; moving keeps the addresses.
class PluginOptions {
 public:
  // `who` begins messages: "loss 'focal'". Errors: unknown option (with the nearest name), wrong type, outside the
  // range or choices, a required one missing.
  static Result<PluginOptions> check(std::string who, const tn_option* const* schema, uint32_t n, const Options& given);
  const std::vector<tn_attr>& attrs() const { return attrs_; }
  // The number under this name, or `otherwise` when there is none.
  double number(std::string_view name, double otherwise) const;

 private:
  struct Storage {
    std::deque<std::string> strings;
    std::deque<std::vector<double>> reals;
    std::deque<std::vector<int64_t>> integers;
    std::deque<std::vector<const char*>> lists;
  };
  std::unique_ptr<Storage> storage_ = std::make_unique<Storage>();
  std::vector<tn_attr> attrs_;
};

// Attributes that a plugin gives, as options of another one.
Options options_of(const tn_attr* attrs, uint32_t n);

// "real > 0, default 0.01: step size", for `tenon describe`.
std::string describe_option(const tn_option& o);
std::string type_name(int32_t value_type);

}  // namespace tenon
