#include "tools/bench/values.h"

#include <cmath>

namespace tenon::bench {
namespace {

uint32_t fnv1a(std::string_view text) {
  uint32_t h = 2166136261u;
  for (const char c : text) h = (h ^ static_cast<uint8_t>(c)) * 16777619u;
  return h;
}

uint32_t mix(uint32_t h) {
  h = (h ^ h >> 16) * 0x85ebca6bu;
  h = (h ^ h >> 13) * 0xc2b2ae35u;
  return h ^ h >> 16;
}

template <class T, class F>
HostArray make(std::string_view name, const Shape& shape, F&& value, int64_t first = 0) {
  HostArray out(dtype_of<T>, shape);
  uint32_t counter = fnv1a(name) + 0x9e3779b9u * static_cast<uint32_t>(first);
  for (T& x : out.as<T>()) x = value(mix(counter += 0x9e3779b9u) >> 8);
  return out;
}

}  // namespace

HostArray uniform(std::string_view name, const Shape& shape, float centre, float half_width, int64_t first) {
  const auto value = [=](uint32_t h) {
    const float u = static_cast<float>(h) * 0x1p-23f - 1.0f;  // exact
    const float spread = half_width * u;
    return centre + spread;
  };
  return make<float>(name, shape, value, first);
}

HostArray data(std::string_view name, const Shape& shape, int64_t first) {
  return uniform(name, shape, 0, std::sqrt(3.0f), first);
}

HostArray integers(std::string_view name, const Shape& shape, int32_t n) {
  return make<int32_t>(name, shape,
                       [=](uint32_t h) { return static_cast<int32_t>(h % static_cast<uint32_t>(n)); });
}

HostArray initial(std::string_view parameter, const Shape& shape) {
  if (shape.rank() < 2)
    return parameter.ends_with("bias") ? uniform(parameter, shape, 0, 0.1f)
                                       : uniform(parameter, shape, 1, 0.1f);
  const int64_t area = shape.rank() == 4 ? shape[2] * shape[3] : 1;
  return uniform(parameter, shape, 0, 1 / std::sqrt(static_cast<float>(shape[1] * area)));
}

}  // namespace tenon::bench
