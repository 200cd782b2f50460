#include "tests/ops/call.h"

#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <cstdlib>

#include "core/ops/ops.h"

namespace tenon::test {
namespace {

constexpr double kGap = 77;  // what lies between the elements of a spaced tensor

Dims filled(const HostArray& a, int64_t v) { return Dims::filled(a.shape().rank(), v); }

// Shape and range of a tensor that holds every second element of a larger one.
struct Spaced {
  Shape shape;
  Dims start, stop, step;
  explicit Spaced(const Shape& s) {
    for (int64_t d : s) {
      shape.push_back(2 * d + 2);
      start.push_back(1);
      stop.push_back(2 * d + 1);
      step.push_back(2);
    }
  }
};

}  // namespace

Result<std::vector<HostArray>> run_plain(const OpDef& op, std::span<const HostArray> in,
                                         const AttrList& attrs) {
  std::vector<TensorType> types, out_types;
  std::vector<View> views, out_views;
  for (const HostArray& a : in) {
    types.push_back({a.dtype(), a.shape()});
    views.emplace_back(Layout(types.back()), const_cast<std::byte*>(a.data()));
  }
  const Attrs view_of_attrs(op.attrs, attrs.words());
  TN_RETURN_IF_ERROR(op.infer({types, view_of_attrs, out_types}));
  std::vector<HostArray> out;
  for (const TensorType& t : out_types) out.emplace_back(t.dtype, t.shape);
  for (HostArray& a : out) {
    out_views.emplace_back(Layout({a.dtype(), a.shape()}), a.data());
    std::fill_n(a.data(), a.size_bytes(), std::byte{0x5a});  // a kernel must write every element
  }
  TN_RETURN_IF_ERROR(op.plain({views, out_views, view_of_attrs}));
  return out;
}

HostArray plain(std::string_view id, std::vector<HostArray> in, const AttrList& attrs) {
  const OpDef* op = find_op(id);
  REQUIRE(op);
  auto out = run_plain(*op, in, attrs);
  INFO(out.status().message());
  REQUIRE(out);
  return (*out)[0];
}

std::string_view name_of(Style s) {
  constexpr std::string_view names[] = {"dense", "transposed", "flipped", "spaced", "repeated"};
  return names[static_cast<int>(s)];
}

Tensor input(Graph& g, const HostArray& value) {
  auto array = Array::from_host(g.backend(), value);
  REQUIRE(array);
  return g.input(*array);
}

HostArray repeat_first(const HostArray& value) {
  if (value.shape().rank() == 0 || value.numel() == 0) return value;
  Dims stop = value.shape();
  stop[0] = 1;
  const AttrList first = AttrList().ints(filled(value, 0)).ints(stop).ints(filled(value, 1));
  return plain("broadcast_to/1", {plain("slice/1", {value}, first)}, AttrList().ints(value.shape()));
}

Tensor present(Graph& g, const HostArray& value, Style style) {
  if (value.shape().rank() == 0) {
    // The middle one of three.
    if (style != Style::spaced) return input(g, value);
    HostArray three(value.dtype(), {3});
    for (int64_t i = 0; i < 3; ++i) three.set(i, i == 1 ? value.at(0) : kGap);
    if (value.dtype() == DType::i64)
      three.as<int64_t>()[1] = value.as<int64_t>()[0];  // keys need all their bits
    return reshape(slice(input(g, three), {1}, {2}), Shape{});
  }
  switch (style) {
    case Style::dense:
      return input(g, value);
    case Style::transposed:
      return transpose(input(g, plain("transpose/1", {value}, AttrList().ints(Dims{}))));
    case Style::flipped: {
      Axes all;
      for (int i = 0; i < value.shape().rank(); ++i) all.push_back(i);
      return flip(input(g, plain("flip/1", {value}, AttrList().ints(all))), all);
    }
    case Style::spaced: {
      const Spaced s(value.shape());
      const AttrList attrs = AttrList().ints(s.shape).ints(s.start).ints(s.stop).ints(s.step);
      HostArray memory = plain("slice_grad/1", {value}, attrs);
      HostArray ones(value.dtype(), value.shape());
      for (int64_t i = 0; i < ones.numel(); ++i) ones.set(i, 1);
      const HostArray used = plain("slice_grad/1", {ones}, attrs);
      for (int64_t i = 0; i < memory.numel(); ++i)
        if (used.at(i) == 0) memory.set(i, kGap);
      return slice(input(g, memory), s.start, s.stop, s.step);
    }
    case Style::repeated:
      break;
  }
  if (value.numel() == 0) return input(g, value);
  Dims stop = value.shape();
  stop[0] = 1;
  const AttrList first = AttrList().ints(filled(value, 0)).ints(stop).ints(filled(value, 1));
  return broadcast_to(input(g, plain("slice/1", {value}, first)), value.shape());
}

Result<std::vector<HostArray>> run_device(Runtime& rt, const OpDef& op, std::span<const HostArray> in,
                                          const AttrList& attrs, Style style) {
  Graph g(rt);
  std::vector<Tensor> inputs;
  for (const HostArray& a : in) inputs.push_back(present(g, a, style));
  const Tensor y = g.apply(op, inputs, attrs);
  TN_RETURN_IF_ERROR(g.status());
  std::vector<Tensor> outs;
  for (int k = 0; k < op.n_out; ++k) outs.push_back(y.output(k));
  TN_ASSIGN(const std::vector<Array> arrays, g.eval(outs));
  std::vector<HostArray> host;
  for (const Array& a : arrays) {
    TN_ASSIGN(HostArray h, a.to_host());
    host.push_back(std::move(h));
  }
  return host;
}

HostArray to_dtype(const HostArray& a, DType t) {
  HostArray out(t, a.shape());
  for (int64_t i = 0; i < a.numel(); ++i) out.set(i, a.at(i));
  return out;
}

std::string difference(const HostArray& got, const HostArray& expected, double tolerance) {
  const TensorType a{got.dtype(), got.shape()}, b{expected.dtype(), expected.shape()};
  if (a.shape != b.shape) return "is " + to_string(a) + ", expected " + to_string(b);
  double mean = 0;
  int64_t finite = 0;
  for (int64_t i = 0; i < expected.numel(); ++i)
    if (std::isfinite(expected.at(i))) mean += std::abs(expected.at(i)), ++finite;
  mean /= static_cast<double>(std::max<int64_t>(finite, 1));
  for (int64_t i = 0; i < expected.numel(); ++i) {
    const double x = got.at(i), y = expected.at(i);
    if (x == y || (std::isnan(x) && std::isnan(y))) continue;
    if (std::abs(x - y) <= tolerance * (std::abs(y) + mean)) continue;
    return "element " + std::to_string(i) + " of " + to_string(b) + " is " + std::to_string(x) +
           ", expected " + std::to_string(y) + " (off by " +
           std::to_string((x - y) / (std::abs(y) + mean) * 1e6) + "e-6)";
  }
  return {};
}

std::vector<const OpDef*> ops_under_test() {
  const char* only = std::getenv("TENON_TEST_OP");
  std::vector<const OpDef*> ops;
  for (const OpDef* op : all_ops())
    if (!only || op->name() == only) ops.push_back(op);
  REQUIRE(!ops.empty());
  return ops;
}

}  // namespace tenon::test
