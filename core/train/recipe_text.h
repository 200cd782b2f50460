// The notation of `options` blocks. Protobuf's text format needs every field name in the schema, but the
// names of options belong to plugins. So a recipe's text is rewritten before it is parsed:
//     options { lr: 0.01 sizes: [1, 2] }    ->    options { entry { name: "lr" real: 0.01 } entry { .. } }
// line by line, so that line numbers stay true.
#pragma once

#include <google/protobuf/text_format.h>

#include <string>
#include <string_view>
#include <utility>

#include "core/base/status.h"
#include "core/train/recipe.pb.h"

namespace tenon {

// An error in text, with its line (from 1).
struct TextError {
  int line = 0;
  std::string message;
};

// Parses `text` into `message` (any message of recipe.proto), which should be empty. `tree`, when given,
// takes the places of fields. Returns false and fills `error` when the text is wrong.
bool parse_text(std::string_view text, google::protobuf::Message& message,
                google::protobuf::TextFormat::ParseInfoTree* tree, TextError& error);

// Prints with options in natural notation; parse_text reads the result back to an equal message.
std::string print_text(const google::protobuf::Message& message);

// One option value: true, 3, 0.5, "text", bare_word, [1, 2], ["a", "b"]. With `anything_is_text`, what is
// none of these is a string as it stands (for the command line, where paths come without quotes); an open
// list is an error all the same.
Result<proto::Option> parse_option_value(std::string_view text, bool anything_is_text);

// Its inverse.
std::string print_option_value(const proto::Option& option);

// A message type's name as recipes write names: RmsNorm -> rms_norm.
std::string snake_case(std::string_view camel);

}  // namespace tenon
