// Values and operations of the mini host: plain doubles, computed when built.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/abi/tenon_plugin.h"

namespace abi_test {

using Shape = std::vector<int64_t>;

struct Value {
  tn_dtype dtype = TN_F64;
  Shape shape;
  std::vector<double> data;
};

int64_t numel(const Shape& s);

struct Attributes {
  std::map<std::string, tn_value> values;
  int64_t i(const std::string& name, int64_t otherwise) const;
  double f(const std::string& name, double otherwise) const;
  Shape list(const std::string& name) const;
};

// Throws std::runtime_error when the op cannot be applied.
using OpFn = std::vector<Value> (*)(const std::string& name, const std::vector<Value>& in,
                                    const Attributes& attrs);

// By id, "softmax/1"; null when the mini host has no such op.
OpFn find_op(const std::string& id);

}  // namespace abi_test
