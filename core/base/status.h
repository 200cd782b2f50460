// Errors are values: a Status is "ok" or a code with one clear sentence; a Result<T> is a value or a Status.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace tenon {

// Numerically equal to the TN_STATUS_* constants of the plugin ABI. What the user handed in and is wrong (a recipe, data,
// a checkpoint, a plugin) is one of the first three, and only that: the program then says "bad input".
enum class Code : int32_t {
  ok = 0,
  invalid = 1,      // wrong: options, shapes, a damaged file, a plugin that throws
  unsupported = 2,  // valid, but not something this build, backend or plugin can do
  not_found = 3,    // a file, id, field or tensor that is not there
  state = 4,        // can't go on: a full disk, a loss that became NaN, a call in the wrong order
  internal = 5,     // a defect of this program
  cancelled = 6,    // the user asked to stop
};

class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Code code, std::string message) : code_(code), message_(std::move(message)) {}
  static Status ok() { return {}; }

  explicit operator bool() const { return code_ == Code::ok; }
  bool is_ok() const { return code_ == Code::ok; }
  Code code() const { return code_; }
  const std::string& message() const { return message_; }

  // Prefixes the message with where it happened: "recipe.txtpb:7: " or "loss 'focal': ".
  Status at(std::string_view where) && {
    if (!is_ok()) message_.insert(0, std::string(where) + ": ");
    return std::move(*this);
  }

 private:
  Code code_ = Code::ok;
  std::string message_;
};

inline Status invalid(std::string m) { return {Code::invalid, std::move(m)}; }
inline Status unsupported(std::string m) { return {Code::unsupported, std::move(m)}; }
inline Status not_found(std::string m) { return {Code::not_found, std::move(m)}; }
inline Status bad_state(std::string m) { return {Code::state, std::move(m)}; }
inline Status internal_error(std::string m) { return {Code::internal, std::move(m)}; }
inline Status cancelled(std::string m) { return {Code::cancelled, std::move(m)}; }

template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : v_(std::in_place_index<0>, std::move(value)) {}  // NOLINT: implicit by design
  Result(Status status) : v_(std::in_place_index<1>, std::move(status)) {}

  explicit operator bool() const { return v_.index() == 0; }
  bool is_ok() const { return v_.index() == 0; }
  T& value() & { return std::get<0>(v_); }
  const T& value() const& { return std::get<0>(v_); }
  T&& value() && { return std::get<0>(std::move(v_)); }
  T* operator->() { return &std::get<0>(v_); }
  const T* operator->() const { return &std::get<0>(v_); }
  T& operator*() & { return std::get<0>(v_); }
  const T& operator*() const& { return std::get<0>(v_); }
  Status status() const& { return is_ok() ? Status::ok() : std::get<1>(v_); }
  Status status() && { return is_ok() ? Status::ok() : std::get<1>(std::move(v_)); }

 private:
  std::variant<T, Status> v_;
};

#define TN_CONCAT_(a, b) a##b
#define TN_CONCAT(a, b) TN_CONCAT_(a, b)

// Returns the Status of `expr` from the enclosing function unless it is ok.
#define TN_RETURN_IF_ERROR(expr)                                  \
  do {                                                            \
    if (::tenon::Status tn_status_ = (expr); !tn_status_.is_ok()) \
      return tn_status_;                                          \
  } while (0)

// `TN_ASSIGN(auto x, f())`: x takes the value of a Result, or its Status is returned.
#define TN_ASSIGN(decl, expr) TN_ASSIGN_IMPL_(TN_CONCAT(tn_result_, __LINE__), decl, expr)
#define TN_ASSIGN_IMPL_(tmp, decl, expr) \
  auto tmp = (expr);                     \
  if (!tmp.is_ok()) return std::move(tmp).status(); \
  decl = std::move(tmp).value()

}  // namespace tenon
