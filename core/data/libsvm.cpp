// LIBSVM / SVMlight text: "label index:value index:value ...", indices ascending, zeros left out.
// https://www.csie.ntu.edu.tw/~cjlin/libsvm/
#include <charconv>

#include "core/data/files.h"
#include "core/data/reader_util.h"
#include "core/data/readers.h"

namespace tenon {
namespace {

struct Sparse {
  std::vector<std::string> contents;  // the views below point into these
  std::vector<std::string_view> labels;
  std::vector<Place> places;
  std::vector<size_t> row_end;  // entries of row i: row_end[i-1] .. row_end[i]
  std::vector<int64_t> index;   // from 0
  std::vector<double> value;
  int64_t width = 0;
};

// The next blank-separated token, removed from `rest`.
std::string_view next_token(std::string_view& rest) {
  const size_t begin = rest.find_first_not_of(" \t");
  if (begin == std::string_view::npos) return rest = {};
  rest.remove_prefix(begin);
  const size_t end = std::min(rest.find_first_of(" \t"), rest.size());
  const std::string_view token = rest.substr(0, end);
  rest.remove_prefix(end);
  return token;
}

Status parse_entries(std::string_view rest, int64_t base, Sparse& out) {
  int64_t previous = -1;
  for (std::string_view token = next_token(rest); !token.empty(); token = next_token(rest)) {
    const std::string quoted = "'" + std::string(token.substr(0, 40)) + "'";
    const size_t colon = token.find(':');
    if (colon == std::string_view::npos) return invalid(quoted + " is not of the form index:value");
    if (token.substr(0, colon) == "qid")
      return unsupported("query ids (qid:) are not supported; remove them");
    int64_t index = 0;
    const auto [end, ec] = std::from_chars(token.data(), token.data() + colon, index);
    if (ec != std::errc{} || end != token.data() + colon)
      return invalid(quoted + ": the index is not a whole number");
    index -= base;
    if (index < 0)
      return invalid(quoted + ": the least index is " + std::to_string(base) +
                     (base == 1 ? "; if this file counts from 0, set zero_based: true" : ""));
    if (index > 100'000'000)
      return invalid(quoted + ": the index is too large for a dense table (100000000 at most)");
    if (index <= previous) return invalid(quoted + ": indices must ascend within a line");
    const auto value = parse_number(token.substr(colon + 1));
    if (!value) return invalid(quoted + ": the value is not a finite number");
    previous = index;
    out.index.push_back(index);
    out.value.push_back(*value);
  }
  out.width = std::max(out.width, previous + 1);
  return Status::ok();
}

}  // namespace

Result<Dataset> read_libsvm(const std::vector<std::string>& files, const LibsvmOptions& options,
                            const Schema* like) {
  TN_RETURN_IF_ERROR(check_choice("target_kind", options.target_kind, {"class", "number"}));
  TN_RETURN_IF_ERROR(check_choice("dtype", options.dtype, {"f32", "f64"}));
  if (files.empty()) return invalid("libsvm needs at least one file");
  if (options.features < 0) return invalid("features is negative");
  Sparse s;
  for (const std::string& path : files) {
    TN_ASSIGN(std::string text, read_file(path));
    s.contents.push_back(std::move(text));
  }
  for (size_t f = 0; f < files.size(); ++f) {
    const Status status = for_each_line(s.contents[f], [&](std::string_view line, int64_t number) -> Status {
      std::string_view rest = line.substr(0, line.find('#'));
      const std::string_view label = next_token(rest);
      if (label.empty()) return Status::ok();
      if (!parse_number(label))
        return invalid(at_line(files[f], number) + "label '" + std::string(label.substr(0, 40)) +
                       "' is not a number");
      TN_RETURN_IF_ERROR(
          parse_entries(rest, options.zero_based ? 0 : 1, s).at(at_line(files[f], number) + "entry"));
      s.labels.push_back(label);
      s.places.push_back({files[f], number});
      s.row_end.push_back(s.index.size());
      return Status::ok();
    });
    TN_RETURN_IF_ERROR(status);
  }
  if (s.labels.empty()) return invalid(files[0] + ": has no samples");

  const int64_t asked = like && like->features > 0 ? like->features : options.features;
  const int64_t width = asked > 0 ? asked : s.width;
  if (s.width > width)
    for (size_t i = 0; i < s.row_end.size(); ++i)
      if (s.row_end[i] > 0 && s.index[s.row_end[i] - 1] >= width)
        return invalid(at_line(s.places[i].path, s.places[i].line) + "feature " +
                       std::to_string(s.index[s.row_end[i] - 1] + !options.zero_based) + " is beyond the " +
                       std::to_string(width) + " features of " +
                       (like ? "the training part; give the option features to read that part wider"
                             : "the option features"));
  const auto n = static_cast<int64_t>(s.labels.size());
  if (width > 0 && n > (int64_t{1} << 34) / width)
    return unsupported(files[0] + ": " + std::to_string(n) + " x " + std::to_string(width) +
                       " is too large for a dense table");
  const DType dtype = *dtype_from_name(options.dtype);
  HostArray x(dtype, Shape{n, width});
  size_t e = 0;
  for (int64_t i = 0; i < n; ++i)
    for (; e < s.row_end[static_cast<size_t>(i)]; ++e) x.set(i * width + s.index[e], s.value[e]);

  Dataset data(n);
  data.schema.features = width;
  TN_RETURN_IF_ERROR(data.add("x", std::move(x)));
  if (options.target_kind == "class") {
    TN_ASSIGN(Labels y, encode_labels(s.labels, like ? like->class_names : std::vector<std::string>{},
                                      s.places, "label"));
    data.schema.class_names = std::move(y.names);
    TN_RETURN_IF_ERROR(data.add("y", std::move(y.values)));
  } else {
    HostArray y(dtype, Shape{n});
    for (int64_t i = 0; i < n; ++i) y.set(i, *parse_number(s.labels[static_cast<size_t>(i)]));
    TN_RETURN_IF_ERROR(data.add("y", std::move(y)));
  }
  data.add_ids();
  return data;
}

extern const Format libsvm_format;
const Format libsvm_format = {
    "libsvm", "LIBSVM sparse text, read as a dense table",
    [](const std::vector<std::string>& files, const Options& options, const Schema* like) -> Result<Dataset> {
      LibsvmOptions o;
      TN_RETURN_IF_ERROR(OptionBinder(options)
                             .get("features", o.features)
                             .get("zero_based", o.zero_based)
                             .get("target_kind", o.target_kind)
                             .get("dtype", o.dtype)
                             .finish());
      return read_libsvm(files, o, like);
    }};

}  // namespace tenon
