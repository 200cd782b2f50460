// Delimited text split into cells; csv.cpp gives them meaning.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "core/data/reader_util.h"
#include "core/data/readers.h"

namespace tenon {

struct CsvTable {
  std::vector<std::string> header;
  std::vector<std::vector<std::string_view>> columns;  // trimmed cells, column by column
  std::vector<Place> places;                           // file and line of each row
  std::deque<std::string> storage;                     // what the views point into

  int64_t rows() const { return static_cast<int64_t>(places.size()); }
};

// All files, one after another; each has the same header (or none). Blank lines are skipped. Errors: no rows,
// ragged rows, a quote that is never closed, a column name twice, headers that differ between files.
Result<CsvTable> read_csv_table(const std::vector<std::string>& files, const CsvOptions& options);

}  // namespace tenon
