// Plain text as one stream of tokens: bytes, or Unicode characters with a vocabulary in code point order.
#include <algorithm>
#include <map>

#include "core/base/nearest.h"
#include "core/data/files.h"
#include "core/data/readers.h"

namespace tenon {
namespace {

// Length in bytes of the UTF-8 character at `at` (Unicode 15, table 3-7), 0 if it is none.
size_t utf8_length(std::string_view s, size_t at) {
  const auto byte = [&](size_t i) {
    return at + i < s.size() ? static_cast<uint8_t>(s[at + i]) : uint8_t{0};
  };
  const auto follows = [&](size_t i) { return (byte(i) & 0xc0) == 0x80; };
  const uint8_t b = byte(0), c = byte(1);
  if (b < 0x80) return 1;
  if (b >= 0xc2 && b <= 0xdf) return follows(1) ? 2 : 0;
  if (b >= 0xe0 && b <= 0xef) {
    if ((b == 0xe0 && c < 0xa0) || (b == 0xed && c > 0x9f)) return 0;
    return follows(1) && follows(2) ? 3 : 0;
  }
  if (b >= 0xf0 && b <= 0xf4) {
    if ((b == 0xf0 && c < 0x90) || (b == 0xf4 && c > 0x8f)) return 0;
    return follows(1) && follows(2) && follows(3) ? 4 : 0;
  }
  return 0;
}

constexpr std::string_view kOther = "\xef\xbf\xbd";  // U+FFFD, the replacement character

// The characters of the text that begin before byte `end`, sorted: byte order of UTF-8 is code point order. most > 0: the
// most frequent of them (of two as frequent ones the first), and kOther for the rest.
Result<std::vector<std::string>> characters(std::string_view text, size_t end, int64_t most) {
  std::map<std::string, int64_t, std::less<>> seen;
  for (size_t at = 0; at < end;) {
    const size_t n = utf8_length(text, at);
    if (n == 0)
      return invalid("byte " + std::to_string(at) +
                     " is not valid UTF-8; convert the file, or use level: \"bytes\"");
    ++seen[std::string(text.substr(at, n))];
    at += n;
  }
  if (most > 0) seen.erase(std::string(kOther));
  std::vector<std::string> out;
  for (const auto& [c, unused] : seen) out.push_back(c);
  if (most > 0) {
    std::stable_sort(out.begin(), out.end(), [&](const auto& a, const auto& b) { return seen[a] > seen[b]; });
    out.resize(std::min(out.size(), static_cast<size_t>(most)));
    std::sort(out.begin(), out.end());
    out.emplace_back(kOther);
  }
  return out;
}

// A file's text, or its beginning without a character that is cut in two.
Result<std::string> read_beginning(const std::string& path, int64_t max_bytes) {
  TN_ASSIGN(std::string text, read_file(path));
  if (max_bytes == 0 || text.size() <= static_cast<size_t>(max_bytes)) return text;
  auto end = static_cast<size_t>(max_bytes);
  while (end > 0 && (static_cast<uint8_t>(text[end]) & 0xc0) == 0x80) --end;
  text.resize(end);
  return text;
}

}  // namespace

Result<std::vector<int32_t>> encode_text(const Schema& schema, std::string_view text) {
  std::vector<int32_t> out;
  out.reserve(text.size());
  if (schema.text_level == "bytes") {
    for (char c : text) out.push_back(static_cast<uint8_t>(c));
    return out;
  }
  if (schema.vocabulary.empty())
    return invalid("these data have no vocabulary: text can't be turned into tokens");
  std::map<std::string_view, int32_t> code;
  for (size_t i = 0; i < schema.vocabulary.size(); ++i)
    code.emplace(schema.vocabulary[i], static_cast<int32_t>(i));
  for (size_t at = 0; at < text.size();) {
    const size_t n = utf8_length(text, at);
    auto it = n ? code.find(text.substr(at, n)) : code.end();
    if (n && it == code.end()) it = code.find(kOther);
    if (it == code.end())
      return invalid("byte " + std::to_string(at) + ": " +
                     (n ? "the character '" + std::string(text.substr(at, n)) +
                              "' is not in the vocabulary of the training part"
                        : std::string("not valid UTF-8")) +
                     "; remove it, or train with level: \"bytes\"");
    out.push_back(it->second);
    at += n;
  }
  return out;
}

std::string decode_text(const Schema& schema, std::span<const int32_t> tokens) {
  std::string out;
  for (int32_t t : tokens) {
    if (schema.text_level == "bytes")
      out += static_cast<char>(t);
    else if (t >= 0 && static_cast<size_t>(t) < schema.vocabulary.size())
      out += schema.vocabulary[static_cast<size_t>(t)];
    else
      out += kOther;
  }
  return out;
}

Result<Dataset> read_text(const std::vector<std::string>& files, const TextOptions& options,
                          const Schema* like) {
  TN_RETURN_IF_ERROR(check_choice("level", options.level, {"chars", "bytes"}));
  if (!(options.vocabulary_fraction > 0 && options.vocabulary_fraction <= 1))
    return invalid("vocabulary_fraction must be above 0 and at most 1");
  if (options.vocabulary_size < 0 || options.max_bytes < 0) return invalid("vocabulary_size and max_bytes must not be negative");
  if (options.vocabulary_size > 0 && options.level == "bytes") return invalid("vocabulary_size is for level: \"chars\"; bytes have a vocabulary of 256");
  if (files.empty()) return invalid("text needs at least one file");
  std::string text;
  std::vector<size_t> ends;  // of the files in the text
  for (const std::string& path : files) {
    TN_ASSIGN(const std::string part, read_beginning(path, options.max_bytes));
    text += part;
    ends.push_back(text.size());
  }
  const std::string where =
      files.size() == 1 ? files[0] : files[0] + " and " + std::to_string(files.size() - 1) + " more";
  if (text.empty()) return invalid(where + ": the text is empty");
  Dataset data;
  if (like && !like->text_level.empty()) {
    data.schema = *like;
  } else {
    data.schema.text_level = options.level;
    if (options.level == "chars") {
      const auto end = static_cast<size_t>(static_cast<double>(text.size()) * options.vocabulary_fraction);
      auto vocabulary = characters(text, std::max<size_t>(end, 1), options.vocabulary_size);
      if (!vocabulary) return std::move(vocabulary).status().at(where);
      data.schema.vocabulary = std::move(vocabulary).value();
    }
  }
  std::vector<int32_t> tokens, file;
  for (size_t i = 0, begin = 0; i < files.size(); begin = ends[i++]) {
    auto part = encode_text(data.schema, std::string_view(text).substr(begin, ends[i] - begin));
    if (!part) return std::move(part).status().at(files[i]);
    tokens.insert(tokens.end(), part->begin(), part->end());
    file.resize(tokens.size(), static_cast<int32_t>(i));
  }
  TN_RETURN_IF_ERROR(data.add("tokens", HostArray::of(tokens)));
  if (files.size() > 1) TN_RETURN_IF_ERROR(data.add("file", HostArray::of(file)));
  return data;
}

extern const Format text_format;
const Format text_format = {
    "text", "plain text as one stream of tokens (bytes or characters)",
    [](const std::vector<std::string>& files, const Options& options, const Schema* like) -> Result<Dataset> {
      TextOptions o;
      TN_RETURN_IF_ERROR(OptionBinder(options)
                             .get("level", o.level)
                             .get("vocabulary_fraction", o.vocabulary_fraction)
                             .get("vocabulary_size", o.vocabulary_size)
                             .get("max_bytes", o.max_bytes)
                             .finish());
      return read_text(files, o, like);
    }};

}  // namespace tenon
