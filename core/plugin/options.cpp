#include "core/plugin/options.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <limits>

#include "core/base/nearest.h"

namespace tenon {
namespace {

std::string number_text(double v) {
  char text[32];
  std::snprintf(text, sizeof text, "%.9g", v);
  return text;
}

std::string range_text(const tn_option& o) {
  std::string s;
  if (o.flags & TN_OPTION_MIN) s += (o.flags & TN_OPTION_MIN_OPEN ? " > " : " >= ") + number_text(o.min);
  if (o.flags & TN_OPTION_MAX)
    s += std::string(s.empty() ? "" : " and") + (o.flags & TN_OPTION_MAX_OPEN ? " < " : " <= ") + number_text(o.max);
  return s;
}

// Whether one number fits; the message says what would.
Status check_number(const std::string& what, const tn_option& o, double v) {
  if (std::isnan(v)) return invalid(what + " is not a number");
  if ((o.flags & TN_OPTION_FINITE) && std::isinf(v)) return invalid(what + " must be finite");
  const bool low = (o.flags & TN_OPTION_MIN) && (v < o.min || ((o.flags & TN_OPTION_MIN_OPEN) && v == o.min));
  const bool high = (o.flags & TN_OPTION_MAX) && (v > o.max || ((o.flags & TN_OPTION_MAX_OPEN) && v == o.max));
  if (low || high) return invalid(what + " is " + number_text(v) + "; it must be" + range_text(o));
  return Status::ok();
}

Result<double> real_of(const std::string& what, const OptionValue& v) {
  if (const auto* d = std::get_if<double>(&v)) return *d;
  if (const auto* i = std::get_if<int64_t>(&v)) return static_cast<double>(*i);
  if (const auto* s = std::get_if<std::string>(&v); s && (*s == "inf" || *s == "-inf"))
    return (*s)[0] == '-' ? -std::numeric_limits<double>::infinity() : std::numeric_limits<double>::infinity();
  return invalid(what + " must be a number");
}

Result<int64_t> integer_of(const std::string& what, const OptionValue& v) {
  if (const auto* i = std::get_if<int64_t>(&v)) return *i;
  if (const auto* d = std::get_if<double>(&v); d && *d == std::floor(*d) && std::abs(*d) < 9e15)
    return static_cast<int64_t>(*d);
  return invalid(what + " must be a whole number");
}

// Numbers stand for their text: an option may take a number or a word ("0.5", "optimal").
Result<std::string> text_of(const std::string& what, const OptionValue& v) {
  if (const auto* s = std::get_if<std::string>(&v)) return *s;
  char text[32];
  std::to_chars_result end{};
  if (const auto* d = std::get_if<double>(&v)) end = std::to_chars(text, text + sizeof text, *d);
  else if (const auto* i = std::get_if<int64_t>(&v)) end = std::to_chars(text, text + sizeof text, *i);
  else return invalid(what + " must be text");
  return std::string(text, end.ptr);
}

Result<std::vector<double>> reals_of(const std::string& what, const OptionValue& v) {
  if (const auto* list = std::get_if<std::vector<double>>(&v)) return *list;
  if (const auto* texts = std::get_if<std::vector<std::string>>(&v); texts && texts->empty()) return std::vector<double>{};
  TN_ASSIGN(double one, real_of(what + " (a list of numbers)", v));
  return std::vector<double>{one};
}

}  // namespace

std::string type_name(int32_t t) {
  switch (t) {
    case TN_VALUE_BOOL: return "true or false";
    case TN_VALUE_I64: return "integer";
    case TN_VALUE_F64: return "real";
    case TN_VALUE_STR: return "text";
    case TN_VALUE_I64S: return "list of integers";
    case TN_VALUE_F64S: return "list of reals";
    case TN_VALUE_STRS: return "list of texts";
    case TN_VALUE_JSON: return "JSON text";
    default: return "unknown type";
  }
}

Result<PluginOptions> PluginOptions::check(std::string who, const tn_option* const* schema, uint32_t n,
                                           const Options& given) {
  std::vector<std::string> names;
  for (uint32_t i = 0; i < n; ++i) names.emplace_back(schema[i]->name);
  for (const auto& [name, value] : given)
    if (std::find(names.begin(), names.end(), name) == names.end())
      return invalid(who + ": unknown option '" + name + "'" + did_you_mean(name, names));

  PluginOptions out;
  Storage& store = *out.storage_;
  for (uint32_t i = 0; i < n; ++i) {
    const tn_option& o = *schema[i];
    const std::string what = who + ": option '" + o.name + "'";
    tn_attr attr{o.name, TN_HAS(&o, fallback.type) ? o.fallback : tn_value{}};
    const auto it = given.find(o.name);
    if (it == given.end()) {
      if (o.flags & TN_OPTION_REQUIRED) return invalid(what + " is required (" + type_name(o.type) + ")");
      out.attrs_.push_back(attr);
      continue;
    }
    tn_value& v = attr.value;
    v = tn_value{};
    v.type = o.type;
    const OptionValue& g = it->second;
    switch (o.type) {
      case TN_VALUE_BOOL: {
        const bool* b = std::get_if<bool>(&g);
        if (!b) return invalid(what + " must be true or false");
        v.as.i64 = *b;
        break;
      }
      case TN_VALUE_I64: {
        TN_ASSIGN(v.as.i64, integer_of(what, g));
        TN_RETURN_IF_ERROR(check_number(what, o, static_cast<double>(v.as.i64)));
        break;
      }
      case TN_VALUE_F64: {
        TN_ASSIGN(v.as.f64, real_of(what, g));
        TN_RETURN_IF_ERROR(check_number(what, o, v.as.f64));
        break;
      }
      case TN_VALUE_STR:
      case TN_VALUE_JSON: {
        TN_ASSIGN(std::string s, text_of(what, g));
        if (TN_HAS(&o, choices) && o.n_choices > 0) {
          const std::vector<std::string> choices(o.choices, o.choices + o.n_choices);
          if (std::find(choices.begin(), choices.end(), s) == choices.end())
            return invalid(what + " is '" + s + "'" + did_you_mean(s, choices));
        }
        store.strings.push_back(std::move(s));
        v.as.str = store.strings.back().c_str();
        v.count = static_cast<uint32_t>(store.strings.back().size());
        break;
      }
      case TN_VALUE_F64S:
      case TN_VALUE_I64S: {
        TN_ASSIGN(std::vector<double> list, reals_of(what, g));
        for (double x : list) TN_RETURN_IF_ERROR(check_number(what, o, x));
        v.count = static_cast<uint32_t>(list.size());
        if (o.type == TN_VALUE_F64S) {
          store.reals.push_back(std::move(list));
          v.as.f64s = store.reals.back().data();
          break;
        }
        std::vector<int64_t> whole;
        for (double x : list) {
          if (x != std::floor(x)) return invalid(what + " must be a list of whole numbers");
          whole.push_back(static_cast<int64_t>(x));
        }
        store.integers.push_back(std::move(whole));
        v.as.i64s = store.integers.back().data();
        break;
      }
      case TN_VALUE_STRS: {
        std::vector<std::string> texts;
        if (const auto* list = std::get_if<std::vector<std::string>>(&g)) texts = *list;
        else if (const auto* one = std::get_if<std::string>(&g)) texts = {*one};
        else return invalid(what + " must be a list of texts");
        store.lists.emplace_back();
        for (std::string& s : texts) {
          store.strings.push_back(std::move(s));
          store.lists.back().push_back(store.strings.back().c_str());
        }
        v.count = static_cast<uint32_t>(store.lists.back().size());
        v.as.strs = store.lists.back().data();
        break;
      }
      default: return invalid(what + " is declared with the unknown type " + std::to_string(o.type));
    }
    out.attrs_.push_back(attr);
  }
  return out;
}

double PluginOptions::number(std::string_view name, double otherwise) const {
  for (const tn_attr& a : attrs_) {
    if (name != a.name) continue;
    if (a.value.type == TN_VALUE_F64) return a.value.as.f64;
    if (a.value.type == TN_VALUE_I64) return static_cast<double>(a.value.as.i64);
  }
  return otherwise;
}

Options options_of(const tn_attr* attrs, uint32_t n) {
  Options out;
  for (uint32_t i = 0; i < n; ++i) {
    const tn_value& v = attrs[i].value;
    OptionValue& to = out[attrs[i].name ? attrs[i].name : ""];
    switch (v.type) {
      case TN_VALUE_BOOL: to = v.as.i64 != 0; break;
      case TN_VALUE_I64: to = v.as.i64; break;
      case TN_VALUE_F64: to = v.as.f64; break;
      case TN_VALUE_I64S: to = std::vector<double>(v.as.i64s, v.as.i64s + v.count); break;
      case TN_VALUE_F64S: to = std::vector<double>(v.as.f64s, v.as.f64s + v.count); break;
      case TN_VALUE_STRS: to = std::vector<std::string>(v.as.strs, v.as.strs + v.count); break;
      default: to = std::string(v.as.str ? v.as.str : "", v.as.str ? v.count : 0); break;
    }
  }
  return out;
}

std::string describe_option(const tn_option& o) {
  std::string s = type_name(o.type) + range_text(o);
  if (TN_HAS(&o, choices) && o.n_choices > 0) {
    s += ", one of";
    for (uint32_t i = 0; i < o.n_choices; ++i) s += (i ? ", " : " ") + std::string(o.choices[i]);
  }
  const tn_value& d = o.fallback;
  switch (d.type) {
    case TN_VALUE_BOOL: s += std::string(", default ") + (d.as.i64 ? "true" : "false"); break;
    case TN_VALUE_I64: s += ", default " + std::to_string(d.as.i64); break;
    case TN_VALUE_F64: s += ", default " + number_text(d.as.f64); break;
    case TN_VALUE_STR: s += ", default \"" + std::string(d.as.str, d.count) + "\""; break;
    default: s += o.flags & TN_OPTION_REQUIRED ? ", required" : ""; break;
  }
  if (TN_HAS(&o, help)) s += ": " + std::string(o.help);
  return s;
}

}  // namespace tenon
