#include "core/data/transform.h"

#include "core/base/nearest.h"
#include "core/base/random.h"
#include "core/data/transform_util.h"

namespace tenon {

Status Transform::fit(const Dataset&) { return Status::ok(); }
Columns Transform::state() const { return {}; }
Status Transform::load(const Columns&) { return Status::ok(); }

Result<HostArray*> ColumnTransform::find(Columns& columns) const {
  if (const auto it = columns.find(column); it != columns.end()) return &it->second;
  std::vector<std::string> names;
  for (const auto& [n, a] : columns) names.push_back(n);
  return not_found(where() + ": there is no such column" + did_you_mean(column, names));
}

Result<const HostArray*> ColumnTransform::find(const Dataset& data) const {
  auto found = data.column(column);
  if (!found) return std::move(found).status().at(where());
  return *found;
}

std::span<const TransformInfo> transforms() {
  static constexpr TransformInfo all[] = {
      {"standardize", "(x - mean) / std for each feature", make_standardize},
      {"minmax", "each feature to [low, high]", make_minmax},
      {"scale", "x * factor + offset", make_scale},
      {"normalize_channels", "(x - mean) / std for each channel", make_normalize_channels},
      {"impute", "missing values (NaN) to the median or mean", make_impute},
      {"linear_teacher", "y = x w with random w: regression with a known solution", make_linear_teacher},
      {"one_hot", "integers to indicator vectors", make_one_hot},
      {"reshape", "each sample to another shape", make_reshape},
      {"cast", "to another element type", make_cast},
      {"flip", "random left-right mirror of images", make_flip},
      {"crop", "random crop of zero-padded images", make_crop},
      {"center_crop", "the middle of images", make_center_crop},
      {"resize", "images to another size, bilinear", make_resize},
      {"label_noise", "some training labels to random classes", make_label_noise},
  };
  return all;
}

Result<std::unique_ptr<Transform>> make_transform(std::string_view id, const Options& options) {
  std::vector<std::string_view> ids;
  for (const TransformInfo& info : transforms()) {
    if (info.id == id) {
      auto made = info.make(options);
      if (!made) return std::move(made).status().at("transform '" + std::string(id) + "'");
      return made;
    }
    ids.push_back(info.id);
  }
  return not_found("no transform '" + std::string(id) + "'" + did_you_mean(id, ids));
}

Status fit_all(const std::vector<std::shared_ptr<Transform>>& list, const Dataset& train) {
  size_t last = list.size();  // nothing after the last one that learns needs to run
  while (last > 0 && !list[last - 1]->needs_fit()) --last;
  Dataset changed;
  const Dataset* now = &train;
  for (size_t i = 0; i < last; ++i) {
    if (list[i]->needs_fit()) TN_RETURN_IF_ERROR(list[i]->fit(*now));
    if (i + 1 == last || list[i]->training_only()) continue;
    if (now == &train) {
      changed = train;
      now = &changed;
    }
    TN_RETURN_IF_ERROR(list[i]->apply(changed.mutable_columns(), 0));
  }
  return Status::ok();
}

Status apply_all(const TransformList& list, Columns& columns, uint64_t key, bool training) {
  for (size_t i = 0; i < list.size(); ++i)
    if (training || !list[i]->training_only()) TN_RETURN_IF_ERROR(list[i]->apply(columns, split_key(key, i)));
  return Status::ok();
}

}  // namespace tenon
