#include "core/plugin/router.h"

#include "core/plugin/build.h"

namespace tenon {

Result<RoutedTokens> route_tokens(Instance& router, Graph& graph, const CallInfo& info, Tensor logits, int64_t top_k) {
  const NamedTensor in[] = {{"logits", logits}};
  RoutedTokens out;
  TN_ASSIGN(out.emitted, build_plugin(router, build_function(router), graph, info, in, nullptr));
  TN_ASSIGN(out.indices, emitted_tensor(router, out.emitted, "indices"));
  TN_ASSIGN(out.gates, emitted_tensor(router, out.emitted, "gates"));
  const Shape shape = out.indices.shape();
  const bool one_row_each = shape.rank() == 2 && shape[0] == logits.dim(0) && (top_k == 0 || shape[1] == top_k);
  if (out.indices.dtype() != DType::i64 || !one_row_each)
    return internal_error(router.who() + ": the indices are " + to_string(TensorType{out.indices.dtype(), shape}) + "; they must be i64[" +
                          std::to_string(logits.dim(0)) + ", " + (top_k > 0 ? std::to_string(top_k) : "K") + "]");
  if (out.gates.dtype() != logits.dtype() || out.gates.shape() != shape)
    return internal_error(router.who() + ": the gates are " + to_string(TensorType{out.gates.dtype(), out.gates.shape()}) +
                          "; they must be one number of the logits' type for each index");
  return out;
}

}  // namespace tenon
