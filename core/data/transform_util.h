// What the transforms share: finding their column, converting and mapping elements.
#pragma once

#include <memory>
#include <string>

#include "core/data/transform.h"

namespace tenon {

// Base of all transforms on one column.
class ColumnTransform : public Transform {
 public:
  explicit ColumnTransform(std::string_view id) : id_(id) {}
  std::string column = "x";

 protected:
  // Error: no such column, with the nearest name.
  Result<HostArray*> find(Columns& columns) const;
  Result<const HostArray*> find(const Dataset& data) const;
  Status fail(std::string message) const { return invalid(std::move(message)).at(where()); }
  std::string where() const { return "transform '" + std::string(id_) + "' of column '" + column + "'"; }

 private:
  std::string_view id_;
};

// f32 for integers, otherwise the type itself: what a real-valued result of `t` is stored as.
inline DType real_type(DType t) { return is_floating(t) ? t : DType::f32; }

// out[i] = f(in[i], i) in double, stored as `to`; the type is looked at once, not for each element.
template <class F>
HostArray map_elements(const HostArray& in, DType to, F&& f) {
  HostArray out(to, in.shape());
  dispatch(in.dtype(), [&](auto from_tag) {
    dispatch(to, [&](auto to_tag) {
      using To = decltype(to_tag);
      const auto src = in.as<decltype(from_tag)>();
      const auto dst = out.as<To>();
      for (size_t i = 0; i < src.size(); ++i) {
        const double v = f(static_cast<double>(src[i]), i);
        if constexpr (std::is_same_v<To, bf16>)
          dst[i] = bf16(static_cast<float>(v));
        else
          dst[i] = static_cast<To>(v);
      }
    });
  });
  return out;
}

// The factories listed in transform.cpp.
using TransformResult = Result<std::unique_ptr<Transform>>;
TransformResult make_standardize(const Options&);
TransformResult make_minmax(const Options&);
TransformResult make_scale(const Options&);
TransformResult make_normalize_channels(const Options&);
TransformResult make_impute(const Options&);
TransformResult make_linear_teacher(const Options&);
TransformResult make_one_hot(const Options&);
TransformResult make_reshape(const Options&);
TransformResult make_cast(const Options&);
TransformResult make_flip(const Options&);
TransformResult make_crop(const Options&);
TransformResult make_center_crop(const Options&);
TransformResult make_resize(const Options&);
TransformResult make_label_noise(const Options&);

}  // namespace tenon
