// First and second derivatives of every op against central differences in f64, and lazy against eager bits.
#include <catch2/catch_test_macros.hpp>
#include <cmath>

#include "core/graph/grad.h"
#include "core/ops/ops.h"
#include "core/ops/sample_values.h"
#include "tests/ops/call.h"
#include "tests/support/device.h"

namespace tenon::test {
namespace {

// The inputs that a sample is differentiated in.
std::vector<size_t> differentiated(const Sample& s) {
  std::vector<size_t> which;
  for (size_t i = 0; i < s.in.size(); ++i)
    if (s.in[i].dtype() == DType::f64 &&
        std::find(s.constant.begin(), s.constant.end(), static_cast<int>(i)) == s.constant.end())
      which.push_back(i);
  return which;
}

HostArray weights(const Shape& shape, size_t seed) { return sample_f64(shape, -1, 1.1, 100 + seed); }

double dot(const HostArray& a, const HostArray& b) {
  double sum = 0;
  for (int64_t i = 0; i < a.numel(); ++i) sum += a.at(i) * b.at(i);
  return sum;
}

// sum_k <out_k, w_k> over the floating outputs, by the plain kernel.
double projection(const OpDef& op, const std::vector<HostArray>& in, const AttrList& attrs) {
  const auto out = run_plain(op, in, attrs);
  INFO(out.status().message());
  REQUIRE(out);
  double sum = 0;
  for (size_t k = 0; k < out->size(); ++k)
    if (is_floating((*out)[k].dtype())) sum += dot((*out)[k], weights((*out)[k].shape(), k));
  return sum;
}

// The projection's gradients as graph, and the projection of those: s = sum_i <grad_i, v_i>, with its
// gradients.
struct Derivatives {
  std::vector<HostArray> first, second;
  double s = 0;
};
Result<Derivatives> differentiate(Runtime& rt, const OpDef& op, const std::vector<HostArray>& in,
                                  const AttrList& attrs, const std::vector<size_t>& which) {
  Graph g(rt);
  std::vector<Tensor> inputs, xs;
  for (const HostArray& a : in) inputs.push_back(input(g, a));
  for (size_t i : which) xs.push_back(inputs[i]);
  const Tensor y = g.apply(op, inputs, attrs);
  Tensor projected;
  for (int k = 0; k < op.n_out && y.valid(); ++k) {
    const Tensor out = y.output(k);
    if (!is_floating(out.dtype())) continue;
    const Tensor term = sum(cast(out, DType::f64) * input(g, weights(out.shape(), static_cast<size_t>(k))));
    projected = projected.valid() ? projected + term : term;
  }
  const std::vector<Tensor> first = grad(projected, xs);
  TN_RETURN_IF_ERROR(g.status());
  Tensor s;
  for (size_t i = 0; i < first.size(); ++i) {
    const Tensor term = sum(first[i] * input(g, weights(first[i].shape(), 10 + i)));
    s = s.valid() ? s + term : term;
  }
  const std::vector<Tensor> second = grad(s, xs);
  TN_RETURN_IF_ERROR(g.status());
  std::vector<Tensor> wanted = first;
  wanted.insert(wanted.end(), second.begin(), second.end());
  wanted.push_back(s);
  TN_ASSIGN(const std::vector<Array> arrays, g.eval(wanted));
  Derivatives d;
  for (size_t i = 0; i < arrays.size(); ++i) {
    TN_ASSIGN(HostArray h, arrays[i].to_host());
    if (i < first.size())
      d.first.push_back(std::move(h));
    else if (i + 1 < arrays.size())
      d.second.push_back(std::move(h));
    else
      d.s = h.at(0);
  }
  return d;
}

bool close(double got, double expected, double scale, double tolerance) {
  return std::abs(got - expected) <= tolerance * (1 + scale);  // false for NaN
}
double largest(const HostArray& a) {
  double m = 0;
  for (int64_t i = 0; i < a.numel(); ++i) m = std::max(m, std::abs(a.at(i)));
  return m;
}

// Calls f(op, sample, inputs differentiated in) for everything that has a derivative.
template <class F>
void for_each_differentiable(F f) {
  for (const OpDef* op : ops_under_test()) {
    if (!op->vjp) continue;
    int index = 0;
    for (const Sample& s : op->samples()) {
      INFO(op->id << ", sample " << index++);
      const std::vector<size_t> which = differentiated(s);
      if (!which.empty()) f(*op, s, which);
    }
  }
}

TEST_CASE("first derivatives match central differences") {
  auto rt = runtime();
  for_each_differentiable([&](const OpDef& op, const Sample& s, const std::vector<size_t>& which) {
    const auto d = differentiate(*rt, op, s.in, s.attrs, which);
    INFO(d.status().message());
    REQUIRE(d);
    for (size_t k = 0; k < which.size(); ++k) {
      INFO("input " << which[k]);
      const HostArray& got = d->first[k];
      REQUIRE(got.shape() == s.in[which[k]].shape());
      const double scale = largest(got);
      const int64_t n = got.numel(), stride = std::max<int64_t>(1, n / 48);
      for (int64_t i = 0; i < n; i += stride) {
        std::vector<HostArray> in = s.in;
        const double x = in[which[k]].at(i), h = 1e-5 * std::max(1.0, std::abs(x));
        in[which[k]].set(i, x + h);
        const double up = projection(op, in, s.attrs);
        in[which[k]].set(i, x - h);
        const double down = projection(op, in, s.attrs);
        const double expected = (up - down) / (2 * h);
        if (close(got.at(i), expected, scale, s.tolerance)) continue;
        CAPTURE(i, got.at(i), expected);
        CHECK(close(got.at(i), expected, scale, s.tolerance));
        break;
      }
    }
  });
}

TEST_CASE("second derivatives match central differences of the first") {
  auto rt = runtime();
  for_each_differentiable([&](const OpDef& op, const Sample& s, const std::vector<size_t>& which) {
    const auto d = differentiate(*rt, op, s.in, s.attrs, which);
    INFO(d.status().message());
    REQUIRE(d);
    for (size_t trial = 0; trial < 3; ++trial) {
      // Along a direction in all inputs at once: mixed derivatives are in it.
      const double h = 2e-5;
      std::vector<HostArray> up = s.in, down = s.in;
      double got = 0, scale = 0;
      for (size_t k = 0; k < which.size(); ++k) {
        const HostArray& x = s.in[which[k]];
        const HostArray direction = weights(x.shape(), 20 + 10 * trial + k);
        for (int64_t i = 0; i < x.numel(); ++i) {
          up[which[k]].set(i, x.at(i) + h * direction.at(i));
          down[which[k]].set(i, x.at(i) - h * direction.at(i));
        }
        got += dot(d->second[k], direction);
        scale += largest(d->second[k]);
      }
      const auto plus = differentiate(*rt, op, up, s.attrs, which),
                 minus = differentiate(*rt, op, down, s.attrs, which);
      REQUIRE(plus);
      REQUIRE(minus);
      const double expected = (plus->s - minus->s) / (2 * h);
      CAPTURE(trial, got, expected);
      CHECK(close(got, expected, scale, 10 * s.tolerance));
    }
  });
}

TEST_CASE("lazy and eager runs give the same bits") {
  RuntimeOptions lazy_options = options(), eager_options = options();
  lazy_options.eager = false;
  eager_options.eager = true;
  auto lazy = runtime(lazy_options), eager = runtime(eager_options);
  for (const OpDef* op : ops_under_test()) {
    int index = 0;
    for (const Sample& s : op->samples()) {
      INFO(op->id << ", sample " << index++);
      const auto a = run_device(*lazy, *op, s.in, s.attrs), b = run_device(*eager, *op, s.in, s.attrs);
      REQUIRE(a);
      REQUIRE(b);
      for (size_t k = 0; k < a->size(); ++k) CHECK(same_bits((*a)[k], (*b)[k]));
      const std::vector<size_t> which = differentiated(s);
      if (!op->vjp || which.empty()) continue;
      const auto da = differentiate(*lazy, *op, s.in, s.attrs, which),
                 db = differentiate(*eager, *op, s.in, s.attrs, which);
      REQUIRE(da);
      REQUIRE(db);
      for (size_t k = 0; k < which.size(); ++k) {
        CHECK(same_bits(da->first[k], db->first[k]));
        CHECK(same_bits(da->second[k], db->second[k]));
      }
    }
  }
}

}  // namespace
}  // namespace tenon::test
