// set_field: `--set path=value`, by reflection over the schema.
#include <google/protobuf/descriptor.h>

#include <charconv>
#include <optional>
#include <vector>

#include "core/base/nearest.h"
#include "core/train/recipe.h"
#include "core/train/recipe_text.h"

namespace tenon {
namespace {

namespace pb = google::protobuf;
using Field = pb::FieldDescriptor;

// "loss[1]" -> name "loss", index "1".
struct Step {
  std::string name;
  std::optional<std::string> index;
};

Result<std::vector<Step>> parse_path(std::string_view path) {
  std::vector<Step> steps;
  while (true) {
    const size_t dot = path.find('.');
    std::string_view part = path.substr(0, dot);
    Step step;
    const size_t bracket = part.find('[');
    if (bracket != std::string_view::npos) {
      if (part.back() != ']' || bracket + 2 >= part.size())
        return invalid("'" + std::string(part) + "' is not of the form name[index]");
      step.index = std::string(part.substr(bracket + 1, part.size() - bracket - 2));
      part = part.substr(0, bracket);
    }
    if (part.empty()) return invalid("the path has an empty name");
    step.name = std::string(part);
    steps.push_back(std::move(step));
    if (dot == std::string_view::npos) return steps;
    path = path.substr(dot + 1);
  }
}

template <class T>
std::optional<T> parse_whole(std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::string unquoted(std::string_view text) {
  if (text.size() >= 2 && text.front() == '"' && text.back() == '"')
    if (const auto value = parse_option_value(text, false); value && value->has_text()) return value->text();
  return std::string(text);
}

std::vector<std::string> field_names(const pb::Descriptor& type) {
  std::vector<std::string> names;
  for (int i = 0; i < type.field_count(); ++i) names.push_back(type.field(i)->name());
  return names;
}

Status wrong_value(const Field& field, std::string_view expected, std::string_view value) {
  return invalid(field.name() + " must be " + std::string(expected) + ", not '" + std::string(value) + "'");
}

// Sets (index -1: the singular field), replaces (index >= 0) or appends (index == size) one scalar.
Status set_scalar(pb::Message& m, const Field& f, int index, std::string_view value) {
  const pb::Reflection& r = *m.GetReflection();
  const bool append = f.is_repeated() && index == r.FieldSize(m, &f);
  const auto put = [&](auto set, auto set_at, auto add, auto v) {
    if (!f.is_repeated())
      (r.*set)(&m, &f, v);
    else if (append)
      (r.*add)(&m, &f, v);
    else
      (r.*set_at)(&m, &f, index, v);
    return Status::ok();
  };
  using R = pb::Reflection;
  switch (f.cpp_type()) {
    case Field::CPPTYPE_INT64: {
      const auto v = parse_whole<int64_t>(value);
      if (!v) return wrong_value(f, "a whole number", value);
      return put(&R::SetInt64, &R::SetRepeatedInt64, &R::AddInt64, *v);
    }
    case Field::CPPTYPE_DOUBLE: {
      const auto v = parse_whole<double>(value);
      if (!v) return wrong_value(f, "a number", value);
      return put(&R::SetDouble, &R::SetRepeatedDouble, &R::AddDouble, *v);
    }
    case Field::CPPTYPE_BOOL: {
      if (value != "true" && value != "false") return wrong_value(f, "true or false", value);
      return put(&R::SetBool, &R::SetRepeatedBool, &R::AddBool, value == "true");
    }
    case Field::CPPTYPE_ENUM: {
      std::vector<std::string> names;
      for (int i = 0; i < f.enum_type()->value_count(); ++i) names.push_back(f.enum_type()->value(i)->name());
      const pb::EnumValueDescriptor* v = f.enum_type()->FindValueByName(std::string(value));
      if (!v)
        return invalid(f.name() + " can't be '" + std::string(value) + "'" + did_you_mean(value, names));
      return put(&R::SetEnum, &R::SetRepeatedEnum, &R::AddEnum, v);
    }
    case Field::CPPTYPE_STRING: {
      const std::string v = unquoted(value);
      if (!f.is_repeated())
        r.SetString(&m, &f, v);
      else if (append)
        r.AddString(&m, &f, v);
      else
        r.SetRepeatedString(&m, &f, index, v);
      return Status::ok();
    }
    default:
      return internal_error("field " + f.name() + " has a type that --set does not know");
  }
}

// "[a, b]" or "a,b" -> its elements; commas inside double quotes do not separate.
std::vector<std::string> list_elements(std::string_view text) {
  if (text.size() >= 2 && text.front() == '[' && text.back() == ']') text = text.substr(1, text.size() - 2);
  std::vector<std::string> parts;
  std::string part;
  bool in_quotes = false, any = false;
  const auto finish = [&] {
    const size_t begin = part.find_first_not_of(' ');
    parts.push_back(begin == std::string::npos ? ""
                                               : part.substr(begin, part.find_last_not_of(' ') - begin + 1));
    part.clear();
  };
  for (const char c : text) {
    any = any || c != ' ';
    if (c == '"') in_quotes = !in_quotes;
    if (c == ',' && !in_quotes)
      finish();
    else
      part += c;
  }
  if (any) finish();
  return parts;
}

Status set_list(pb::Message& m, const Field& f, std::string_view value) {
  m.GetReflection()->ClearField(&m, &f);
  int i = 0;
  for (const std::string& element : list_elements(value)) TN_RETURN_IF_ERROR(set_scalar(m, f, i++, element));
  return Status::ok();
}

Status set_option(proto::Options& options, const Step& step, std::string_view value) {
  if (step.index) return invalid("an element of option '" + step.name + "' can't be set; set the whole list");
  Result<proto::Option> parsed = parse_option_value(value, true);
  if (!parsed) return std::move(parsed).status().at("option '" + step.name + "'");
  parsed->set_name(step.name);
  proto::Options change;
  *change.add_entry() = *parsed;
  options = merged(options, change);
  return Status::ok();
}

// Which element of repeated message field `f` is meant; size = append.
Result<int> element_index(const pb::Message& m, const Field& f, const std::optional<std::string>& index) {
  const pb::Reflection& r = *m.GetReflection();
  const int size = r.FieldSize(m, &f);
  const std::string count = "there " + (size == 1 ? "is 1 " : "are " + std::to_string(size) + " ") + f.name();
  if (!index) {
    if (size <= 1) return 0;
    return invalid(count + "; say which: " + f.name() + "[0] .. " + f.name() + "[" +
                   std::to_string(size - 1) + "]");
  }
  if (const auto number = parse_whole<int>(*index)) {
    if (*number >= 0 && *number <= size) return *number;
    return invalid(f.name() + "[" + *index + "] does not exist: " + count +
                   (size > 0 ? ", numbered from 0" : ""));
  }
  std::vector<std::string> names;
  for (int i = 0; i < size; ++i) {
    const pb::Message& element = r.GetRepeatedMessage(m, &f, i);
    for (const char* key : {"name", "id"}) {
      const Field* field = element.GetDescriptor()->FindFieldByName(key);
      if (!field || !element.GetReflection()->HasField(element, field)) continue;
      names.push_back(element.GetReflection()->GetString(element, field));
      if (names.back() == *index) return i;
    }
  }
  return invalid("no " + f.name() + " has the name '" + *index + "'" + did_you_mean(*index, names));
}

Status set_message(pb::Message& m, std::string_view value, const std::string& path) {
  const auto names = field_names(*m.GetDescriptor());
  const bool block = value.size() >= 2 && value.front() == '{' && value.back() == '}';
  if (!block && m.GetDescriptor() == proto::Options::descriptor())
    return invalid("'" + path + "' holds options by name; set one of them: " + path +
                   ".<option>=" + std::string(value));
  if (!block)
    return invalid("'" + path + "' has fields of its own; set one of them, such as " + path + "." +
                   (names.empty() ? "x" : names.front()) + ", or give a block { .. }");
  TextError error;
  std::string text(value.substr(1, value.size() - 2));
  // Options are only rewritten below a field that holds them.
  if (m.GetDescriptor() == proto::Options::descriptor()) {
    proto::Loss holder;
    if (!parse_text("options {" + text + "}", holder, nullptr, error)) return invalid(error.message);
    m.CopyFrom(holder.options());
    return Status::ok();
  }
  m.Clear();
  if (!parse_text(text, m, nullptr, error)) return invalid(error.message);
  return Status::ok();
}

// The kind of a layer does not change by setting a field of another kind.
Status check_oneof(const pb::Message& m, const Field& f, const std::string& path) {
  const pb::OneofDescriptor* oneof = f.containing_oneof();
  const Field* set = oneof ? m.GetReflection()->GetOneofFieldDescriptor(m, oneof) : nullptr;
  if (!set || set == &f) return Status::ok();
  return invalid("'" + path + "' is a " + set->name() + ", not a " + f.name());
}

// `place` takes the canonical path.
Status set_at(pb::Message& m, const std::vector<Step>& steps, size_t at, std::string_view value,
              std::string& place) {
  const Step& step = steps[at];
  const bool last = at + 1 == steps.size();
  if (m.GetDescriptor() == proto::Options::descriptor()) {
    if (!last) return invalid("option '" + step.name + "' has no field '" + steps[at + 1].name + "'");
    place += (place.empty() ? "" : ".") + step.name;
    return set_option(static_cast<proto::Options&>(m), step, value);
  }
  const Field* f = m.GetDescriptor()->FindFieldByName(step.name);
  const auto names = field_names(*m.GetDescriptor());
  if (!f) {
    const std::string in = place.empty() ? "" : " in " + place;
    return invalid("unknown field '" + step.name + "'" + in + did_you_mean(step.name, names));
  }
  TN_RETURN_IF_ERROR(check_oneof(m, *f, place));
  place += (place.empty() ? "" : ".") + step.name;
  if (step.index && !f->is_repeated())
    return invalid("'" + place + "' is not a list; leave out [" + *step.index + "]");
  pb::Reflection const& r = *m.GetReflection();
  if (f->cpp_type() != Field::CPPTYPE_MESSAGE) {
    if (!last)
      return invalid("'" + place + "' has no fields; '" + steps[at + 1].name + "' can't be set in it");
    if (f->is_repeated() && !step.index) return set_list(m, *f, value);
    int index = -1;
    if (step.index) {
      const auto number = parse_whole<int>(*step.index);
      const int size = r.FieldSize(m, f);
      if (!number || *number < 0 || *number > size)
        return invalid(place + "[" + *step.index + "] does not exist: the list has " + std::to_string(size) +
                       " elements, numbered from 0");
      index = *number;
      place += "[" + std::to_string(index) + "]";
    }
    return set_scalar(m, *f, index, value);
  }
  pb::Message* child = nullptr;
  if (f->is_repeated()) {
    TN_ASSIGN(const int index, element_index(m, *f, step.index));
    place += "[" + std::to_string(index) + "]";
    child = index == r.FieldSize(m, f) ? r.AddMessage(&m, f) : r.MutableRepeatedMessage(&m, f, index);
  } else {
    child = r.MutableMessage(&m, f);
  }
  if (last) return set_message(*child, value, place);
  return set_at(*child, steps, at + 1, value, place);
}

}  // namespace

Status set_field(Recipe& recipe, std::string_view assignment) {
  const std::string where = "--set " + std::string(assignment);
  const size_t equals = assignment.find('=');
  if (equals == std::string_view::npos || equals == 0)
    return invalid(where + ": write path=value, such as train.epochs=5");
  const auto steps = parse_path(assignment.substr(0, equals));
  if (!steps) return steps.status().at(where);
  proto::Recipe changed = recipe.proto;
  std::string place;
  Status status = set_at(changed, *steps, 0, assignment.substr(equals + 1), place);
  if (!status) return std::move(status).at(where);
  recipe.proto = std::move(changed);
  // What was below the field came from the file; it is gone when a block replaced it.
  const auto below = recipe.places.lower_bound(place + ".");
  auto end = below;
  while (end != recipe.places.end() && end->first.starts_with(place + ".")) ++end;
  recipe.places.erase(below, end);
  recipe.places[place] = "--set " + std::string(assignment.substr(0, equals));
  return Status::ok();
}

}  // namespace tenon
