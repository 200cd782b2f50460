#include "core/train/recipe.h"

#include <google/protobuf/descriptor.h>

#include <filesystem>

#include "core/io/file.h"
#include "core/train/recipe_text.h"

namespace tenon {
namespace {

namespace pb = google::protobuf;

// Adds the line of every field below `message`, under its canonical path: repeated fields always with an
// index, options by their name.
void collect_places(const pb::Message& message, const pb::TextFormat::ParseInfoTree& tree,
                    const std::string& file, const std::string& prefix,
                    std::map<std::string, std::string, std::less<>>& places) {
  std::vector<const pb::FieldDescriptor*> fields;
  const pb::Reflection& reflection = *message.GetReflection();
  reflection.ListFields(message, &fields);
  for (const pb::FieldDescriptor* field : fields) {
    const int count = field->is_repeated() ? reflection.FieldSize(message, field) : 1;
    for (int i = 0; i < count; ++i) {
      const int index = field->is_repeated() ? i : -1;
      std::string path = prefix + field->name();
      if (field->is_repeated()) path += "[" + std::to_string(i) + "]";
      if (field->message_type() == proto::Option::descriptor())
        path = prefix +
               static_cast<const proto::Option&>(reflection.GetRepeatedMessage(message, field, i)).name();
      const auto location = tree.GetLocation(field, index);
      if (location.line >= 0) places[path] = file + ":" + std::to_string(location.line + 1);
      if (field->cpp_type() != pb::FieldDescriptor::CPPTYPE_MESSAGE) continue;
      if (const auto* nested = tree.GetTreeForNested(field, index)) {
        const pb::Message& child = field->is_repeated() ? reflection.GetRepeatedMessage(message, field, i)
                                                        : reflection.GetMessage(message, field);
        collect_places(child, *nested, file, path + ".", places);
      }
    }
  }
}

}  // namespace

std::string Recipe::where(std::string_view field_path) const {
  // Component by component: as written, or as the first element of a repeated field.
  std::string found = path, canonical;
  while (!field_path.empty()) {
    const size_t dot = field_path.find('.');
    canonical += field_path.substr(0, dot);
    field_path = dot == std::string_view::npos ? std::string_view{} : field_path.substr(dot + 1);
    auto it = places.find(canonical);
    if (it == places.end()) {
      it = places.find(canonical + "[0]");
      const auto below = places.lower_bound(canonical + "[0].");  // --set made it: only what it set has a place
      if (it != places.end() || (below != places.end() && below->first.starts_with(canonical + "[0]."))) canonical += "[0]";
    }
    if (it != places.end()) found = it->second;
    canonical += '.';
  }
  return found;
}

Result<Recipe> parse_recipe(std::string_view text, std::string path) {
  Recipe recipe;
  recipe.dir = std::filesystem::path(path).parent_path().string();
  recipe.path = std::move(path);
  pb::TextFormat::ParseInfoTree tree;
  TextError error;
  if (!parse_text(text, recipe.proto, &tree, error))
    return invalid(recipe.path + ":" + std::to_string(error.line) + ": " + error.message);
  collect_places(recipe.proto, tree, recipe.path, "", recipe.places);
  return recipe;
}

Result<Recipe> load_recipe(const std::string& path, std::span<const std::string> sets) {
  std::error_code ignored;
  const bool folder = std::filesystem::is_directory(path, ignored);
  const std::string file = folder ? (std::filesystem::path(path) / "recipe.txtpb").string() : path;
  TN_ASSIGN(const std::string text, read_bytes(file));
  TN_ASSIGN(Recipe recipe, parse_recipe(text, file));
  for (const std::string& set : sets) TN_RETURN_IF_ERROR(set_field(recipe, set));
  TN_RETURN_IF_ERROR(check_recipe(recipe));
  return recipe;
}

std::string to_text(const proto::Recipe& recipe) { return print_text(recipe); }

Options to_options(const proto::Options& options) {
  Options result;
  for (const proto::Option& o : options.entry()) {
    OptionValue& v = result[o.name()];
    switch (o.value_case()) {
      case proto::Option::kFlag:
        v = o.flag();
        break;
      case proto::Option::kInteger:
        v = o.integer();
        break;
      case proto::Option::kReal:
        v = o.real();
        break;
      case proto::Option::kText:
        v = o.text();
        break;
      case proto::Option::kReals:
        v = std::vector<double>(o.reals().value().begin(), o.reals().value().end());
        break;
      case proto::Option::kTexts:
        v = std::vector<std::string>(o.texts().value().begin(), o.texts().value().end());
        break;
      case proto::Option::VALUE_NOT_SET:
        v = std::string();
        break;
    }
  }
  return result;
}

proto::Options merged(const proto::Options& base, const proto::Options& changes) {
  proto::Options result = base;
  for (const proto::Option& change : changes.entry()) {
    proto::Option* target = nullptr;
    for (proto::Option& o : *result.mutable_entry())
      if (o.name() == change.name()) target = &o;
    *(target ? target : result.add_entry()) = change;
  }
  return result;
}

}  // namespace tenon
