// Attributes of an operation: named integers, reals and integer lists, packed into words that hash and compare fast.
#pragma once

#include <bit>
#include <cassert>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "core/tensor/shape.h"

namespace tenon {

enum class AttrKind : uint8_t { i64, f64, ints };

// One attribute of an op's signature. A plugin that leaves it out gets the default (lists default to empty).
struct AttrSpec {
  std::string_view name;
  AttrKind kind;
  bool required = false;
  int64_t i = 0;
  double f = 0;
};

// Attribute values in the order of the op's signature. `AttrList().i(axis).f(eps).ints(axes)`.
class AttrList {
 public:
  AttrList& i(int64_t v) { return word(v); }
  AttrList& f(double v) { return word(std::bit_cast<int64_t>(v)); }
  AttrList& ints(std::span<const int64_t> v) {
    word(static_cast<int64_t>(v.size()));
    for (int64_t x : v) word(x);
    return *this;
  }
  std::span<const int64_t> words() const {
    return spill_.empty() ? std::span<const int64_t>(inline_, size_) : std::span<const int64_t>(spill_);
  }

 private:
  AttrList& word(int64_t v) {
    if (spill_.empty() && size_ < kInline) {
      inline_[size_++] = v;
    } else {
      if (spill_.empty()) spill_.assign(inline_, inline_ + size_);
      spill_.push_back(v);
    }
    return *this;
  }
  static constexpr size_t kInline = 12;
  int64_t inline_[kInline];
  size_t size_ = 0;
  std::vector<int64_t> spill_;
};

// Read access by name; the names are those of the op's signature.
class Attrs {
 public:
  Attrs() = default;
  Attrs(std::span<const AttrSpec> spec, std::span<const int64_t> words) : spec_(spec), words_(words) {}
  int64_t i(std::string_view name) const { return words_[find(name)]; }
  bool flag(std::string_view name) const { return i(name) != 0; }
  double f(std::string_view name) const { return std::bit_cast<double>(words_[find(name)]); }
  std::span<const int64_t> ints(std::string_view name) const {
    const size_t at = find(name);
    return words_.subspan(at + 1, static_cast<size_t>(words_[at]));
  }
  Dims dims(std::string_view name) const { return Dims(ints(name)); }
  std::span<const AttrSpec> spec() const { return spec_; }
  std::span<const int64_t> words() const { return words_; }

 private:
  size_t find(std::string_view name) const {
    size_t at = 0;
    for (const AttrSpec& s : spec_) {
      if (s.name == name) return at;
      at += s.kind == AttrKind::ints ? 1 + static_cast<size_t>(words_[at]) : 1;
    }
    assert(false && "attribute not in the signature of the op");
    return 0;
  }
  std::span<const AttrSpec> spec_;
  std::span<const int64_t> words_;
};

}  // namespace tenon
