// Views are addresses, not copies: what reads one has the bits of what reads its copy, so that neither the
// planner's choices nor eager mode, where every view is a copy, show in a result. (oneDNN's products may sum
// in another order.)
#include <catch2/catch_test_macros.hpp>
#include <random>

#include "core/ops/ops.h"
#include "tests/plan/passes.h"
#include "tests/support/bits.h"

namespace tenon {
namespace {

// Folds and scans, and products of f64: an order shows in their sums.
std::vector<Tensor> readings(Tensor v) {
  const int last = v.rank() - 1;
  std::vector<Tensor> out;
  for (const Axes& axes : {Axes{}, Axes{0}, Axes{1}, Axes{last}, Axes{0, 1}, Axes{0, last}, Axes{1, last}})
    for (const auto fold : {sum, mean, logsumexp, prod}) out.push_back(fold(v, axes, false));
  out.push_back(var(v, {last}));
  for (const int axis : {0, 1, last}) {
    out.push_back(softmax(v, axis));
    out.push_back(cumsum(v, axis));
  }
  if (v.dtype() != DType::f64) return out;
  const Tensor turned = swap_axes(v, last - 1, last), column = narrow(v, last, 0, 1),
               row = narrow(v, last - 1, 0, 1);
  for (const auto& [a, b] :
       {std::pair{v, turned}, std::pair{turned, v}, std::pair{turned, column}, std::pair{row, turned}})
    out.push_back(matmul(a, b));
  return out;
}

TEST_CASE("what reads a view has the bits of what reads its copy") {
  const uint32_t seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 rng(seed);
  const auto size = [&](int64_t most) {
    return static_cast<int64_t>(1 + rng() % static_cast<uint64_t>(most));
  };
  for (int trial = 0; trial < 6; ++trial) {
    const HostArray x =
        test::random_array(rng, {size(4), size(trial % 2 ? 9 : 70), size(trial % 3 ? 40 : 200)});
    const DType dtype = trial % 3 == 0 ? DType::f32 : trial % 3 == 1 ? DType::f64 : DType::bf16;
    CAPTURE(x.shape(), dtype);
    const auto build = [&](Graph&, std::span<const Tensor> in) {
      const Tensor t = cast(in[0] * 0.5, dtype);
      const int64_t b = t.dim(0), r = t.dim(1), c = t.dim(2);
      const Tensor views[] = {transpose(t, {0, 2, 1}),
                              transpose(t, {1, 0, 2}),
                              transpose(t),
                              flip(t, {2}),
                              flip(t, {0, 1}),
                              narrow(t, 2, c / 3, c - c / 3),
                              narrow(t, 1, r / 2, r - r / 2),
                              slice(t, {0, 0, 0}, {b, r, c}, {1, 2, 3}),
                              broadcast_to(unsqueeze(t, 0), {3, b, r, c}),
                              broadcast_to(narrow(t, 1, 0, 1), {b, 5, c}),
                              broadcast_to(narrow(t, 2, 0, 1), {b, r, 7})};
      std::vector<Tensor> out;
      for (const Tensor& v : views) {
        const std::vector<Tensor> of_view = readings(v), of_copy = readings(contiguous(v));
        for (size_t i = 0; i < of_view.size(); ++i) out.insert(out.end(), {of_view[i], of_copy[i]});
      }
      return out;
    };
    const std::vector<HostArray> got = test::run(test::options(), {&x, 1}, build).values;
    for (size_t i = 0; i < got.size(); i += 2) {
      const size_t readings_each = got.size() / 2 / 11;
      CAPTURE(i / 2 / readings_each, i / 2 % readings_each);  // view and reading
      CHECK(test::same_bits(got[i], got[i + 1]));
    }
  }
}

}  // namespace
}  // namespace tenon
