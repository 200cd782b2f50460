// Reads the data streams of a recipe: parts, splits, transforms, batches.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/data/batcher.h"
#include "core/data/dataset.h"
#include "core/data/transform.h"
#include "core/train/recipe.h"

namespace tenon {

using DatasetPtr = std::shared_ptr<const Dataset>;

struct DataStream {
  std::string name;
  DatasetPtr train, val, test;                         // as read; null where the recipe gives no such part
  std::vector<std::shared_ptr<Transform>> transforms;  // fitted on train, applied by the batchers
  int64_t outputs = 0;  // what a model should give: classes of y, numbers in a row of y, or the vocabulary
  int64_t vocab = 0;    // token streams
  int64_t context = 0;  // token streams: length of a window

  // "train", "val" or "test"; null when there is none.
  DatasetPtr part(std::string_view split) const;
  TransformList transform_list() const { return {transforms.begin(), transforms.end()}; }
};

// Reads stream `index` of the recipe: training part and its splits, val and test files with the training
// part's schema (categories, vocabulary), transforms fitted. `data_root`: see find_data. Errors (with the
// recipe's line): missing or damaged files, unknown options, NaN or infinity in x, labels of val or test that
// train lacks, splits that leave nothing.
Result<DataStream> read_stream(const Recipe& recipe, int index, const std::string& data_root);

// Batches for training: shuffled rows (unless shuffle: false), or windows at random places of a token stream.
Result<std::unique_ptr<Batcher>> train_batcher(const Recipe& recipe, int index, const DataStream& stream,
                                               uint64_t seed);

// Batches of a part in order, each sample once. max_batches > 0: at most so many, spread evenly over the
// part.
Result<std::unique_ptr<Batcher>> eval_batcher(const Recipe& recipe, int index, const DataStream& stream,
                                              const DatasetPtr& part, int64_t max_batches = 0);

}  // namespace tenon
