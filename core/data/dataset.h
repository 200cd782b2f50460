// A data set in memory: named columns that share their leading dimension, and what is known about them.
#pragma once

#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/status.h"
#include "core/tensor/host_array.h"

namespace tenon {

// Conventional names: "x" features, "y" target, "id" sample number (i64), "tokens" a token stream (i32).
using Columns = std::map<std::string, HostArray, std::less<>>;

// What is learned from the training part and must be applied unchanged to every other part: stored in a
// checkpoint.
struct Schema {
  std::vector<std::string> feature_names;  // of the last axis of x, when known
  std::vector<std::string> class_names;    // of y = 0, 1, ..
  std::vector<std::string> vocabulary;     // text: token number -> its bytes; empty when level is "bytes"
  std::string text_level;                  // "", "bytes" or "chars"
  std::map<std::string, std::vector<std::string>> categories;  // CSV: column -> value of code 0, 1, ..
  std::map<std::string, std::string> fills;                    // CSV: column -> what a missing value becomes
  int64_t features = 0;                                        // LIBSVM: width of x

  int64_t vocabulary_size() const {
    return text_level == "bytes" ? 256 : static_cast<int64_t>(vocabulary.size());
  }
  // JSON, for checkpoints: from_json(to_json(s)) is s.
  std::string to_json() const;
  static Result<Schema> from_json(std::string_view json);
  friend bool operator==(const Schema&, const Schema&) = default;
};

class Dataset {
 public:
  Dataset() = default;
  explicit Dataset(int64_t size) : size_(size) {}

  int64_t size() const { return size_; }
  const Columns& columns() const { return columns_; }
  Columns& mutable_columns() { return columns_; }
  Schema schema;

  // Adds or replaces a column. Error: rank 0, or a leading dimension other than size() (the first column sets
  // it).
  Status add(std::string name, HostArray values);
  // Adds "id" = 0 .. size()-1 unless the set has one.
  void add_ids();
  bool has(std::string_view name) const { return columns_.find(name) != columns_.end(); }
  // Error: no such column, with the nearest name.
  Result<const HostArray*> column(std::string_view name) const;

  // The given rows, in the given order, of every column.
  Dataset take(std::span<const int64_t> rows) const;
  // The rows of `other` after one's own. Error: other columns, types or row shapes.
  Status append(const Dataset& other);

 private:
  int64_t size_ = -1;
  Columns columns_;
};

// The files of a token stream, or all rows of other data: [begin, end) of each.
std::vector<std::pair<int64_t, int64_t>> file_ranges(const Dataset& data);

// Rows `rows` of `a` (axis 0).
HostArray gather_rows(const HostArray& a, std::span<const int64_t> rows);

// Row `row` of every column must be a whole number in 0 .. classes-1. Error names the row and the value.
Status check_labels(const HostArray& labels, int64_t classes, std::string_view column = "y");
// No NaN, no infinity. Error names the row and the feature (by name where `feature_names` fits the last
// axis).
Status check_finite(const HostArray& values, std::string_view column = "x",
                    std::span<const std::string> feature_names = {});

}  // namespace tenon
