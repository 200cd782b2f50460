// Made data for tests and first steps; see readers.h for what each kind is.
#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/base/random.h"
#include "core/data/readers.h"

namespace tenon {
namespace {

using Maker = Status (*)(const SyntheticOptions&, Philox& problem, Philox& samples, Dataset& out);

Status add_xy(Dataset& out, const std::vector<float>& x, Shape x_shape, HostArray y, int64_t classes) {
  for (int64_t c = 0; c < classes; ++c) out.schema.class_names.push_back(std::to_string(c));
  TN_RETURN_IF_ERROR(out.add("x", HostArray::of<float>(x, x_shape)));
  return out.add("y", std::move(y));
}

Status linear(const SyntheticOptions& o, Philox& problem, Philox& samples, Dataset& out) {
  std::vector<double> w(static_cast<size_t>(o.features));
  for (double& v : w) v = problem.normal();
  std::vector<float> x, y;
  for (int64_t i = 0; i < o.n; ++i) {
    double sum = 1;
    for (double wj : w) {
      x.push_back(static_cast<float>(samples.normal()));
      sum += wj * static_cast<double>(x.back());
    }
    y.push_back(static_cast<float>(sum + o.noise * samples.normal()));
  }
  return add_xy(out, x, Shape{o.n, o.features}, HostArray::of(y), 0);
}

Status blobs(const SyntheticOptions& o, Philox& problem, Philox& samples, Dataset& out) {
  std::vector<double> centres(static_cast<size_t>(o.classes * o.features));
  for (double& v : centres) v = 3 * problem.normal();
  std::vector<float> x;
  std::vector<int32_t> y;
  for (int64_t i = 0; i < o.n; ++i) {
    const int64_t c = i % o.classes;
    y.push_back(static_cast<int32_t>(c));
    for (int64_t j = 0; j < o.features; ++j)
      x.push_back(
          static_cast<float>(centres[static_cast<size_t>(c * o.features + j)] + o.noise * samples.normal()));
  }
  return add_xy(out, x, Shape{o.n, o.features}, HostArray::of(y), o.classes);
}

Status moons(const SyntheticOptions& o, Philox&, Philox& samples, Dataset& out) {
  std::vector<float> x;
  std::vector<int32_t> y;
  for (int64_t i = 0; i < o.n; ++i) {
    const bool second = i % 2 == 1;
    const double a = std::numbers::pi * samples.uniform();
    x.push_back(static_cast<float>((second ? 1 - std::cos(a) : std::cos(a)) + o.noise * samples.normal()));
    x.push_back(static_cast<float>((second ? 0.5 - std::sin(a) : std::sin(a)) + o.noise * samples.normal()));
    y.push_back(second);
  }
  return add_xy(out, x, Shape{o.n, 2}, HostArray::of(y), 2);
}

Status xor_squares(const SyntheticOptions& o, Philox&, Philox& samples, Dataset& out) {
  std::vector<float> x;
  std::vector<int32_t> y;
  for (int64_t i = 0; i < o.n; ++i) {
    const double a = 2 * samples.uniform() - 1, b = 2 * samples.uniform() - 1;
    x.push_back(static_cast<float>(a + o.noise * samples.normal()));
    x.push_back(static_cast<float>(b + o.noise * samples.normal()));
    y.push_back(a * b < 0);
  }
  return add_xy(out, x, Shape{o.n, 2}, HostArray::of(y), 2);
}

Status images(const SyntheticOptions& o, Philox&, Philox& samples, Dataset& out) {
  HostArray x(DType::u8, Shape{o.n, o.channels, o.size, o.size}), y(DType::i32, Shape{o.n});
  const auto pixels = x.as<uint8_t>();
  size_t at = 0;
  for (int64_t i = 0; i < o.n; ++i) {
    const int64_t c = i % o.classes;
    y.as<int32_t>()[static_cast<size_t>(i)] = static_cast<int32_t>(c);
    // Class c lights the c-th of `classes` equal runs of pixels.
    const int64_t area = o.size * o.size, begin = c * area / o.classes, end = (c + 1) * area / o.classes;
    for (int64_t ch = 0; ch < o.channels; ++ch)
      for (int64_t p = 0; p < area; ++p)
        pixels[at++] = static_cast<uint8_t>(samples.below(100) + (p >= begin && p < end ? 156 : 0));
  }
  for (int64_t c = 0; c < o.classes; ++c) out.schema.class_names.push_back(std::to_string(c));
  TN_RETURN_IF_ERROR(out.add("x", std::move(x)));
  return out.add("y", std::move(y));
}

Status tokens(const SyntheticOptions& o, Philox&, Philox& samples, Dataset& out) {
  const auto v = static_cast<uint64_t>(o.classes);
  std::vector<int32_t> t;
  for (int64_t i = 0; i < o.n; ++i) {
    const bool fresh = i == 0 || samples.uniform() < o.noise;
    const uint64_t drawn = samples.below(v);
    t.push_back(static_cast<int32_t>(fresh ? drawn : (static_cast<uint64_t>(t.back()) + 1) % v));
  }
  for (int64_t c = 0; c < o.classes; ++c) out.schema.vocabulary.push_back("<" + std::to_string(c) + ">");
  out.schema.text_level = "chars";
  return out.add("tokens", HostArray::of(t));
}

struct Kind {
  std::string_view id;
  Maker make;
};
constexpr Kind kKinds[] = {{"linear", linear},   {"blobs", blobs},   {"moons", moons},
                           {"xor", xor_squares}, {"images", images}, {"tokens", tokens}};

}  // namespace

Result<Dataset> make_synthetic(const SyntheticOptions& o) {
  TN_RETURN_IF_ERROR(check_choice("kind", o.kind, {"linear", "blobs", "moons", "xor", "images", "tokens"}));
  for (const auto& [name, value] : {std::pair{"n", o.n},
                                    {"features", o.features},
                                    {"classes", o.classes},
                                    {"channels", o.channels},
                                    {"size", o.size}})
    if (value < 1 || value > 100'000'000)
      return invalid("option '" + std::string(name) + "' is " + std::to_string(value) +
                     ", must be in 1..100000000");
  if (!(o.noise >= 0) || !std::isfinite(o.noise))
    return invalid("option 'noise' must be a finite number from 0");
  // 2^31 elements keep a mistyped size from taking all memory.
  const auto real = [](int64_t v) { return static_cast<double>(v); };
  const double width = o.kind == "images" ? real(o.channels) * real(o.size) * real(o.size) : real(o.features);
  const double elements = std::max(real(o.n), real(o.classes)) * width;
  if (elements > 2147483648.0)
    return invalid("synthetic data of this size would have over 2147483648 elements");
  const auto seed = static_cast<uint64_t>(o.seed);
  Philox problem(seed, "synthetic problem");
  Philox samples(split_key(split_key(seed, "synthetic samples"), static_cast<uint64_t>(o.part)));
  Dataset out;
  for (const Kind& kind : kKinds)
    if (kind.id == o.kind) TN_RETURN_IF_ERROR(kind.make(o, problem, samples, out));
  out.add_ids();
  return out;
}

extern const Format synthetic_format;
const Format synthetic_format = {
    "synthetic", "made data: linear, blobs, moons, xor, images, tokens",
    [](const std::vector<std::string>& files, const Options& options, const Schema*) -> Result<Dataset> {
      if (!files.empty()) return invalid("synthetic data are made, not read: give no files");
      SyntheticOptions o;
      TN_RETURN_IF_ERROR(OptionBinder(options)
                             .get("kind", o.kind)
                             .get("n", o.n)
                             .get("features", o.features)
                             .get("classes", o.classes)
                             .get("channels", o.channels)
                             .get("size", o.size)
                             .get("noise", o.noise)
                             .get("seed", o.seed)
                             .get("part", o.part)
                             .finish());
      return make_synthetic(o);
    }};

}  // namespace tenon
