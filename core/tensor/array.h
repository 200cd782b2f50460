// Tensors in device memory: parameters, batches, optimizer state, results.
#pragma once

#include <memory>

#include "backends/backend.h"
#include "core/tensor/host_array.h"

namespace tenon {

// A block of device memory, freed with its last reference.
class Buffer {
 public:
  Buffer(Backend& backend, void* data, size_t bytes) : backend_(&backend), data_(data), bytes_(bytes) {}
  ~Buffer() { backend_->release(data_, bytes_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  Backend& backend() const { return *backend_; }
  void* data() const { return data_; }
  size_t size_bytes() const { return bytes_; }

 private:
  Backend* backend_;
  void* data_;
  size_t bytes_;
};

// Contiguous, row-major elements inside a buffer. Several arrays may lie in one buffer (a parameter group does).
// Copies share the memory.
class Array {
 public:
  Array() = default;
  Array(std::shared_ptr<Buffer> buffer, size_t offset, DType dtype, const Shape& shape)
      : buffer_(std::move(buffer)), offset_(offset), dtype_(dtype), shape_(shape) {}

  static Result<Array> allocate(Backend& backend, DType dtype, const Shape& shape);
  static Result<Array> from_host(Backend& backend, const HostArray& host);
  Result<HostArray> to_host() const;
  // Overwrites the elements; type and shape must be equal.
  Status assign(const HostArray& host);
  // `count` elements from `first` on, under another shape, in the same memory.
  Array slice(int64_t first, const Shape& shape) const;

  bool valid() const { return buffer_ != nullptr; }
  DType dtype() const { return dtype_; }
  const Shape& shape() const { return shape_; }
  TensorType type() const { return {dtype_, shape_}; }
  size_t size_bytes() const { return static_cast<size_t>(shape_.numel()) * size_of(dtype_); }
  void* data() const { return static_cast<std::byte*>(buffer_->data()) + offset_; }
  const std::shared_ptr<Buffer>& buffer() const { return buffer_; }
  size_t offset() const { return offset_; }

 private:
  std::shared_ptr<Buffer> buffer_;
  size_t offset_ = 0;
  DType dtype_ = DType::f32;
  Shape shape_{0};
};

}  // namespace tenon
