// CSV: what the cells of a table mean. Numbers and one-hot categories become x, one column the target.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <set>

#include "core/base/nearest.h"
#include "core/data/csv_table.h"

namespace tenon {
namespace {

enum class Role { drop, number, category, target, keep, text };

constexpr std::string_view kMissingCategory = "?";

bool is_missing(std::string_view s) {
  constexpr std::string_view names[] = {"", "?", "NA", "N/A", "NaN", "nan", "null", "NULL", "na", "n/a"};
  return std::find(std::begin(names), std::end(names), s) != std::end(names);
}

std::string exact_text(double v) {
  char s[32];
  std::snprintf(s, sizeof s, "%.17g", v);
  return s;
}

class Builder {
 public:
  Builder(const CsvTable& table, const CsvOptions& options, const Schema* like)
      : t_(table), o_(options), like_(like && !like->feature_names.empty() ? like : nullptr), known_(like) {}

  Result<Dataset> build() {
    TN_RETURN_IF_ERROR(assign_roles());
    TN_RETURN_IF_ERROR(find_categories());
    TN_RETURN_IF_ERROR(select_rows());
    TN_RETURN_IF_ERROR(learn());
    Dataset data(static_cast<int64_t>(rows_.size()));
    TN_RETURN_IF_ERROR(add_features(data));
    TN_RETURN_IF_ERROR(add_target(data));
    TN_RETURN_IF_ERROR(add_others(data));
    data.add_ids();
    return data;
  }

 private:
  std::string at(size_t row) const { return at_line(t_.places[row].path, t_.places[row].line); }
  std::string cell(size_t row, size_t column) const {
    return at(row) + "column '" + t_.header[column] + "' has '" +
           std::string(t_.columns[column][row].substr(0, 60)) + "'";
  }

  Result<size_t> index_of(const std::string& name, std::string_view option) const {
    const auto it = std::find(t_.header.begin(), t_.header.end(), name);
    if (it != t_.header.end()) return static_cast<size_t>(it - t_.header.begin());
    return not_found(std::string(t_.places[0].path) + ": has no column '" + name + "', which the option " +
                     std::string(option) + " names" + did_you_mean(name, t_.header));
  }

  Status assign(const std::vector<std::string>& names, std::string_view option, Role role) {
    for (const std::string& name : names) {
      TN_ASSIGN(const size_t c, index_of(name, option));
      if (roles_[c] != Role::number)
        return invalid("column '" + name + "' is named twice, the second time by the option " +
                       std::string(option));
      roles_[c] = role;
    }
    return Status::ok();
  }

  Status assign_roles() {
    roles_.assign(t_.header.size(), Role::number);
    if (o_.target_kind != "none") {
      const std::string name = o_.target.empty() ? t_.header.back() : o_.target;
      const auto found = index_of(name, "target");
      if (found) {
        roles_[*found] = Role::target;
        target_ = static_cast<int64_t>(*found);
      } else if (!o_.target_optional) {
        return found.status();
      }
    }
    TN_RETURN_IF_ERROR(assign(o_.drop, "drop", Role::drop));
    TN_RETURN_IF_ERROR(assign(o_.keep, "keep", Role::keep));
    TN_RETURN_IF_ERROR(assign(o_.text, "text", Role::text));
    return assign(o_.categorical, "categorical", Role::category);
  }

  // Marks further category columns: those of `like`, or by looking.
  Status find_categories() {
    for (size_t c = 0; c < roles_.size(); ++c) {
      if (roles_[c] != Role::number) continue;
      if (like_) {
        if (like_->categories.count(t_.header[c])) roles_[c] = Role::category;
      } else if (o_.auto_categorical) {
        const auto& cells = t_.columns[c];
        if (std::any_of(cells.begin(), cells.end(),
                        [](auto s) { return !is_missing(s) && !parse_number(s); }))
          roles_[c] = Role::category;
      }
    }
    return Status::ok();
  }

  // Which rows stay, and that nothing else is missing where it may not be.
  Status select_rows() {
    for (size_t r = 0; r < t_.places.size(); ++r) {
      bool whole = true;
      for (size_t c = 0; c < roles_.size() && whole; ++c) {
        if (roles_[c] == Role::drop || roles_[c] == Role::text || !is_missing(t_.columns[c][r])) continue;
        if (o_.missing == "drop") {
          whole = false;
        } else if (roles_[c] == Role::target || roles_[c] == Role::keep) {
          return invalid(at(r) + "no value in column '" + t_.header[c] +
                         "'; set missing: \"drop\" to leave such rows out");
        } else if (o_.missing == "error") {
          return invalid(at(r) + "no value in column '" + t_.header[c] +
                         "'; set missing to drop, keep, mean, median or mode");
        }
      }
      if (whole) rows_.push_back(r);
    }
    if (rows_.empty()) return invalid(std::string(t_.places[0].path) + ": no row is without a missing value");
    return Status::ok();
  }

  // Categories, fill values and feature names: from `like`, or from these rows.
  Status learn() {
    if (like_) {
      schema_ = *like_;
      for (size_t c = 0; c < roles_.size(); ++c)
        if (roles_[c] == Role::category && !schema_.categories.count(t_.header[c]))
          return invalid("column '" + t_.header[c] + "' is categorical here, but not in the training part");
      return Status::ok();
    }
    const bool fill = o_.missing == "mean" || o_.missing == "median" || o_.missing == "mode";
    for (size_t c = 0; c < roles_.size(); ++c) {
      if (roles_[c] != Role::number && roles_[c] != Role::category) continue;
      if (fill) TN_RETURN_IF_ERROR(learn_fill(c));
      if (roles_[c] == Role::number) continue;
      std::set<std::string> values;
      for (size_t r : rows_) values.insert(value_text(r, c));
      schema_.categories[t_.header[c]].assign(values.begin(), values.end());
    }
    return Status::ok();
  }

  Status learn_fill(size_t c) {
    std::map<std::string_view, int64_t> counts;
    std::map<double, int64_t> number_counts;
    std::vector<double> numbers;
    for (size_t r : rows_) {
      const std::string_view s = t_.columns[c][r];
      if (is_missing(s)) continue;
      if (roles_[c] == Role::category) {
        ++counts[s];
        continue;
      }
      TN_ASSIGN(const double v, number(r, c));
      numbers.push_back(v);
      ++number_counts[v];
    }
    if (counts.empty() && numbers.empty())
      return invalid(std::string(t_.places[0].path) + ": column '" + t_.header[c] +
                     "' has no value at all; drop it");
    const auto most = [](const auto& m) {  // the least of the most frequent
      return std::max_element(m.begin(), m.end(), [](auto& a, auto& b) { return a.second < b.second; })
          ->first;
    };
    std::string& out = schema_.fills[t_.header[c]];
    if (roles_[c] == Role::category) {
      out = std::string(most(counts));
    } else if (o_.missing == "mode") {
      out = exact_text(most(number_counts));
    } else if (o_.missing == "mean") {
      double sum = 0;
      for (double v : numbers) sum += v;
      out = exact_text(sum / static_cast<double>(numbers.size()));
    } else {
      std::sort(numbers.begin(), numbers.end());
      const size_t n = numbers.size();
      out = exact_text(n % 2 ? numbers[n / 2] : (numbers[n / 2 - 1] + numbers[n / 2]) / 2);
    }
    return Status::ok();
  }

  // The cell's text with missing values filled.
  std::string value_text(size_t r, size_t c) const {
    const std::string_view s = t_.columns[c][r];
    if (!is_missing(s)) return std::string(s);
    const auto it = schema_.fills.find(t_.header[c]);
    return it == schema_.fills.end() ? std::string(kMissingCategory) : it->second;
  }

  Result<double> number(size_t r, size_t c) const {
    const std::string_view s = t_.columns[c][r];
    if (const auto v = parse_number(s)) return *v;
    if (is_missing(s)) {
      const auto it = schema_.fills.find(t_.header[c]);
      const auto fill = it == schema_.fills.end() ? std::nullopt : parse_number(it->second);
      return fill ? *fill : std::numeric_limits<double>::quiet_NaN();
    }
    return invalid(
        cell(r, c) +
        ", which is not a finite number; correct it, or name the column in categorical, text or drop");
  }

  // Code of a category, -1 when unknown and allowed.
  Result<int32_t> code(size_t r, size_t c, const std::map<std::string_view, int32_t>& codes) const {
    const std::string value = value_text(r, c);
    if (const auto it = codes.find(value); it != codes.end()) return it->second;
    if (o_.unknown_category == "zeros" && o_.encoding == "onehot") return -1;
    return invalid(cell(r, c) + ", a category that the training part lacks" +
                   did_you_mean(value, schema_.categories.at(t_.header[c])) +
                   "; correct it, or set unknown_category: \"zeros\" (one-hot)");
  }

  Status add_features(Dataset& data) {
    const auto n = static_cast<int64_t>(rows_.size());
    const bool onehot = o_.encoding == "onehot";
    std::vector<std::string> names;
    std::vector<size_t> coded;
    std::vector<int64_t> begin(roles_.size());
    for (size_t c = 0; c < roles_.size(); ++c) {
      begin[c] = static_cast<int64_t>(names.size());
      if (roles_[c] == Role::number) names.push_back(t_.header[c]);
      if (roles_[c] != Role::category) continue;
      if (!onehot)
        coded.push_back(c);
      else
        for (const std::string& v : schema_.categories.at(t_.header[c]))
          names.push_back(t_.header[c] + "=" + v);
    }
    if (like_ && names != like_->feature_names) return differs(names);
    const auto width = static_cast<int64_t>(names.size());
    if (width > 0 && n > (int64_t{1} << 34) / width)
      return unsupported(std::string(t_.places[0].path) + ": " + std::to_string(n) + " x " +
                         std::to_string(width) +
                         " is too large for a dense table; use encoding: \"codes\" or drop columns");
    HostArray x(*dtype_from_name(o_.dtype), Shape{n, width});
    HostArray x_cat(DType::i32, Shape{n, static_cast<int64_t>(coded.size())});
    for (size_t c = 0, k = 0; c < roles_.size(); ++c) {
      if (roles_[c] != Role::number && roles_[c] != Role::category) continue;
      const bool category = roles_[c] == Role::category;
      std::map<std::string_view, int32_t> codes;
      if (category)
        for (const std::string& v : schema_.categories.at(t_.header[c]))
          codes.emplace(v, static_cast<int32_t>(codes.size()));
      for (int64_t i = 0; i < n; ++i) {
        const size_t r = rows_[static_cast<size_t>(i)];
        if (!category) {
          TN_ASSIGN(const double v, number(r, c));
          x.set(i * width + begin[c], v);
          continue;
        }
        TN_ASSIGN(const int32_t v, code(r, c, codes));
        if (!onehot)
          x_cat.as<int32_t>()[static_cast<size_t>(i) * coded.size() + k] = v;
        else if (v >= 0)
          x.set(i * width + begin[c] + v, 1);
      }
      k += category;
    }
    schema_.feature_names = std::move(names);
    data.schema = schema_;
    if (!coded.empty()) TN_RETURN_IF_ERROR(data.add("x_cat", std::move(x_cat)));
    return width > 0 ? data.add("x", std::move(x)) : Status::ok();
  }

  Status differs(const std::vector<std::string>& names) const {
    const auto [a, b] =
        std::mismatch(names.begin(), names.end(), like_->feature_names.begin(), like_->feature_names.end());
    const std::string here = a == names.end() ? "nothing" : "'" + *a + "'";
    const std::string there = b == like_->feature_names.end() ? "nothing" : "'" + *b + "'";
    return invalid(std::string(t_.places[0].path) + ": feature " + std::to_string(a - names.begin()) +
                   " is " + here + ", in the training part " + there +
                   "; give the same columns in the same order");
  }

  Status add_target(Dataset& data) {
    if (target_ < 0) return Status::ok();
    const auto c = static_cast<size_t>(target_);
    if (o_.target_kind == "number") {
      TN_ASSIGN(HostArray y, numbers(c, *dtype_from_name(o_.dtype)));
      return data.add("y", std::move(y));
    }
    std::vector<std::string_view> labels;
    std::vector<Place> where;
    for (size_t r : rows_) {
      labels.push_back(t_.columns[c][r]);
      where.push_back(t_.places[r]);
    }
    TN_ASSIGN(Labels y, encode_labels(labels, known_ ? known_->class_names : std::vector<std::string>{},
                                      where, t_.header[c]));
    data.schema.class_names = std::move(y.names);
    return data.add("y", std::move(y.values));
  }

  Status add_others(Dataset& data) {
    for (size_t c = 0; c < roles_.size(); ++c) {
      if ((roles_[c] == Role::keep || roles_[c] == Role::text) && data.has(t_.header[c]))
        return invalid("column '" + t_.header[c] +
                       "' can't be kept under its own name, which is already in use");
      if (roles_[c] == Role::keep) {
        TN_ASSIGN(HostArray v, numbers(c, DType::f32));
        TN_RETURN_IF_ERROR(data.add(t_.header[c], std::move(v)));
      } else if (roles_[c] == Role::text) {
        std::vector<std::string_view> strings;
        for (size_t r : rows_) strings.push_back(t_.columns[c][r]);
        TN_RETURN_IF_ERROR(add_text(data, t_.header[c], strings, o_.text_length));
      }
    }
    return Status::ok();
  }

  Result<HostArray> numbers(size_t c, DType dtype) const {
    HostArray out(dtype, Shape{static_cast<int64_t>(rows_.size())});
    for (size_t i = 0; i < rows_.size(); ++i) {
      TN_ASSIGN(const double v, number(rows_[i], c));
      out.set(static_cast<int64_t>(i), v);
    }
    return out;
  }

  const CsvTable& t_;
  const CsvOptions& o_;
  const Schema* like_;   // a schema that says what the features are, or null
  const Schema* known_;  // any schema: class names
  std::vector<Role> roles_;
  std::vector<size_t> rows_;
  int64_t target_ = -1;
  Schema schema_;
};

}  // namespace

Result<Dataset> read_csv(const std::vector<std::string>& files, const CsvOptions& options,
                         const Schema* like) {
  TN_RETURN_IF_ERROR(check_choice("target_kind", options.target_kind, {"class", "number", "none"}));
  TN_RETURN_IF_ERROR(check_choice("encoding", options.encoding, {"onehot", "codes"}));
  TN_RETURN_IF_ERROR(check_choice("unknown_category", options.unknown_category, {"error", "zeros"}));
  TN_RETURN_IF_ERROR(
      check_choice("missing", options.missing, {"error", "drop", "keep", "mean", "median", "mode"}));
  TN_RETURN_IF_ERROR(check_choice("dtype", options.dtype, {"f32", "f64"}));
  if (options.text_length < 0) return invalid("text_length is negative");
  TN_ASSIGN(const CsvTable table, read_csv_table(files, options));
  return Builder(table, options, like).build();
}

extern const Format csv_format;
const Format csv_format = {
    "csv", "tables of numbers and categories; delimiter \"tab\" for TSV",
    [](const std::vector<std::string>& files, const Options& options, const Schema* like) -> Result<Dataset> {
      CsvOptions o;
      TN_RETURN_IF_ERROR(OptionBinder(options)
                             .get("delimiter", o.delimiter)
                             .get("header", o.header)
                             .get("quote", o.quote)
                             .get("target", o.target)
                             .get("target_kind", o.target_kind)
                             .get("target_optional", o.target_optional)
                             .get("drop", o.drop)
                             .get("keep", o.keep)
                             .get("text", o.text)
                             .get("text_length", o.text_length)
                             .get("categorical", o.categorical)
                             .get("auto_categorical", o.auto_categorical)
                             .get("encoding", o.encoding)
                             .get("unknown_category", o.unknown_category)
                             .get("missing", o.missing)
                             .get("dtype", o.dtype)
                             .finish());
      return read_csv(files, o, like);
    }};

}  // namespace tenon
