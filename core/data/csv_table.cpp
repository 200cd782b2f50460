#include "core/data/csv_table.h"

#include <set>

#include "core/data/files.h"

namespace tenon {
namespace {

// Cuts a text into records of cells, after RFC 4180: a quoted cell may hold delimiters, line ends and doubled
// quotes.
class Cells {
 public:
  Cells(std::string_view text, std::string_view path, char delimiter, char quote,
        std::deque<std::string>& storage)
      : rest_(text), path_(path), delimiter_(delimiter), quote_(quote), storage_(storage) {}

  // The next non-blank record; false at the end of the text.
  Result<bool> next(std::vector<std::string_view>& cells) {
    for (;;) {
      if (rest_.empty()) return false;
      record_line_ = ++line_;
      const size_t end = std::min(rest_.find('\n'), rest_.size());
      if (!trim(rest_.substr(0, end)).empty()) break;
      rest_.remove_prefix(std::min(end + 1, rest_.size()));
    }
    cells.clear();
    for (bool more = true; more;) {
      TN_ASSIGN(const std::string_view cell, next_cell(more));
      cells.push_back(cell);
    }
    return true;
  }
  int64_t line() const { return record_line_; }

 private:
  // Takes one cell and what ends it; `more`: a delimiter, so that another cell of the record follows.
  Result<std::string_view> next_cell(bool& more) {
    const size_t first = rest_.find_first_not_of(delimiter_ == ' ' ? "" : " ");
    if (quote_ && first != std::string_view::npos && rest_[first] == quote_) {
      rest_.remove_prefix(first + 1);
      return quoted_cell(more);
    }
    size_t end = 0;
    while (end < rest_.size() && rest_[end] != delimiter_ && rest_[end] != '\n') ++end;
    const std::string_view cell = trim(rest_.substr(0, end));
    finish_cell(end, more);
    return cell;
  }

  Result<std::string_view> quoted_cell(bool& more) {
    const int64_t begin = line_;
    std::string text;
    for (size_t i = 0; i < rest_.size(); ++i) {
      if (rest_[i] == '\n') ++line_;
      if (rest_[i] != quote_) {
        text += rest_[i];
      } else if (i + 1 < rest_.size() && rest_[i + 1] == quote_) {
        text += rest_[i++];
      } else {
        size_t end = i + 1;
        while (end < rest_.size() && rest_[end] != delimiter_ && rest_[end] != '\n') ++end;
        if (!trim(rest_.substr(i + 1, end - i - 1)).empty())
          return invalid(at_line(path_, line_) +
                         "text follows a closing quote; double quotes inside a quoted cell");
        finish_cell(end, more);
        storage_.push_back(std::move(text));
        return std::string_view(storage_.back());
      }
    }
    return invalid(at_line(path_, begin) +
                   "a quote is never closed; close it, or set quote: \"\" if quotes mean nothing here");
  }

  void finish_cell(size_t end, bool& more) {
    more = end < rest_.size() && rest_[end] == delimiter_;
    rest_.remove_prefix(std::min(end + 1, rest_.size()));
    // A delimiter as the very last byte ends an empty last cell.
    if (more && rest_.empty()) rest_ = "\n";
  }

  std::string_view rest_, path_;
  char delimiter_, quote_;
  std::deque<std::string>& storage_;
  int64_t line_ = 0, record_line_ = 0;
};

Result<char> delimiter_of(const std::string& s) {
  if (s == "tab" || s == "\\t") return '\t';
  if (s.size() == 1 && s[0] != '\n' && s[0] != '\r') return s[0];
  return invalid("delimiter must be one character or \"tab\", not '" + s + "'");
}

Status add_header(const std::vector<std::string_view>& cells, const std::string& path, int64_t line,
                  bool first_file, CsvTable& table) {
  std::vector<std::string> names(cells.begin(), cells.end());
  for (size_t c = 0; c < names.size(); ++c)
    if (names[c].empty()) names[c] = "c" + std::to_string(c);
  if (!first_file) {
    if (names == table.header) return Status::ok();
    return invalid(at_line(path, line) + "the column names differ from those of the first file");
  }
  std::set<std::string> seen;
  for (const std::string& n : names)
    if (!seen.insert(n).second)
      return invalid(at_line(path, line) + "the column name '" + n + "' appears twice");
  table.header = std::move(names);
  table.columns.resize(table.header.size());
  return Status::ok();
}

Status add_file(const std::string& path, bool first_file, const CsvOptions& options, char delimiter,
                CsvTable& table) {
  TN_ASSIGN(std::string content, read_file(path));
  table.storage.push_back(std::move(content));
  std::string_view text = table.storage.back();
  if (text.substr(0, 3) == "\xef\xbb\xbf") text.remove_prefix(3);  // byte order mark
  Cells cells(text, path, delimiter, options.quote.empty() ? '\0' : options.quote[0], table.storage);
  std::vector<std::string_view> record;
  bool expect_header = options.header;
  for (;;) {
    TN_ASSIGN(const bool more, cells.next(record));
    if (!more) break;
    if (expect_header) {
      expect_header = false;
      TN_RETURN_IF_ERROR(add_header(record, path, cells.line(), first_file, table));
      continue;
    }
    if (table.header.empty()) {
      for (size_t c = 0; c < record.size(); ++c) table.header.push_back("c" + std::to_string(c));
      table.columns.resize(table.header.size());
    }
    if (record.size() != table.header.size())
      return invalid(at_line(path, cells.line()) + "has " + std::to_string(record.size()) +
                     " cells, expected " + std::to_string(table.header.size()) + "; is the delimiter '" +
                     options.delimiter + "'?");
    for (size_t c = 0; c < record.size(); ++c) table.columns[c].push_back(record[c]);
    table.places.push_back({path, cells.line()});
  }
  return Status::ok();
}

}  // namespace

Result<CsvTable> read_csv_table(const std::vector<std::string>& files, const CsvOptions& options) {
  if (files.empty()) return invalid("csv needs at least one file");
  if (options.quote.size() > 1)
    return invalid("quote must be one character or \"\", not '" + options.quote + "'");
  TN_ASSIGN(const char delimiter, delimiter_of(options.delimiter));
  CsvTable table;
  for (size_t f = 0; f < files.size(); ++f)
    TN_RETURN_IF_ERROR(add_file(files[f], f == 0, options, delimiter, table));
  if (table.rows() == 0) return invalid(files[0] + ": has no rows of data");
  return table;
}

}  // namespace tenon
