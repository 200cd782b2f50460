#include "core/ops/dropout.h"

#include "core/ops/elementwise.h"
#include "core/ops/random.h"

namespace tenon {

Tensor dropout(Tensor x, double rate, Tensor key) {
  if (!x.valid() || !key.valid()) return {};
  if (!(rate >= 0 && rate < 1)) {
    x.graph().fail(invalid("dropout: the rate is " + std::to_string(rate) + ", it must lie in [0, 1)"));
    return {};
  }
  if (rate == 0) return x;
  const Shape shape = x.shape();
  const Tensor keep = random_bernoulli(key, shape, 1 - rate);
  if (!keep.valid()) return {};
  return where(keep, x * (1 / (1 - rate)), x.graph().constant(0, x.dtype()));
}

}  // namespace tenon
