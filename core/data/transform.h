// Transforms: fitted on the training part, applied unchanged to whole data sets or batch by batch.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/data/dataset.h"
#include "core/data/options.h"

namespace tenon {

class Transform {
 public:
  virtual ~Transform() = default;
  // Learns what is needed from the training part (mean, range, ..); default: nothing. Error: no such column,
  // NaN.
  virtual Status fit(const Dataset& train);
  // Changes the columns in place. `key` drives augmentation only: same key, same result.
  virtual Status apply(Columns& columns, uint64_t key) const = 0;
  virtual bool needs_fit() const { return false; }
  // Whether it is for training batches only (flip, crop): leave it out elsewhere.
  virtual bool training_only() const { return false; }
  // What fit learned, for a checkpoint; load(state()) makes an equal transform.
  virtual Columns state() const;
  virtual Status load(const Columns& state);
};

// Every transform has the option `column` (default "x"). Integers become f32 where the result is real.
//   standardize         (x - mean) / std for each feature; std 0 -> 1; population std, as in scikit-learn
//   minmax              to [low, high] (0, 1) for each feature; constant feature -> low
//   scale               x * factor + offset; options factor (1), offset (0)
//   normalize_channels  (x - mean[c]) / std[c], x: [N,C,...]; options mean, std (lists), else fitted
//   impute              NaN -> mean | median of the training part; option with (median)
//   linear_teacher      y = x w, w ~ N(0, 1/features): a known solution; option seed (0)
//   one_hot             integers [N] -> f32 [N,classes]; options classes (0 = largest seen in fit + 1), to (same column)
//   reshape             each row to `shape`; one -1 allowed; default: [-1], flat
//   cast                to dtype
//   flip                mirrors each image left-right with `probability` (0.5), x: [N,...,H,W]; training only
//   crop                pads by `padding` (4) zeros, cuts H x W at a random place, x: [N,...,H,W]; training only
//   center_crop         the middle `size` x `size` of each image, x: [N,...,H,W]
//   resize              each image to `size` x `size`, bilinear between pixel centres, edges repeated, no smoothing
//   label_noise         integers [N] of column y: with probability `rate` a class drawn from all `classes`, the right one
//                       among them, or, of kind "next", the class after the right one; depends on `seed` (0) and the sample's
//                       id alone; `mark` names a column that is 1 where the label is wrong now; training only
struct TransformInfo {
  std::string_view id;
  std::string_view summary;
  Result<std::unique_ptr<Transform>> (*make)(const Options& options);
};
std::span<const TransformInfo> transforms();
// Errors: no such id (with the nearest name), wrong options.
Result<std::unique_ptr<Transform>> make_transform(std::string_view id, const Options& options);

using TransformList = std::vector<std::shared_ptr<const Transform>>;

// Fits each transform that needs it on `train` as changed by those before it. `train` itself is left alone
// (it is copied only when a transform that learns follows one that changes), so that transforms may be
// applied batch by batch.
Status fit_all(const std::vector<std::shared_ptr<Transform>>& list, const Dataset& train);
// Applies in order; skips training_only ones unless `training`.
Status apply_all(const TransformList& list, Columns& columns, uint64_t key, bool training);

}  // namespace tenon
