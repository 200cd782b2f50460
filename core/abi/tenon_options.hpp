// Options and inputs, declared once in a constructor: the schema and the values come from the same lines.
#pragma once

#include <cstring>
#include <optional>

#include "tenon_tensor.hpp"

namespace tn {

namespace detail {

struct OptionData {
  tn_option spec{};
  std::vector<const char*> choices;
  std::vector<double> reals;
  std::vector<int64_t> ints;
};
template <class T>
struct OwnedList {  // stable addresses for the C structs
  ~OwnedList() {
    for (T* p : items) delete p;
  }
  OwnedList() = default;
  OwnedList(const OwnedList&) = delete;
  OwnedList& operator=(const OwnedList&) = delete;
  T& add() {
    items.reserve(items.size() + 1);
    items.push_back(new T);
    return *items.back();
  }
  std::vector<T*> items;
};
struct Schema {
  OwnedList<OptionData> options;
  OwnedList<tn_role> roles;
  std::vector<const tn_option*> option_list;
  void finish() {
    for (OptionData* o : options.items) option_list.push_back(&o->spec);
  }
};

}  // namespace detail

// An option being declared: limits may follow, then it converts to its value.
template <class T>
struct Option {
  T current;
  detail::OptionData* data;  // null when an instance is made

  Option& at_least(double v) { return limit(TN_OPTION_MIN, v); }
  Option& above(double v) { return limit(TN_OPTION_MIN | TN_OPTION_MIN_OPEN, v); }
  Option& at_most(double v) { return limit(TN_OPTION_MAX, v); }
  Option& below(double v) { return limit(TN_OPTION_MAX | TN_OPTION_MAX_OPEN, v); }
  Option& finite() { return limit(TN_OPTION_FINITE, 0); }
  operator T() const { return current; }

 private:
  Option& limit(uint32_t flags, double v) {
    if (!data) return *this;
    data->spec.flags |= flags;
    if (flags & TN_OPTION_MIN) data->spec.min = v;
    if (flags & TN_OPTION_MAX) data->spec.max = v;
    return *this;
  }
};

enum DtypeClass : int32_t {
  anything = TN_CLASS_ANY,
  floating = TN_CLASS_FLOATING,
  integer = TN_CLASS_INTEGER,
  boolean = TN_CLASS_BOOLEAN
};

struct Role {
  tn_role* spec;  // null when an instance is made
  Role& optional() { return flag(TN_ROLE_OPTIONAL); }
  Role& many() { return flag(TN_ROLE_MANY); }
  Role& constant() { return flag(TN_ROLE_CONSTANT); }
  Role& rank(int r) {
    if (spec) spec->ranks |= TN_RANK(r);
    return *this;
  }

 private:
  Role& flag(uint32_t f) {
    if (spec) spec->flags |= f;
    return *this;
  }
};

// Given to constructors: declares options (each yields its value) and inputs. The text must be literals.
class Setup {
 public:
  explicit Setup(detail::Schema* describing) : schema_(describing) {}
  explicit Setup(const tn_ctx* c) : options_(c->options), n_(c->n_options) {}

  Option<double> real(const char* name, double fallback, const char* help) {
    return {scalar(name, TN_VALUE_F64, help, &fallback).as.f64, last()};
  }
  Option<int64_t> integer(const char* name, int64_t fallback, const char* help) {
    return {scalar(name, TN_VALUE_I64, help, &fallback).as.i64, last()};
  }
  Option<bool> flag(const char* name, bool fallback, const char* help) {
    const int64_t v = fallback;
    return {scalar(name, TN_VALUE_BOOL, help, &v).as.i64 != 0, last()};
  }
  Option<double> required_real(const char* name, const char* help) {
    const double none = 1;  // what a description sees
    return {scalar(name, TN_VALUE_F64, help, &none, TN_OPTION_REQUIRED).as.f64, last()};
  }
  // No default: empty if it is not given.
  Option<std::optional<double>> optional_real(const char* name, const char* help) {
    if (!schema_) {
      const tn_value v = next(name);
      return {v.type == TN_VALUE_F64 ? std::optional<double>(v.as.f64) : std::nullopt, nullptr};
    }
    return {std::nullopt, &declare(name, TN_VALUE_F64, help)};
  }
  // Text; with choices, one of them.
  Option<std::string> text(const char* name, const char* fallback, const char* help,
                           std::initializer_list<const char*> choices = {}) {
    const tn_value v = scalar(name, TN_VALUE_STR, help, &fallback);
    if (detail::OptionData* d = last()) {
      d->choices = choices;
      d->spec.choices = d->choices.data();
      d->spec.n_choices = static_cast<uint32_t>(d->choices.size());
    }
    return {v.type == TN_VALUE_STR ? std::string(v.as.str, v.count) : std::string(), last()};
  }
  Option<std::vector<double>> reals(const char* name, const char* help, std::vector<double> fallback = {}) {
    if (!schema_) {
      const tn_value v = next(name);
      return {v.type == TN_VALUE_F64S ? std::vector<double>(v.as.f64s, v.as.f64s + v.count) : fallback,
              nullptr};
    }
    detail::OptionData& d = declare(name, TN_VALUE_F64S, help);
    d.reals = fallback;
    d.spec.fallback = {TN_VALUE_F64S, static_cast<uint32_t>(d.reals.size()), {}};
    d.spec.fallback.as.f64s = d.reals.data();
    return {std::move(fallback), &d};
  }
  Option<std::vector<int64_t>> integers(const char* name, const char* help,
                                        std::vector<int64_t> fallback = {}) {
    if (!schema_) {
      const tn_value v = next(name);
      return {v.type == TN_VALUE_I64S ? std::vector<int64_t>(v.as.i64s, v.as.i64s + v.count) : fallback,
              nullptr};
    }
    detail::OptionData& d = declare(name, TN_VALUE_I64S, help);
    d.ints = fallback;
    d.spec.fallback = {TN_VALUE_I64S, static_cast<uint32_t>(d.ints.size()), {}};
    d.spec.fallback.as.i64s = d.ints.data();
    return {std::move(fallback), &d};
  }

  // An input. It is required and once, unless .optional() or .many() follows.
  Role input(const char* name, const char* help, DtypeClass dtype_class = floating) {
    if (!schema_) return {nullptr};
    tn_role& r = schema_->roles.add();
    r = {sizeof(tn_role), 0, name, help, dtype_class, 0};
    return {&r};
  }

 private:
  detail::OptionData* last() const { return schema_ ? schema_->options.items.back() : nullptr; }
  detail::OptionData& declare(const char* name, int32_t type, const char* help) {
    detail::OptionData& d = schema_->options.add();
    d.spec.struct_size = sizeof(tn_option);
    d.spec.type = type;
    d.spec.name = name;
    d.spec.help = help;
    return d;
  }
  // Values come in the order of the schema, which is the order of declaration.
  const tn_value& next(const char* name) {
    if (at_ >= n_ || std::strcmp(options_[at_].name, name))
      throw Error(std::string("option ") + name + ": a constructor must always declare the same options",
                  TN_STATUS_INTERNAL);
    return options_[at_++].value;
  }
  template <class T>
  tn_value scalar(const char* name, int32_t type, const char* help, const T* fallback, uint32_t flags = 0) {
    if (!schema_) return next(name);
    tn_value v{type, 0, {}};
    if constexpr (std::is_same_v<T, double>)
      v.as.f64 = *fallback;
    else if constexpr (std::is_same_v<T, int64_t>)
      v.as.i64 = *fallback;
    else
      v.as.str = *fallback, v.count = static_cast<uint32_t>(std::strlen(*fallback));
    detail::OptionData& d = declare(name, type, help);
    d.spec.flags |= flags;
    if (!(flags & TN_OPTION_REQUIRED)) d.spec.fallback = v;
    return v;
  }
  detail::Schema* schema_ = nullptr;
  const tn_attr* options_ = nullptr;
  uint32_t n_ = 0, at_ = 0;
};

}  // namespace tn
