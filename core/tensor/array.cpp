#include "core/tensor/array.h"

namespace tenon {

Result<Array> Array::allocate(Backend& backend, DType dtype, const Shape& shape) {
  const size_t bytes = static_cast<size_t>(shape.numel()) * size_of(dtype);
  TN_ASSIGN(void* p, backend.allocate(bytes));
  return Array(std::make_shared<Buffer>(backend, p, bytes), 0, dtype, shape);
}

Result<Array> Array::from_host(Backend& backend, const HostArray& host) {
  TN_ASSIGN(Array a, allocate(backend, host.dtype(), host.shape()));
  TN_RETURN_IF_ERROR(backend.upload(a.data(), host.data(), host.size_bytes()));
  return a;
}

Result<HostArray> Array::to_host() const {
  if (!valid()) return bad_state("to_host: the array was never given a value");
  HostArray h(dtype_, shape_);
  TN_RETURN_IF_ERROR(buffer_->backend().download(h.data(), data(), h.size_bytes()));
  return h;
}

Status Array::assign(const HostArray& host) {
  if (!valid()) return bad_state("assign: the array was never allocated");
  if (host.dtype() != dtype_ || host.shape() != shape_)
    return invalid("assign: the array is " + to_string(type()) + ", the new value " +
                   to_string(TensorType{host.dtype(), host.shape()}));
  return buffer_->backend().upload(data(), host.data(), host.size_bytes());
}

Array Array::slice(int64_t first, const Shape& shape) const {
  assert(first >= 0 && first + shape.numel() <= shape_.numel());
  return Array(buffer_, offset_ + static_cast<size_t>(first) * size_of(dtype_), dtype_, shape);
}

}  // namespace tenon
