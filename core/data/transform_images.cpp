// Transforms of images [N,...,H,W]: augmentation, where each sample draws from its own key, f(key, row in the batch), of any
// element type; middle and size.
#include <algorithm>
#include <cmath>

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

// The shape of x with images of another size.
Shape resized(const HostArray& x, int64_t size) {
  Shape s = x.shape();
  s[s.rank() - 2] = s[s.rank() - 1] = size;
  return s;
}

class Flip final : public ImageTransform {
 public:
  Flip() : ImageTransform("flip") {}
  double probability = 0.5;
  bool training_only() const override { return true; }

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
  bool training_only() const override { return true; }

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

class CenterCrop final : public ImageTransform {
 public:
  CenterCrop() : ImageTransform("center_crop") {}
  int64_t size = 0;

  Status apply(Columns& columns, uint64_t) const override {
    TN_ASSIGN(HostArray * x, find(columns));
    TN_ASSIGN(const Planes p, planes_of(*x));
    if (p.height < size || p.width < size)
      return fail("images of " + std::to_string(p.height) + " x " + std::to_string(p.width) + " have no middle of size " + std::to_string(size));
    HostArray out(x->dtype(), resized(*x, size));
    const int64_t top = (p.height - size) / 2, left = (p.width - size) / 2;
    const auto line = static_cast<size_t>(size) * p.bytes;
    for (int64_t plane = 0; plane < p.samples * p.planes; ++plane)
      for (int64_t r = 0; r < size; ++r)
        std::memcpy(out.data() + static_cast<size_t>(plane * size + r) * line,
                    x->data() + static_cast<size_t>((plane * p.height + top + r) * p.width + left) * p.bytes, line);
    *x = std::move(out);
    return Status::ok();
  }
};

class Resize final : public ImageTransform {
 public:
  Resize() : ImageTransform("resize") {}
  int64_t size = 0;

  Status apply(Columns& columns, uint64_t) const override {
    TN_ASSIGN(HostArray * x, find(columns));
    TN_ASSIGN(const Planes p, planes_of(*x));
    if (p.height < 1 || p.width < 1) return fail("images of size 0 can't be resized");
    const std::vector<Between> rows = places(p.height), cols = places(p.width);
    HostArray out(real_type(x->dtype()), resized(*x, size));
    int64_t to = 0;
    for (int64_t plane = 0; plane < p.samples * p.planes; ++plane) {
      const int64_t base = plane * p.height * p.width;
      for (const Between& r : rows)
        for (const Between& c : cols) {
          const auto at = [&](int64_t row, int64_t col) { return x->at(base + row * p.width + col); };
          const double above = at(r.low, c.low) * (1 - c.share) + at(r.low, c.high) * c.share;
          const double below = at(r.high, c.low) * (1 - c.share) + at(r.high, c.high) * c.share;
          out.set(to++, above * (1 - r.share) + below * r.share);
        }
    }
    *x = std::move(out);
    return Status::ok();
  }

 private:
  struct Between {  // two lines, and how much the second counts
    int64_t low, high;
    double share;
  };
  // Where the centres of `size` lines lie among those of `from`.
  std::vector<Between> places(int64_t from) const {
    std::vector<Between> out;
    for (int64_t i = 0; i < size; ++i) {
      const double centre = (static_cast<double>(i) + 0.5) * static_cast<double>(from) / static_cast<double>(size) - 0.5;
      const double inside = std::clamp(centre, 0.0, static_cast<double>(from - 1));
      const auto low = static_cast<int64_t>(std::floor(inside));
      out.push_back({low, std::min(low + 1, from - 1), inside - static_cast<double>(low)});
    }
    return out;
  }
};

template <class T>
TransformResult make_sized(const Options& options) {
  auto t = std::make_unique<T>();
  TN_RETURN_IF_ERROR(OptionBinder(options).get("column", t->column).get("size", t->size).finish());
  if (t->size < 1 || t->size > 4096) return invalid("size must be in 1..4096");
  return TransformResult(std::move(t));
}

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

TransformResult make_center_crop(const Options& options) { return make_sized<CenterCrop>(options); }
TransformResult make_resize(const Options& options) { return make_sized<Resize>(options); }

}  // namespace tenon
