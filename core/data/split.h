// Splitting a data set in two: the rows that stay, and the rows held out.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/data/dataset.h"

namespace tenon {

struct SplitOptions {
  std::string how = "random";  // random | stratified (each class in proportion) | first | last (of each file of a token stream)
  double fraction = 0;         // share held out, in (0, 1); or
  int64_t count = 0;           // number of rows held out; exactly one of the two is given
  uint64_t seed = 0;
  std::string label = "y";  // integer column for stratified
};

struct SplitRows {
  std::vector<int64_t> rest, held;  // ascending, disjoint, together all rows
};

// Errors: nothing or everything held out, fraction and count both or neither given, no integer column
// `label`.
Result<SplitRows> split_rows(const Dataset& data, const SplitOptions& options);

// Fold `fold` of `k` (0 <= fold < k) is held out; folds differ by at most one row.
Result<SplitRows> k_fold(const Dataset& data, int64_t k, int64_t fold, uint64_t seed);

struct SplitData {
  Dataset rest, held;
};
Result<SplitData> split(const Dataset& data, const SplitOptions& options);

}  // namespace tenon
