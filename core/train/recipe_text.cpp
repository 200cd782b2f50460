#include "core/train/recipe_text.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include <charconv>
#include <cmath>
#include <limits>
#include <regex>
#include <set>
#include <vector>

#include "core/base/nearest.h"

namespace tenon {
namespace {

namespace pb = google::protobuf;
using Token = pb::io::Tokenizer::Token;
using pb::io::Tokenizer;

// Keeps the first error.
class FirstError : public pb::io::ErrorCollector {
 public:
  explicit FirstError(TextError& error) : error_(error) {}
  void AddError(int line, pb::io::ColumnNumber, const std::string& message) override {
    if (error_.message.empty()) error_ = {line + 1, message};
  }

 private:
  TextError& error_;
};

// --- from text
// ------------------------------------------------------------------------------------------------------

// All tokens of a text; the last one is TYPE_END.
std::vector<Token> tokenize(std::string_view text, TextError& error) {
  pb::io::ArrayInputStream stream(text.data(), static_cast<int>(text.size()));
  FirstError collector(error);
  Tokenizer tokenizer(&stream, &collector);
  tokenizer.set_comment_style(Tokenizer::SH_COMMENT_STYLE);
  tokenizer.set_allow_f_after_float(true);
  tokenizer.set_require_space_after_number(false);
  tokenizer.set_allow_multiline_strings(true);
  std::vector<Token> tokens;
  while (tokenizer.Next()) tokens.push_back(tokenizer.current());
  tokens.push_back(tokenizer.current());
  return tokens;
}

// Names of the fields, in any message below Recipe, that hold Options.
void collect_option_fields(const pb::Descriptor* message, std::set<const pb::Descriptor*>& seen,
                           std::set<std::string>& names) {
  if (!seen.insert(message).second) return;
  for (int i = 0; i < message->field_count(); ++i) {
    const pb::FieldDescriptor* field = message->field(i);
    if (field->cpp_type() != pb::FieldDescriptor::CPPTYPE_MESSAGE) continue;
    if (field->message_type() == proto::Options::descriptor())
      names.insert(field->name());
    else
      collect_option_fields(field->message_type(), seen, names);
  }
}

// Reads option values from a token stream.
class OptionReader {
 public:
  OptionReader(const std::vector<Token>& tokens, size_t at, TextError& error)
      : tokens_(tokens), at_(at), error_(error) {}

  size_t at() const { return at_; }
  void next() { ++at_; }
  const Token& token() const { return tokens_[at_]; }
  bool is(std::string_view symbol) const {
    return token().text == symbol && token().type == Tokenizer::TYPE_SYMBOL;
  }
  bool take(std::string_view symbol) {
    if (!is(symbol)) return false;
    ++at_;
    return true;
  }
  bool fail(std::string message) {
    if (error_.message.empty()) error_ = {token().line + 1, std::move(message)};
    return false;
  }

  bool value(const std::string& name, proto::Option& out) {
    out.set_name(name);
    if (take("[")) return list(name, out);
    if (is("{") || is("<"))
      return fail("option '" + name +
                  "' can't be a block; a number, a string, true or false, or a list is needed");
    return scalar(name, out);
  }

 private:
  bool scalar(const std::string& name, proto::Option& out) {
    const bool minus = take("-");
    switch (token().type) {
      case Tokenizer::TYPE_INTEGER: {
        uint64_t n = 0;
        const uint64_t limit = static_cast<uint64_t>(INT64_MAX) + (minus ? 1 : 0);
        if (Tokenizer::ParseInteger(token().text, limit, &n))
          out.set_integer(minus ? static_cast<int64_t>(0 - n) : static_cast<int64_t>(n));
        else
          return fail("option '" + name + "' is a whole number too large for 64 bits: " + token().text);
        break;
      }
      case Tokenizer::TYPE_FLOAT: {
        const double x = Tokenizer::ParseFloat(token().text);
        out.set_real(minus ? -x : x);
        break;
      }
      case Tokenizer::TYPE_STRING: {
        if (minus) return fail("option '" + name + "' has a minus before a string");
        std::string s;
        while (token().type == Tokenizer::TYPE_STRING) {  // adjacent strings are one, as in text format
          Tokenizer::ParseStringAppend(token().text, &s);
          ++at_;
        }
        out.set_text(s);
        return true;
      }
      case Tokenizer::TYPE_IDENTIFIER: {
        const std::string& word = token().text;
        if (word == "inf" || word == "nan") {
          const double x = word == "inf" ? std::numeric_limits<double>::infinity()
                                         : std::numeric_limits<double>::quiet_NaN();
          out.set_real(minus ? -x : x);
        } else if (minus) {
          return fail("option '" + name + "' has a minus before '" + word + "'");
        } else if (word == "true" || word == "false") {
          out.set_flag(word == "true");
        } else {
          out.set_text(word);
        }
        break;
      }
      default:
        return fail("option '" + name + "' has no value; write " + name +
                    ": and a number, a string, true or false, or a list");
    }
    ++at_;
    return true;
  }

  bool list(const std::string& name, proto::Option& out) {
    std::vector<double> reals;
    std::vector<std::string> texts;
    while (!take("]")) {
      if (!(reals.empty() && texts.empty()) && !take(","))
        return fail("the list of option '" + name + "' needs a comma or ] here");
      proto::Option element;
      if (!scalar(name, element)) return false;
      if (element.has_text())
        texts.push_back(element.text());
      else if (element.has_real())
        reals.push_back(element.real());
      else if (element.has_integer())
        reals.push_back(static_cast<double>(element.integer()));
      else
        return fail("the list of option '" + name + "' has true or false; numbers or strings are needed");
      if (!reals.empty() && !texts.empty())
        return fail("the list of option '" + name + "' mixes numbers and strings");
    }
    if (texts.empty())
      out.mutable_reals()->mutable_value()->Add(reals.begin(), reals.end());
    else
      out.mutable_texts()->mutable_value()->Add(texts.begin(), texts.end());
    return true;
  }

  const std::vector<Token>& tokens_;
  size_t at_;
  TextError& error_;
};

// Writes tokens on the lines they came from.
class LineWriter {
 public:
  void write(int line, std::string_view text) {
    for (; line_ < line; ++line_) out_ += '\n';
    out_ += text;
    out_ += ' ';
    for (const char c : text) line_ += c == '\n';
  }
  std::string take() { return std::move(out_); }

 private:
  std::string out_;
  int line_ = 0;
};

// From "{" on, an options block; `at` is left after its "}".
bool rewrite_block(const std::vector<Token>& tokens, size_t& at, LineWriter& writer, TextError& error) {
  OptionReader reader(tokens, at, error);
  const std::string close = reader.is("{") ? "}" : ">";
  const int opened = reader.token().line + 1;
  writer.write(reader.token().line, reader.token().text);
  reader.next();
  std::set<std::string> seen;
  while (!reader.is(close)) {
    const Token token = reader.token();
    if (token.type == Tokenizer::TYPE_END)
      return reader.fail("the options block opened in line " + std::to_string(opened) + " is not closed");
    if (token.type != Tokenizer::TYPE_IDENTIFIER)
      return reader.fail("expected the name of an option, got '" + token.text + "'");
    reader.next();
    if (!reader.take(":")) return reader.fail("option '" + token.text + "' needs a colon and a value");
    proto::Option option;
    if (!reader.value(token.text, option)) return false;
    if (!seen.insert(token.text).second) return reader.fail("option '" + token.text + "' is given twice");
    writer.write(token.line, "entry { " + option.ShortDebugString() + " }");
    if (!reader.take(",")) reader.take(";");
  }
  writer.write(reader.token().line, close);
  at = reader.at() + 1;
  return true;
}

bool rewrite(std::string_view text, std::string& out, TextError& error) {
  const std::vector<Token> tokens = tokenize(text, error);
  if (!error.message.empty()) return false;
  std::set<std::string> option_fields;
  std::set<const pb::Descriptor*> seen;
  collect_option_fields(proto::Recipe::descriptor(), seen, option_fields);
  LineWriter writer;
  for (size_t at = 0; tokens[at].type != Tokenizer::TYPE_END;) {
    const Token& token = tokens[at++];
    writer.write(token.line, token.text);
    if (token.type != Tokenizer::TYPE_IDENTIFIER || !option_fields.contains(token.text)) continue;
    if (tokens[at].text == ":") writer.write(tokens[at].line, ":"), ++at;
    if ((tokens[at].text == "{" || tokens[at].text == "<") && !rewrite_block(tokens, at, writer, error))
      return false;
  }
  out = writer.take();
  return true;
}

std::vector<std::string> field_names(const pb::Descriptor& message) {
  std::vector<std::string> names;
  for (int i = 0; i < message.field_count(); ++i) names.push_back(message.field(i)->name());
  return names;
}

// The parser's sentences in the words of a recipe's author, with the nearest name. Unknown ones are kept.
std::string reworded(const std::string& message) {
  std::smatch m;
  const std::regex no_field("Message type \"([^\"]*)\" has no field named \"([^\"]*)\"\\.?");
  if (std::regex_search(message, m, no_field)) {
    const pb::Descriptor* type = pb::DescriptorPool::generated_pool()->FindMessageTypeByName(m[1]);
    if (!type) return message;
    const std::string name = m[2];
    const std::string in = type == proto::Recipe::descriptor() ? "" : " in " + snake_case(type->name());
    const bool has_options = type->FindFieldByName("options") != nullptr;
    if (has_options && nearest(name, field_names(*type)).empty())
      return "unknown field '" + name + "'" + in + "; options are written inside it as options { " + name +
             ": .. }";
    return "unknown field '" + name + "'" + in + did_you_mean(name, field_names(*type));
  }
  const std::regex no_value("Unknown enumeration value of \"([^\"]*)\" for field \"([^\"]*)\"\\.?");
  if (std::regex_search(message, m, no_value)) {
    std::vector<std::string> names;
    if (m[2] == "precision")
      for (int i = 0; i < proto::Recipe::Precision_descriptor()->value_count(); ++i)
        names.push_back(proto::Recipe::Precision_descriptor()->value(i)->name());
    return m[2].str() + " can't be " + m[1].str() + did_you_mean(m[1].str(), names);
  }
  const std::regex twice("Non-repeated field \"([^\"]*)\" is specified multiple times");
  if (std::regex_search(message, m, twice)) return "field '" + m[1].str() + "' is given twice";
  const std::regex both(
      "Field \"([^\"]*)\" is specified along with field \"([^\"]*)\", another member of oneof");
  if (std::regex_search(message, m, both))
    return "'" + m[2].str() + "' and '" + m[1].str() + "' are in one layer; write a layer { } for each";
  const std::regex boolean("Invalid value for boolean field \"([^\"]*)\"\\. Value: \"([^\"]*)\"");
  if (std::regex_search(message, m, boolean))
    return m[1].str() + " must be true or false, not '" + m[2].str() + "'";
  const std::regex expected("^Expected (.*), got: ?(.*)$");
  if (std::regex_search(message, m, expected)) {
    const std::string got = m[2].str().empty() ? "the end of the file" : m[2].str();
    const std::string what = m[1] == "integer"  ? "a whole number"
                             : m[1] == "double" ? "a number"
                                                : m[1].str();
    return "expected " + what + ", got " + got;
  }
  return message;
}

// --- to text
// --------------------------------------------------------------------------------------------------------

std::string print_real(double x) {
  if (std::isnan(x)) return "nan";
  if (std::isinf(x)) return x < 0 ? "-inf" : "inf";
  char buffer[40];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, x).ptr;
  std::string s(buffer, end);
  if (s.find_first_of(".e") == std::string::npos) s += ".0";  // or it would come back as a whole number
  return s;
}

// In a list, whole numbers stay short: all its numbers are real.
std::string print_element(double x) {
  const bool short_form = std::abs(x) < 1e15 && std::floor(x) == x && !(x == 0 && std::signbit(x));
  return short_form ? std::to_string(static_cast<int64_t>(x)) : print_real(x);
}

std::string quoted(std::string_view text) {
  std::string s = "\"";
  for (const char c : text) {
    const auto u = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      s += '\\';
      s += c;
    } else if (c == '\n') {
      s += "\\n";
    } else if (c == '\t') {
      s += "\\t";
    } else if (u < 0x20 || u == 0x7f) {
      const char octal[] = {'\\', static_cast<char>('0' + (u >> 6)), static_cast<char>('0' + ((u >> 3) & 7)),
                            static_cast<char>('0' + (u & 7))};
      s.append(octal, 4);
    } else {
      s += c;
    }
  }
  return s + '"';
}

class OptionsPrinter : public pb::TextFormat::MessagePrinter {
 public:
  void Print(const pb::Message& message, bool single_line,
             pb::TextFormat::BaseTextGenerator* generator) const override {
    proto::Options options;
    options.CopyFrom(message);
    for (const proto::Option& option : options.entry())
      generator->PrintString(option.name() + ": " + print_option_value(option) + (single_line ? " " : "\n"));
  }
};

}  // namespace

std::string snake_case(std::string_view camel) {
  std::string s;
  for (const char c : camel) {
    const bool upper = c >= 'A' && c <= 'Z';
    if (upper && !s.empty()) s += '_';
    s += upper ? static_cast<char>(c + 32) : c;
  }
  return s;
}

bool parse_text(std::string_view text, pb::Message& message, pb::TextFormat::ParseInfoTree* tree,
                TextError& error) {
  if (text.size() > (64u << 20)) {
    error = {1, "the text is larger than 64 MiB, too large for a recipe"};
    return false;
  }
  error = {};
  std::string plain;
  if (!rewrite(text, plain, error)) return false;
  FirstError collector(error);
  pb::TextFormat::Parser parser;
  parser.RecordErrorsTo(&collector);
  parser.WriteLocationsTo(tree);
  parser.SetRecursionLimit(64);
  if (parser.ParseFromString(plain, &message)) return true;
  error.message = error.message.empty() ? "the text can't be parsed" : reworded(error.message);
  return false;
}

std::string print_text(const pb::Message& message) {
  pb::TextFormat::Printer printer;
  printer.SetUseShortRepeatedPrimitives(true);
  printer.SetUseUtf8StringEscaping(true);
  printer.RegisterMessagePrinter(proto::Options::descriptor(), new OptionsPrinter);  // the printer owns it
  std::string text;
  printer.PrintToString(message, &text);
  return text;
}

Result<proto::Option> parse_option_value(std::string_view text, bool anything_is_text) {
  TextError error;
  const std::vector<Token> tokens = tokenize(text, error);
  proto::Option option;
  if (error.message.empty()) {
    OptionReader reader(tokens, 0, error);
    if (reader.value("value", option) && reader.token().type == Tokenizer::TYPE_END) {
      option.clear_name();
      return option;
    }
  }
  const bool open_list = !tokens.empty() && tokens[0].text == "[";
  if (anything_is_text && !open_list) {
    option.Clear();
    option.set_text(std::string(text));
    return option;
  }
  return invalid("'" + std::string(text) +
                 "' is neither a number, a string, true or false, nor a list of numbers or of strings");
}

std::string print_option_value(const proto::Option& option) {
  const auto list = [](const auto& values, auto print) {
    std::string s;
    for (const auto& v : values) s += (s.empty() ? "" : ", ") + print(v);
    return "[" + s + "]";
  };
  switch (option.value_case()) {
    case proto::Option::kFlag:
      return option.flag() ? "true" : "false";
    case proto::Option::kInteger:
      return std::to_string(option.integer());
    case proto::Option::kReal:
      return print_real(option.real());
    case proto::Option::kText:
      return quoted(option.text());
    case proto::Option::kReals:
      return list(option.reals().value(), print_element);
    case proto::Option::kTexts:
      return list(option.texts().value(), quoted);
    case proto::Option::VALUE_NOT_SET:
      break;
  }
  return "\"\"";
}

}  // namespace tenon
