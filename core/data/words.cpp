// Plain text as rows of a few words and the word after them.
#include <algorithm>
#include <map>

#include "core/data/files.h"
#include "core/data/readers.h"

namespace tenon {
namespace {

// Runs of the letters a to z, lower-case; everything else stands between words.
std::vector<std::string> words_of(std::string_view text) {
  std::vector<std::string> out;
  std::string word;
  for (const char c : text) {
    const char lower = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
    if (lower >= 'a' && lower <= 'z') {
      word += lower;
    } else if (!word.empty()) {
      out.push_back(std::move(word));
      word.clear();
    }
  }
  if (!word.empty()) out.push_back(std::move(word));
  return out;
}

// The n most frequent words, the most frequent first; of equally frequent ones the first in the alphabet.
std::vector<std::string> most_frequent(const std::vector<std::string>& words, int64_t n) {
  std::map<std::string_view, int64_t> counts;
  for (const std::string& w : words) ++counts[w];
  std::vector<std::pair<std::string_view, int64_t>> sorted(counts.begin(), counts.end());
  std::stable_sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) { return a.second > b.second; });
  std::vector<std::string> out;
  for (const auto& [word, count] : sorted)
    if (static_cast<int64_t>(out.size()) < n) out.emplace_back(word);
  return out;
}

}  // namespace

Result<Dataset> read_words(const std::vector<std::string>& files, const WordOptions& options, const Schema* like) {
  if (options.context < 1) return invalid("context is " + std::to_string(options.context) + ", must be at least 1");
  if (options.vocabulary < 2) return invalid("vocabulary is " + std::to_string(options.vocabulary) + ", must be at least 2");
  if (files.empty()) return invalid("words need at least one file");
  std::string text;
  for (const std::string& path : files) {
    TN_ASSIGN(const std::string part, read_file(path));
    text += part + "\n";
  }
  const std::vector<std::string> words = words_of(text);
  Dataset data;
  if (like && !like->class_names.empty()) {
    data.schema = *like;
  } else {
    data.schema.class_names = {"<other>"};
    for (std::string& w : most_frequent(words, options.vocabulary - 1)) data.schema.class_names.push_back(std::move(w));
  }
  std::map<std::string_view, int32_t> number;
  for (size_t i = 1; i < data.schema.class_names.size(); ++i) number.emplace(data.schema.class_names[i], static_cast<int32_t>(i));
  std::vector<int32_t> ids;
  for (const std::string& w : words) {
    const auto it = number.find(w);
    ids.push_back(it == number.end() ? 0 : it->second);
  }
  const auto context = static_cast<size_t>(options.context);
  std::vector<int32_t> x, y;
  for (size_t i = context; i < ids.size(); ++i) {
    if (ids[i] == 0) continue;
    x.insert(x.end(), ids.begin() + static_cast<std::ptrdiff_t>(i - context), ids.begin() + static_cast<std::ptrdiff_t>(i));
    y.push_back(ids[i]);
  }
  if (y.empty()) return invalid(files[0] + ": the text has no more than " + std::to_string(context) + " words");
  const auto n = static_cast<int64_t>(y.size());
  TN_RETURN_IF_ERROR(data.add("x", HostArray::of<int32_t>(x, Shape{n, options.context})));
  TN_RETURN_IF_ERROR(data.add("y", HostArray::of(y)));
  return data;
}

extern const Format words_format;
const Format words_format = {
    "words", "plain text as rows of a few words and the word after them",
    [](const std::vector<std::string>& files, const Options& options, const Schema* like) -> Result<Dataset> {
      WordOptions o;
      TN_RETURN_IF_ERROR(OptionBinder(options).get("context", o.context).get("vocabulary", o.vocabulary).finish());
      return read_words(files, o, like);
    }};

}  // namespace tenon
