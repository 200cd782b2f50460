#include "core/data/options.h"

#include <algorithm>
#include <cmath>

#include "core/base/nearest.h"

namespace tenon {
namespace {

std::string_view kind_of(const OptionValue& v) {
  constexpr std::string_view names[] = {"true or false", "a whole number",    "a number",
                                        "a string",      "a list of strings", "a list of numbers"};
  return names[v.index()];
}

}  // namespace

Status check_choice(std::string_view name, std::string_view value,
                    std::initializer_list<std::string_view> choices) {
  if (std::find(choices.begin(), choices.end(), value) != choices.end()) return Status::ok();
  std::string all;
  for (std::string_view c : choices) all += (all.empty() ? "" : ", ") + std::string(c);
  const std::string near = nearest(value, choices);
  return invalid("option '" + std::string(name) + "' is '" + std::string(value) + "', must be one of " + all +
                 (near.empty() ? "" : " (did you mean '" + near + "'?)"));
}

const OptionValue* OptionBinder::find(std::string_view name) {
  known_.emplace_back(name);
  const auto it = options_.find(std::string(name));
  return it == options_.end() ? nullptr : &it->second;
}

void OptionBinder::fail(std::string message) {
  if (error_.is_ok()) error_ = invalid(std::move(message));
}

void OptionBinder::wrong_type(std::string_view name, std::string_view expected, const OptionValue& got) {
  fail("option '" + std::string(name) + "' must be " + std::string(expected) + ", not " +
       std::string(kind_of(got)));
}

OptionBinder& OptionBinder::get(std::string_view name, bool& out) {
  if (const OptionValue* v = find(name)) {
    if (const auto* b = std::get_if<bool>(v))
      out = *b;
    else
      wrong_type(name, "true or false", *v);
  }
  return *this;
}

OptionBinder& OptionBinder::get(std::string_view name, int64_t& out) {
  if (const OptionValue* v = find(name)) {
    if (const auto* i = std::get_if<int64_t>(v))
      out = *i;
    else if (const auto* d = std::get_if<double>(v); d && std::floor(*d) == *d && std::abs(*d) < 9e15)
      out = static_cast<int64_t>(*d);
    else
      wrong_type(name, "a whole number", *v);
  }
  return *this;
}

OptionBinder& OptionBinder::get(std::string_view name, double& out) {
  if (const OptionValue* v = find(name)) {
    if (const auto* d = std::get_if<double>(v))
      out = *d;
    else if (const auto* i = std::get_if<int64_t>(v))
      out = static_cast<double>(*i);
    else
      wrong_type(name, "a number", *v);
  }
  return *this;
}

OptionBinder& OptionBinder::get(std::string_view name, std::string& out) {
  if (const OptionValue* v = find(name)) {
    if (const auto* s = std::get_if<std::string>(v))
      out = *s;
    else
      wrong_type(name, "a string", *v);
  }
  return *this;
}

OptionBinder& OptionBinder::get(std::string_view name, std::vector<std::string>& out) {
  if (const OptionValue* v = find(name)) {
    if (const auto* l = std::get_if<std::vector<std::string>>(v))
      out = *l;
    else if (const auto* s = std::get_if<std::string>(v))
      out = {*s};
    else if (const auto* d = std::get_if<std::vector<double>>(v); d && d->empty())
      out.clear();
    else
      wrong_type(name, "a list of strings", *v);
  }
  return *this;
}

OptionBinder& OptionBinder::get(std::string_view name, std::vector<double>& out) {
  if (const OptionValue* v = find(name)) {
    if (const auto* l = std::get_if<std::vector<double>>(v))
      out = *l;
    else if (const auto* d = std::get_if<double>(v))
      out = {*d};
    else if (const auto* i = std::get_if<int64_t>(v))
      out = {static_cast<double>(*i)};
    else if (const auto* s = std::get_if<std::vector<std::string>>(v); s && s->empty())
      out.clear();
    else
      wrong_type(name, "a list of numbers", *v);
  }
  return *this;
}

Status OptionBinder::finish() {
  if (!error_.is_ok()) return error_;
  for (const auto& [name, value] : options_)
    if (std::find(known_.begin(), known_.end(), name) == known_.end())
      return invalid("unknown option '" + name + "'" + did_you_mean(name, known_));
  return Status::ok();
}

}  // namespace tenon
