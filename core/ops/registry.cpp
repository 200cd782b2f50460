// The list of op families. A family lists its own ops; look-up is by id.
#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "core/ops/families.h"

namespace tenon {

std::span<const OpDef* const> all_ops() {
  // Never destroyed: plugins and models that outlive main may still ask for ops.
  static const auto& ops = *[] {
    auto* list = new std::vector<const OpDef*>;
    std::vector<const OpDef*>& v = *list;
    for (auto family : {elementwise_ops(), reduce_ops(), shape_ops(), index_ops(), matmul_ops(),
                        mixed_matmul_ops(), conv_ops(), norm_ops(), softmax_ops(), attention_ops(),
                        sort_ops(), moe_ops(), linalg_ops(), random_ops()})
      v.insert(v.end(), family.begin(), family.end());
    std::sort(v.begin(), v.end(), [](const OpDef* a, const OpDef* b) { return a->id < b->id; });
    return list;
  }();
  return ops;
}

const OpDef* find_op(std::string_view id) {
  const auto ops = all_ops();
  const auto it = std::lower_bound(ops.begin(), ops.end(), id, [](const OpDef* op, std::string_view s) { return op->id < s; });
  return it != ops.end() && (*it)->id == id ? *it : nullptr;
}

}  // namespace tenon
