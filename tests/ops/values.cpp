// Every op on the device under test gives what its plain kernel gives: dense, strided, empty, of size 1, in
// every dtype.
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <set>

#include "core/ops/sample_values.h"
#include "tests/ops/call.h"
#include "tests/support/device.h"
#include "tests/support/tolerance.h"

namespace tenon::test {
namespace {

// Draws of one key differ from dtype to dtype, so a comparison with f64 means nothing.
bool draws(const OpDef& op) { return op.name().starts_with("random_"); }

bool has_floating_input(const Sample& s) {
  for (const HostArray& a : s.in)
    if (is_floating(a.dtype())) return true;
  return false;
}
std::vector<HostArray> floats_as(const std::vector<HostArray>& in, DType t) {
  std::vector<HostArray> out;
  for (const HostArray& a : in) out.push_back(is_floating(a.dtype()) ? to_dtype(a, t) : a);
  return out;
}

// Compares the device with the plain kernel on the same inputs; both must succeed or both fail.
void compare(Runtime& rt, const OpDef& op, const std::vector<HostArray>& in, const AttrList& attrs,
             Style style) {
  INFO("inputs " << name_of(style));
  const auto expected = run_plain(op, in, attrs);
  const auto got = run_device(rt, op, in, attrs, style);
  INFO((expected ? "" : expected.status().message()) << (got ? "" : got.status().message()));
  if (!expected) {
    CHECK(!got);
    return;
  }
  REQUIRE(got);
  for (size_t k = 0; k < expected->size(); ++k) {
    CHECK((*got)[k].dtype() == (*expected)[k].dtype());
    CHECK(difference((*got)[k], (*expected)[k], tolerance((*expected)[k].dtype()).between_kernels) == "");
  }
}

TEST_CASE("every op has an id, a shape rule, a kernel and samples") {
  std::set<std::string_view> ids;
  for (const OpDef* op : all_ops()) {
    INFO(op->id);
    CHECK(op->id.find('/') != std::string_view::npos);
    CHECK(ids.insert(op->id).second);
    CHECK(find_op(op->id) == op);
    CHECK(op->infer);
    CHECK(op->plain);
    REQUIRE(op->samples);
    CHECK(!op->samples().empty());
  }
  CHECK(find_op("no_such_op/1") == nullptr);
}

TEST_CASE("values on dense and strided inputs") {
  auto rt = runtime();
  for (const OpDef* op : ops_under_test()) {
    int index = 0;
    for (const Sample& s : op->samples()) {
      INFO(op->id << ", sample " << index++);
      for (DType t : {DType::f64, DType::f32, DType::bf16}) {
        if (t != DType::f64 && !has_floating_input(s)) continue;
        const std::vector<HostArray> in = floats_as(s.in, t);
        if (!run_plain(*op, in, s.attrs)) {
          CHECK(t == DType::bf16);  // linear algebra is for f32 and f64
          continue;
        }
        INFO(name_of(t));
        for (Style style : {Style::dense, Style::transposed, Style::flipped, Style::spaced})
          compare(*rt, *op, in, s.attrs, style);
      }
    }
  }
}

TEST_CASE("values on repeated inputs (stride 0)") {
  auto rt = runtime();
  for (const OpDef* op : ops_under_test()) {
    int index = 0;
    for (const Sample& s : op->samples()) {
      INFO(op->id << ", sample " << index++);
      // Elsewhere the first axis may be one whose repetition has no meaning (a singular matrix).
      const bool batched =
          std::all_of(s.in.begin(), s.in.end(), [](const HostArray& a) { return a.shape().rank() >= 3; });
      if (!op->elementwise && !batched) continue;
      std::vector<HostArray> in;
      for (const HostArray& a : s.in) in.push_back(repeat_first(a));
      compare(*rt, *op, in, s.attrs, Style::repeated);
    }
  }
}

TEST_CASE("empty tensors and tensors of size 1, wherever the shape rule accepts them") {
  auto rt = runtime();
  for (const OpDef* op : ops_under_test()) {
    int index = 0;
    for (const Sample& s : op->samples()) {
      INFO(op->id << ", sample " << index++);
      for (int64_t size : {0, 1}) {
        std::vector<HostArray> in;
        std::vector<TensorType> types, out;
        for (const HostArray& a : s.in) {
          const Shape shape(Dims::filled(a.shape().rank(), size));
          in.push_back(a.dtype() == DType::f64 ? sample_f64(shape, 0.2, 0.9) : HostArray(a.dtype(), shape));
          types.push_back({a.dtype(), shape});
        }
        if (!op->infer({types, Attrs(op->attrs, s.attrs.words()), out}).is_ok()) continue;
        INFO("size " << size);
        compare(*rt, *op, in, s.attrs, Style::dense);
      }
    }
  }
}

// The sample's values over and over, in another shape.
HostArray refill(const HostArray& a, const Shape& shape) {
  HostArray out(a.dtype(), shape);
  for (int64_t i = 0; i < out.numel(); ++i) out.set(i, a.at((i * 7 + i / 31) % a.numel()));
  return out;
}

TEST_CASE("element-wise ops and reductions at sizes of several tiles") {
  auto rt = runtime();
  for (const OpDef* op : ops_under_test()) {
    const bool reduces = !op->attrs.empty() && op->attrs[0].name == "axes" && !op->view;
    if (!op->elementwise && !reduces) continue;
    INFO(op->id);
    const Sample s = op->samples()[0];
    for (DType t : {DType::f64, DType::f32, DType::bf16}) {
      if (t != DType::f64 && !has_floating_input(s)) continue;
      INFO(name_of(t));
      const std::vector<HostArray> base = floats_as(s.in, t);
      if (reduces) {
        for (const Axes& axes : {Axes{}, Axes{0}, Axes{1}, Axes{0, 2}, Axes{1, 2}, Axes{2}}) {
          AttrList attrs = AttrList().ints(axes).i(0);
          if (op->attrs.size() > 2) attrs.i(1);  // var: ddof
          INFO("axes " << to_string(axes));
          for (Style style : {Style::dense, Style::transposed, Style::flipped})
            compare(*rt, *op, {refill(base[0], {3, 37, 517})}, attrs, style);
        }
        continue;
      }
      for (const Shape& last : {Shape{7, 517}, Shape{517}, Shape{7, 1}, Shape{}}) {
        std::vector<HostArray> in;
        for (const HostArray& a : base)
          in.push_back(refill(a, in.size() + 1 == base.size() ? last : Shape{7, 517}));
        for (Style style : {Style::dense, Style::transposed, Style::spaced})
          compare(*rt, *op, in, s.attrs, style);
      }
    }
  }
}

TEST_CASE("f32 and bf16 agree with f64") {
  auto rt = runtime();
  for (const OpDef* op : ops_under_test()) {
    if (draws(*op)) continue;
    int index = 0;
    for (const Sample& s : op->samples()) {
      INFO(op->id << ", sample " << index++);
      if (!has_floating_input(s)) continue;
      for (DType t : {DType::f32, DType::bf16}) {
        const std::vector<HostArray> in = floats_as(s.in, t);
        const auto expected = run_plain(*op, floats_as(in, DType::f64), s.attrs);
        const auto got = run_device(*rt, *op, in, s.attrs);
        REQUIRE(expected);
        if (!got) {
          INFO(got.status().message());
          CHECK(t == DType::bf16);
          continue;
        }
        INFO(name_of(t));
        for (size_t k = 0; k < expected->size(); ++k) {
          const double slack = std::max(tolerance(t).against_f64, tolerance((*got)[k].dtype()).against_f64);
          const bool exact = !is_floating((*got)[k].dtype());
          CHECK(difference((*got)[k], (*expected)[k], exact ? 0 : slack) == "");
        }
      }
    }
  }
}

TEST_CASE("integer types take the same values") {
  auto rt = runtime();
  for (const OpDef* op : ops_under_test()) {
    int index = 0;
    for (const Sample& s : op->samples()) {
      INFO(op->id << ", sample " << index++);
      if (!has_floating_input(s) || draws(*op)) continue;
      for (DType t : {DType::i32, DType::i64, DType::u8, DType::boolean}) {
        std::vector<HostArray> in;
        for (const HostArray& a : s.in) {
          if (a.dtype() != DType::f64) {
            in.push_back(a);
            continue;
          }
          HostArray whole(t, a.shape());
          for (int64_t i = 0; i < a.numel(); ++i) {
            const double v = std::abs(a.at(i)) < 30 ? a.at(i) : 0;  // 4 v is in the range of u8, and not NaN
            const int sign = i % 2 && t != DType::u8 ? -1 : 1;
            whole.set(i, is_integer(t) ? sign * std::abs(std::floor(4 * v)) : v > 0);
          }
          in.push_back(whole);
        }
        INFO(name_of(t));
        if (run_plain(*op, in, s.attrs)) compare(*rt, *op, in, s.attrs, Style::dense);
      }
    }
  }
}

}  // namespace
}  // namespace tenon::test
