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

// The characters of the text that begin before byte `end`, sorted: byte order of UTF-8 is code point order.
Result<std::vector<std::string>> characters(std::string_view text, size_t end) {
  std::map<std::string, bool, std::less<>> seen;
  for (size_t at = 0; at < end;) {
    const size_t n = utf8_length(text, at);
    if (n == 0)
      return invalid("byte " + std::to_string(at) +
                     " is not valid UTF-8; convert the file, or use level: \"bytes\"");
    seen.try_emplace(std::string(text.substr(at, n)), true);
    at += n;
  }
  std::vector<std::string> out;
  for (const auto& [c, unused] : seen) out.push_back(c);
  return out;
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
    const auto it = n ? code.find(text.substr(at, n)) : code.end();
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
      out += "\xef\xbf\xbd";  // U+FFFD, the replacement character
  }
  return out;
}

Result<Dataset> read_text(const std::vector<std::string>& files, const TextOptions& options,
                          const Schema* like) {
  TN_RETURN_IF_ERROR(check_choice("level", options.level, {"chars", "bytes"}));
  if (!(options.vocabulary_fraction > 0 && options.vocabulary_fraction <= 1))
    return invalid("vocabulary_fraction must be above 0 and at most 1");
  if (files.empty()) return invalid("text needs at least one file");
  std::string text;
  for (const std::string& path : files) {
    TN_ASSIGN(const std::string part, read_file(path));
    text += part;
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
      auto vocabulary = characters(text, std::max<size_t>(end, 1));
      if (!vocabulary) return std::move(vocabulary).status().at(where);
      data.schema.vocabulary = std::move(vocabulary).value();
    }
  }
  auto tokens = encode_text(data.schema, text);
  if (!tokens) return std::move(tokens).status().at(where);
  TN_RETURN_IF_ERROR(data.add("tokens", HostArray::of(*tokens)));
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
                             .finish());
      return read_text(files, o, like);
    }};

}  // namespace tenon
