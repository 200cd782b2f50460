// What the random ops share: the key, bits of an element, and the draws that live in files of their own.
#pragma once

#include <string>

#include "core/base/philox.h"
#include "core/ops/kernel_util.h"
#include "core/ops/sample_values.h"

namespace tenon {

extern const OpDef kGamma, kPermutation, kCategorical;

namespace random {

inline Status check_key(std::string_view op, const TensorType& key) {
  if (key == TensorType{DType::i64, {}}) return Status::ok();
  return invalid(std::string(op) + ": the key must be i64 of rank 0, got " + to_string(key));
}

inline uint64_t key_of(const View& key) { return static_cast<uint64_t>(*key.as<int64_t>()); }

inline HostArray sample_key() { return sample_i64({20240607}, {}); }

// The `shape` attribute, without negative dimensions.
inline Result<Shape> shape_attr(std::string_view op, const Attrs& attrs) {
  const auto dims = attrs.ints("shape");
  if (dims.size() > kMaxRank)
    return invalid(std::string(op) + ": a shape has at most " + std::to_string(kMaxRank) + " dimensions");
  const Shape shape(dims);
  for (int64_t d : shape)
    if (d < 0)
      return invalid(std::string(op) + ": the shape " + to_string(shape) + " has a negative dimension");
  return shape;
}

// The words of a key's stream of draws; keeps the last block, as neighbours share one.
class Stream {
 public:
  explicit Stream(uint64_t key) : key_(key), words_(philox(key, 0, philox_domain::kDraw)) {}
  // Word i % 4 of block i / 4.
  uint32_t bits32(uint64_t i) { return block(i / 4)[i % 4]; }
  // Word pair i % 2 of block i / 2.
  uint64_t bits64(uint64_t i) {
    const auto& b = block(i / 2);
    return i % 2 ? join_words(b[2], b[3]) : join_words(b[0], b[1]);
  }

 private:
  const std::array<uint32_t, 4>& block(uint64_t at) {
    if (at != at_) {
      words_ = philox(key_, at, philox_domain::kDraw);
      at_ = at;
    }
    return words_;
  }
  uint64_t key_, at_ = 0;
  std::array<uint32_t, 4> words_;
};

// (0, 1), both ends excluded: the middle of one of 2^32 or 2^52 equal cells, exact in f64.
inline double open_unit(uint32_t bits) { return (static_cast<double>(bits) + 0.5) * 0x1p-32; }
inline double open_unit(uint64_t bits) { return (static_cast<double>(bits >> 12) + 0.5) * 0x1p-52; }

}  // namespace random
}  // namespace tenon
