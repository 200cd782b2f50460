// What the files of layers share.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/nn/module.h"

namespace tenon::nn {

// Inverted dropout while training, else x.
Tensor apply_dropout(Context& c, Tensor x, double rate);

// One number stands for all axes; none for the default; otherwise there must be one for each (else nullopt).
inline std::optional<Dims> per_axis(const std::vector<int64_t>& v, int axes, int64_t fallback) {
  if (v.empty()) return Dims::filled(axes, fallback);
  if (v.size() == 1) return Dims::filled(axes, v[0]);
  if (v.size() == static_cast<size_t>(axes)) return Dims(std::span<const int64_t>(v));
  return std::nullopt;
}

// False after recording an error, unless there are n inputs.
inline bool expect_inputs(const Builder& b, std::string_view type, std::span<const TensorType> in, size_t n) {
  if (in.size() == n) return true;
  b.fail(type, "takes " + std::to_string(n) + " input" + (n == 1 ? "" : "s") + ", got " +
                   std::to_string(in.size()));
  return false;
}

// False after recording an error, unless there is one floating input of at least this rank.
inline bool expect_floating(const Builder& b, std::string_view type, std::span<const TensorType> in,
                            int min_rank, std::string_view wanted) {
  if (!expect_inputs(b, type, in, 1)) return false;
  if (is_floating(in[0].dtype) && in[0].shape.rank() >= min_rank) return true;
  b.fail(type, "wants floating " + std::string(wanted) + ", got " + to_string(in[0]));
  return false;
}

// What stands for a parameter, or null for none.
inline Tensor value_of(Context& c, const ParameterPtr& p) { return p ? c.parameter(*p) : Tensor(); }

}  // namespace tenon::nn
