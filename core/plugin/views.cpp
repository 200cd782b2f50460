#include "core/plugin/views.h"

#include <array>
#include <cstring>

#include "core/plugin/call.h"

namespace tenon {

Result<HostArray> host_array(const tn_view* v) {
  if (!v || !TN_COVERS(v, strides) || v->rank < 0 || v->rank > TN_MAX_RANK || v->device_type != TN_DEVICE_CPU)
    return invalid("the view must be of host memory, of rank 0 to 8");
  TN_ASSIGN(const DType dtype, dtype_from_abi(v->dtype));
  Shape shape;
  for (int i = 0; i < v->rank; ++i) {
    if (v->shape[i] < 0) return invalid("the view has a negative size");
    shape.push_back(v->shape[i]);
  }
  HostArray host(dtype, shape);
  if (host.numel() > 0 && !v->data) return invalid("the view has no data");
  const size_t size = size_of(dtype);
  const auto* from = static_cast<const std::byte*>(v->data);
  std::array<int64_t, TN_MAX_RANK> index{};
  for (int64_t i = 0; i < host.numel(); ++i) {
    int64_t offset = 0;
    for (int d = 0; d < v->rank; ++d) offset += index[static_cast<size_t>(d)] * v->strides[d];
    std::memcpy(host.data() + static_cast<size_t>(i) * size, from + offset * static_cast<int64_t>(size), size);
    for (int d = v->rank - 1; d >= 0 && ++index[static_cast<size_t>(d)] == shape[d]; --d) index[static_cast<size_t>(d)] = 0;
  }
  return host;
}

}  // namespace tenon
