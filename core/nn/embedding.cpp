// Token and position embeddings.
#include <string>

#include "core/nn/layer_util.h"
#include "core/nn/layers.h"
#include "core/ops/ops.h"

namespace tenon::nn {

Layer embedding(int64_t vocab, int64_t dim, Initializer init) {
  return {"embedding", [=](Builder& b, std::span<const TensorType> in) -> ModulePtr {
            if (!expect_inputs(b, "embedding", in, 1)) return nullptr;
            if (in[0].dtype != DType::i32 && in[0].dtype != DType::i64)
              return b.fail("embedding", "wants i32 or i64 indices, got " + to_string(in[0]));
            if (vocab < 1 || dim < 1)
              return b.fail("embedding", "vocab = " + std::to_string(vocab) +
                                             " and dim = " + std::to_string(dim) + " must be positive");
            auto m = std::make_shared<Module>(b.path(), "embedding");
            const ParameterPtr w = m->own(
                b.parameter("weight", {vocab, dim}, init ? init : init::normal(0, 1), Kind::embedding));
            m->set_forward([w](Context& c, std::span<const Tensor> x) {
              return tenon::embedding(c.parameter(*w), x[0]);
            });
            return m;
          }};
}

Layer position_embedding(int64_t length, Initializer init) {
  return {"position_embedding", [=](Builder& b, std::span<const TensorType> in) -> ModulePtr {
            if (!expect_floating(b, "position_embedding", in, 3, "[B, T, C]")) return nullptr;
            const Shape& s = in[0].shape;
            if (s.rank() != 3 || s[1] > length)
              return b.fail("position_embedding", "wants [B, T, C] with T up to length = " +
                                                      std::to_string(length) + ", got " + to_string(in[0]));
            auto m = std::make_shared<Module>(b.path(), "position_embedding");
            const ParameterPtr w = m->own(
                b.parameter("weight", {length, s[2]}, init ? init : init::normal(0, 0.02), Kind::embedding));
            m->set_forward([w](Context& c, std::span<const Tensor> x) -> Tensor {
              return x[0].valid() ? x[0] + narrow(c.parameter(*w), 0, 0, x[0].dim(1)) : Tensor();
            });
            return m;
          }};
}

}  // namespace tenon::nn
