// Vector math against libm: accuracy in units in the last place, and special values.
#include <cmath>

#include "tests/cpu/harness.h"

namespace tenon::test {
namespace {

struct Function {
  const char* op;
  double (*exact)(double);
  double lo, hi;
  double ulp32, ulp64;  // allowed errors
  double floor = 0;     // of the magnitude that an ulp is taken from, where cancellation is inherent
};

double gelu(double x) { return 0.5 * x * std::erfc(-x / std::sqrt(2.0)); }
double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
double softplus(double x) { return std::fmax(x, 0) + std::log1p(std::exp(-std::fabs(x))); }
double gelu_tanh(double x) {
  return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
}

const Function kFunctions[] = {
    {"exp/1", [](double x) { return std::exp(x); }, -80, 80, 2, 2},
    {"exp/1", [](double x) { return std::exp(x); }, -2, 2, 2, 2},
    {"log/1", [](double x) { return std::log(x); }, 1e-30, 100, 4, 4},
    {"log/1", [](double x) { return std::log(x); }, 0.5, 2, 4, 4},
    {"log1p/1", [](double x) { return std::log1p(x); }, -0.9, 3, 4, 4},
    {"log1p/1", [](double x) { return std::log1p(x); }, -1e-4, 1e-4, 4, 4},
    {"expm1/1", [](double x) { return std::expm1(x); }, -20, 20, 4, 4},
    {"expm1/1", [](double x) { return std::expm1(x); }, -1e-3, 1e-3, 4, 4},
    {"sqrt/1", [](double x) { return std::sqrt(x); }, 0, 1e6, 0.51, 1},
    {"rsqrt/1", [](double x) { return 1 / std::sqrt(x); }, 1e-3, 1e6, 2, 2},
    {"tanh/1", [](double x) { return std::tanh(x); }, -12, 12, 4, 4},
    {"tanh/1", [](double x) { return std::tanh(x); }, -0.01, 0.01, 4, 4},
    {"sigmoid/1", sigmoid, -40, 40, 4, 4},
    {"softplus/1", softplus, -40, 40, 4, 4},
    {"erf/1", [](double x) { return std::erf(x); }, -5, 5, 2, 2},
    {"erf/1", [](double x) { return std::erf(x); }, -1e-3, 1e-3, 2, 2},
    {"gelu/1", gelu, -6, 6, 4, 4, 1},
    {"gelu_tanh/1", gelu_tanh, -6, 6, 8, 8, 1},
    {"silu/1", [](double x) { return x * sigmoid(x); }, -20, 20, 5, 5},
    {"sin/1", [](double x) { return std::sin(x); }, -100, 100, 4, 4, 1e-2},
    {"sin/1", [](double x) { return std::sin(x); }, -1e6, 1e6, 4, 4, 1e-2},
    {"cos/1", [](double x) { return std::cos(x); }, -100, 100, 4, 4, 1e-2},
    {"asin/1", [](double x) { return std::asin(x); }, -1, 1, 4, 4},
    {"acos/1", [](double x) { return std::acos(x); }, -1, 1, 4, 4},
    {"atan/1", [](double x) { return std::atan(x); }, -50, 50, 4, 4},
};

HostArray apply(Backend& backend, const char* op, Operand& x) {
  Piece piece;
  piece.inputs = {x.layout};
  piece.nodes = {node(op, {0}, {x.layout.dtype, x.layout.shape})};
  piece.outputs = {{0, 0}};
  Operand* const operands[] = {&x};
  Ran ran = run(backend, piece, operands);
  REQUIRE(ran.kernel.starts_with("tile:"));
  return std::move(ran.out[0]);
}

TEST_CASE("vector math is accurate to a few units in the last place") {
  const auto backend = make_cpu_backend();
  const uint32_t seed = std::random_device{}();
  CAPTURE(seed);
  Random random(seed);
  for (const Function& f : kFunctions) {
    for (const DType t : {DType::f32, DType::f64}) {
      Operand x = random.tensor(t, {5003}, f.lo, f.hi);
      const HostArray y = apply(*backend, f.op, x);
      double worst = 0, at = 0;
      for (int64_t i = 0; i < 5003; ++i) {
        const double v = get(x.data(), t, i), exact = f.exact(v);
        const double size = std::fmax(std::fabs(exact), f.floor);
        const double ulp = t == DType::f32
                               ? double(std::nextafterf(float(size), INFINITY)) - double(float(size))
                               : std::nextafter(size, INFINITY) - size;
        const double error = std::fabs(y.at(i) - exact) / ulp;
        if (!(error <= worst)) worst = error, at = v;
      }
      CAPTURE(f.op, std::string(name_of(t)), f.lo, f.hi, worst, at);
      CHECK(worst <= (t == DType::f32 ? f.ulp32 : f.ulp64));
    }
  }
}

TEST_CASE("vector math has the limits of libm") {
  const auto backend = make_cpu_backend();
  const double inf = INFINITY;
  for (const Function& f : kFunctions) {
    for (const DType t : {DType::f32, DType::f64}) {
      const double values[] = {0.0,   -0.0,   inf,  -inf,  NAN, 1.0,  -1.0, 2.0, -2.0,
                               1e-40, -1e-40, 1e30, -1e30, 200, -200, 1e-8, 800, -800};
      Operand x = Random(1).tensor(t, {18}, 0, 1);
      for (int64_t i = 0; i < 18; ++i) set(x.data(), t, i, values[i]);
      const HostArray y = apply(*backend, f.op, x);
      for (int64_t i = 0; i < 18; ++i) {
        const double v = get(x.data(), t, i);
        double exact = f.exact(v);
        if (std::string(f.op).starts_with("gelu") || std::string(f.op) == "silu/1")
          if (std::isinf(v) && v < 0) continue;  // -inf * 0: NaN by the formula
        if (t == DType::f32) exact = static_cast<double>(static_cast<float>(exact));
        const double got = y.at(i);
        CAPTURE(f.op, std::string(name_of(t)), v, exact, got);
        if (std::isnan(exact))
          CHECK(std::isnan(got));
        else if (std::isinf(exact))
          CHECK(got == exact);
        else
          CHECK(std::fabs(got - exact) <= 1e-5 * std::fabs(exact) + 1e-37);
      }
    }
  }
}

}  // namespace
}  // namespace tenon::test
