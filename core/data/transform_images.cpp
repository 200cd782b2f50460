// Augmentation of images [N,...,H,W], any element type: each sample draws from its own key, f(key, row in the
// batch).
#include <algorithm>

#include "core/base/random.h"
#include "core/data/transform_util.h"

namespace tenon {
namespace {

struct Planes {
  int64_t samples, planes, height, width;  // planes: of one sample
  size_t bytes;                            // of one element
};

class ImageTransform : public ColumnTransform {
 public:
  using ColumnTransform::ColumnTransform;
  bool training_only() const override { return true; }

 protected:
  Result<Planes> planes_of(const HostArray& x) const {
    const Shape& s = x.shape();
    const int r = s.rank();
    if (r < 3) return fail("needs images [N,...,H,W], got " + to_string(s));
    Planes p{s[0], 1, s[r - 2], s[r - 1], size_of(x.dtype())};
    for (int a = 1; a < r - 2; ++a) p.planes *= s[a];
    return p;
  }
};

class Flip final : public ImageTransform {
 public:
  Flip() : ImageTransform("flip") {}
  double probability = 0.5;

  Status apply(Columns& columns, uint64_t key) const override {
    TN_ASSIGN(HostArray * x, find(columns));
    TN_ASSIGN(const Planes p, planes_of(*x));
    const auto width = static_cast<size_t>(p.width);
    for (int64_t i = 0; i < p.samples; ++i) {
      if (Philox(split_key(key, static_cast<uint64_t>(i))).uniform() >= probability) continue;
      std::byte* line = x->data() + static_cast<size_t>(i * p.planes * p.height) * width * p.bytes;
      for (int64_t l = 0; l < p.planes * p.height; ++l, line += width * p.bytes)
        for (size_t a = 0; a + 1 < width - a; ++a)
          std::swap_ranges(line + a * p.bytes, line + (a + 1) * p.bytes, line + (width - 1 - a) * p.bytes);
    }
    return Status::ok();
  }
};

class Crop final : public ImageTransform {
 public:
  Crop() : ImageTransform("crop") {}
  int64_t padding = 4;

  Status apply(Columns& columns, uint64_t key) const override {
    TN_ASSIGN(HostArray * x, find(columns));
    TN_ASSIGN(const Planes p, planes_of(*x));
    HostArray out(x->dtype(), x->shape());
    const auto line_bytes = static_cast<size_t>(p.width) * p.bytes;
    for (int64_t i = 0; i < p.samples; ++i) {
      Philox random(split_key(key, static_cast<uint64_t>(i)));
      const auto places = static_cast<uint64_t>(2 * padding + 1);
      // Output pixel (r, c) is input pixel (r + dy, c + dx), or the zero padding.
      const int64_t dy = static_cast<int64_t>(random.below(places)) - padding;
      const int64_t dx = static_cast<int64_t>(random.below(places)) - padding;
      const int64_t begin = std::max<int64_t>(0, -dx), end = std::min(p.width, p.width - dx);
      if (begin >= end) continue;
      for (int64_t plane = 0; plane < p.planes; ++plane) {
        const auto base = static_cast<size_t>((i * p.planes + plane) * p.height) * line_bytes;
        for (int64_t r = std::max<int64_t>(0, -dy); r < std::min(p.height, p.height - dy); ++r)
          std::memcpy(
              out.data() + base + static_cast<size_t>(r) * line_bytes + static_cast<size_t>(begin) * p.bytes,
              x->data() + base + static_cast<size_t>(r + dy) * line_bytes +
                  static_cast<size_t>(begin + dx) * p.bytes,
              static_cast<size_t>(end - begin) * p.bytes);
      }
    }
    *x = std::move(out);
    return Status::ok();
  }
};

}  // namespace

TransformResult make_flip(const Options& options) {
  auto t = std::make_unique<Flip>();
  TN_RETURN_IF_ERROR(
      OptionBinder(options).get("column", t->column).get("probability", t->probability).finish());
  if (!(t->probability >= 0 && t->probability <= 1)) return invalid("probability must be in 0..1");
  return TransformResult(std::move(t));
}

TransformResult make_crop(const Options& options) {
  auto t = std::make_unique<Crop>();
  TN_RETURN_IF_ERROR(OptionBinder(options).get("column", t->column).get("padding", t->padding).finish());
  if (t->padding < 1 || t->padding > 4096) return invalid("padding must be in 1..4096");
  return TransformResult(std::move(t));
}

}  // namespace tenon
