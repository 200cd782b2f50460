// Functions of two variables. They broadcast as numpy's do and want equal dtypes; comparisons give bool.
#include "core/ops/elementwise_table.h"

namespace tenon {
namespace {

struct Add {
  static constexpr std::string_view id = "add/1";
  static constexpr bool ints = true;
  static constexpr double low = -2, high = 1.5;
  static auto f(auto a, auto b) { return wrap_add(a, b); }
  static Tensor da(Tensor, Tensor, Tensor, Tensor g) { return g; }
  static Tensor db(Tensor, Tensor, Tensor, Tensor g) { return g; }
};
struct Sub {
  static constexpr std::string_view id = "sub/1";
  static constexpr bool ints = true;
  static constexpr double low = -2, high = 1.5;
  static auto f(auto a, auto b) { return wrap_sub(a, b); }
  static Tensor da(Tensor, Tensor, Tensor, Tensor g) { return g; }
  static Tensor db(Tensor, Tensor, Tensor, Tensor g) { return neg(g); }
};
struct Mul {
  static constexpr std::string_view id = "mul/1";
  static constexpr bool ints = true;
  static constexpr double low = -2, high = 1.5;
  static auto f(auto a, auto b) { return wrap_mul(a, b); }
  static Tensor da(Tensor, Tensor b, Tensor, Tensor g) { return g * b; }
  static Tensor db(Tensor a, Tensor, Tensor, Tensor g) { return g * a; }
};
struct Div {
  static constexpr std::string_view id = "div/1";
  static constexpr double low = 0.4, high = 2;
  static auto f(auto a, auto b) { return a / b; }
  static Tensor da(Tensor, Tensor b, Tensor, Tensor g) { return g / b; }
  static Tensor db(Tensor, Tensor b, Tensor y, Tensor g) { return neg(g * (y / b)); }
};
// d/da = b a^(b-1), d/db = a^b log a. Where the formulas meet 0 * inf the factor that is zero wins: 0^0 has
// derivative 0 in a, and 0^b has derivative 0 in b.
struct Pow {
  static constexpr std::string_view id = "pow/1";
  static constexpr double low = 0.4, high = 2;
  static auto f(auto a, auto b) { return std::pow(a, b); }
  static Tensor da(Tensor a, Tensor b, Tensor, Tensor g) {
    const Tensor zero = constant_like(a, 0), one = constant_like(a, 1);
    const Tensor both_zero = logical_and(equal(a, zero), equal(b, zero));
    return g * b * pow(where(both_zero, one, a), b - one);
  }
  static Tensor db(Tensor a, Tensor, Tensor y, Tensor g) {
    return g * y * log(where(equal(a, constant_like(a, 0)), constant_like(a, 1), a));
  }
};

// g where a is the chosen one, half of it where both are.
Tensor share(Tensor chosen, Tensor a, Tensor b, Tensor g) {
  const Tensor tie = equal(a, b);
  return where(tie, g * constant_like(g, 0.5), where(chosen, g, constant_like(g, 0)));
}
struct Minimum {
  static constexpr std::string_view id = "minimum/1";
  static constexpr bool ints = true;
  static constexpr double low = -2, high = 1.5;
  static auto f(auto a, auto b) { return a != a ? a : a < b ? a : b; }  // NaN in either gives NaN
  static Tensor da(Tensor a, Tensor b, Tensor, Tensor g) { return share(less(a, b), a, b, g); }
  static Tensor db(Tensor a, Tensor b, Tensor, Tensor g) { return share(less(b, a), a, b, g); }
};
struct Maximum {
  static constexpr std::string_view id = "maximum/1";
  static constexpr bool ints = true;
  static constexpr double low = -2, high = 1.5;
  static auto f(auto a, auto b) { return a != a ? a : a > b ? a : b; }
  static Tensor da(Tensor a, Tensor b, Tensor, Tensor g) { return share(greater(a, b), a, b, g); }
  static Tensor db(Tensor a, Tensor b, Tensor, Tensor g) { return share(greater(b, a), a, b, g); }
};

// --- Comparisons and logic ---

struct Equal {
  static constexpr std::string_view id = "equal/1";
  static bool f(auto a, auto b) { return a == b; }
};
struct NotEqual {
  static constexpr std::string_view id = "not_equal/1";
  static bool f(auto a, auto b) { return a != b; }
};
struct Less {
  static constexpr std::string_view id = "less/1";
  static bool f(auto a, auto b) { return a < b; }
};
struct LessEqual {
  static constexpr std::string_view id = "less_equal/1";
  static bool f(auto a, auto b) { return a <= b; }
};
struct Greater {
  static constexpr std::string_view id = "greater/1";
  static bool f(auto a, auto b) { return a > b; }
};
struct GreaterEqual {
  static constexpr std::string_view id = "greater_equal/1";
  static bool f(auto a, auto b) { return a >= b; }
};
struct LogicalAnd {
  static constexpr std::string_view id = "logical_and/1";
  static bool f(bool a, bool b) { return a && b; }
};
struct LogicalOr {
  static constexpr std::string_view id = "logical_or/1";
  static bool f(bool a, bool b) { return a || b; }
};

template <class Op>
Status infer_compare(const InferArgs& a) {
  TN_RETURN_IF_ERROR(want_same_dtype(op_name<Op>(), a.in));
  TN_ASSIGN(const Shape shape, broadcast_operands(op_name<Op>(), a.in));
  a.out = {{DType::boolean, shape}};
  return Status::ok();
}
template <class Op>
Status plain_compare(const KernelArgs& a) {
  dispatch(a.in[0].dtype, [&](auto t) {
    using T = decltype(t);
    using A = Arith<T>;
    map_elements<T, bool>(a.in[0], a.in[1], a.out[0], [](A x, A y) { return Op::f(x, y); });
  });
  return Status::ok();
}
// Small integers, so that there are ties.
std::vector<Sample> compare_samples() {
  const auto pair = [](const Shape& x, const Shape& y) {
    Sample s{{sample_f64(x, -2.5, 2.5), sample_f64(y, -2.5, 2.5, 2)}};
    for (HostArray& array : s.in)
      for (double& v : array.as<double>()) v = std::nearbyint(v);
    return s;
  };
  return {pair({3, 5}, {3, 5}), pair({3, 1}, {5}), pair({}, {4}), pair({1}, {1}), pair({0, 3}, {3})};
}
template <class Op>
constexpr OpDef comparison() {
  return {.id = Op::id,
          .min_in = 2,
          .max_in = 2,
          .infer = infer_compare<Op>,
          .plain = plain_compare<Op>,
          .samples = compare_samples,
          .elementwise = true};
}

template <class Op>
Status infer_logical(const InferArgs& a) {
  for (const TensorType& t : a.in)
    if (t.dtype != DType::boolean)
      return invalid(std::string(op_name<Op>()) + ": got " + to_string(t) +
                     "; it wants bool (compare or cast first)");
  return infer_compare<Op>(a);
}
template <class Op>
Status plain_logical(const KernelArgs& a) {
  map_elements<bool, bool>(a.in[0], a.in[1], a.out[0], Op::f);
  return Status::ok();
}
std::vector<Sample> logical_samples() {
  const bool f = false, t = true;
  const bool a[] = {f, f, t, t}, b[] = {f, t, f, t};
  const auto of = [](std::span<const bool> v, const Shape& s) { return HostArray::of<bool>(v, s); };
  return {{{of(a, {4}), of(b, {4})}},
          {{of(a, {4, 1}), of(b, {2, 1, 2})}},
          {{of({a, 1}, {1}), of({b + 1, 1}, {})}},
          {{HostArray(DType::boolean, {0}), of({b, 1}, {1})}}};
}
template <class Op>
constexpr OpDef logical() {
  return {.id = Op::id,
          .min_in = 2,
          .max_in = 2,
          .infer = infer_logical<Op>,
          .plain = plain_logical<Op>,
          .samples = logical_samples,
          .elementwise = true};
}

constinit const OpDef kAdd = binary<Add>(), kSub = binary<Sub>(), kMul = binary<Mul>(), kDiv = binary<Div>(),
                      kPow = binary<Pow>(), kMinimum = binary<Minimum>(), kMaximum = binary<Maximum>(),
                      kEqual = comparison<Equal>(), kNotEqual = comparison<NotEqual>(),
                      kLess = comparison<Less>(), kLessEqual = comparison<LessEqual>(),
                      kGreater = comparison<Greater>(), kGreaterEqual = comparison<GreaterEqual>(),
                      kLogicalAnd = logical<LogicalAnd>(), kLogicalOr = logical<LogicalOr>();

}  // namespace

constinit const OpDef* const kBinaryOps[] = {
    &kAdd,      &kSub,  &kMul,       &kDiv,     &kPow,          &kMinimum,    &kMaximum,  &kEqual,
    &kNotEqual, &kLess, &kLessEqual, &kGreater, &kGreaterEqual, &kLogicalAnd, &kLogicalOr};

Tensor add(Tensor a, Tensor b) { return apply_plainly(kAdd, {a, b}); }
Tensor sub(Tensor a, Tensor b) { return apply_plainly(kSub, {a, b}); }
Tensor mul(Tensor a, Tensor b) { return apply_plainly(kMul, {a, b}); }
Tensor div(Tensor a, Tensor b) { return apply_plainly(kDiv, {a, b}); }
Tensor pow(Tensor a, Tensor b) { return apply_plainly(kPow, {a, b}); }
Tensor minimum(Tensor a, Tensor b) { return apply_plainly(kMinimum, {a, b}); }
Tensor maximum(Tensor a, Tensor b) { return apply_plainly(kMaximum, {a, b}); }
Tensor equal(Tensor a, Tensor b) { return apply_plainly(kEqual, {a, b}); }
Tensor not_equal(Tensor a, Tensor b) { return apply_plainly(kNotEqual, {a, b}); }
Tensor less(Tensor a, Tensor b) { return apply_plainly(kLess, {a, b}); }
Tensor less_equal(Tensor a, Tensor b) { return apply_plainly(kLessEqual, {a, b}); }
Tensor greater(Tensor a, Tensor b) { return apply_plainly(kGreater, {a, b}); }
Tensor greater_equal(Tensor a, Tensor b) { return apply_plainly(kGreaterEqual, {a, b}); }
Tensor logical_and(Tensor a, Tensor b) { return apply_plainly(kLogicalAnd, {a, b}); }
Tensor logical_or(Tensor a, Tensor b) { return apply_plainly(kLogicalOr, {a, b}); }

}  // namespace tenon
