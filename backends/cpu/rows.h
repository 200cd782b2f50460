// Tensors as rows of their last dimension, f32 or bf16, in the f32 that row loops work on.
#pragma once

#include <algorithm>
#include <cstring>

#include "backends/cpu/kernels.h"
#include "backends/cpu/parallel.h"
#include "backends/cpu/row_ops.h"

namespace tenon::cpu {

inline bool is_row_type(DType t) { return t == DType::f32 || t == DType::bf16; }

// Rows of a contiguous tensor. Memory of bf16 rows goes through a buffer of `length` floats per thread.
struct Rows {
  DType dtype = DType::f32;
  int64_t count = 0, length = 0;
  Rows() = default;
  Rows(DType t, const Shape& shape) : dtype(t), count(1), length(shape.rank() ? shape.back() : 1) {
    for (int i = 0; i + 1 < shape.rank(); ++i) count *= shape[i];
  }
  size_t n() const { return static_cast<size_t>(length); }

  const float* read(const void* base, int64_t row, float* buffer) const {
    if (dtype == DType::f32) return static_cast<const float*>(base) + row * length;
    row_ops().expand(static_cast<const bf16*>(base) + row * length, n(), buffer);
    return buffer;
  }
  // Where to put a result, for write() to move to memory.
  float* target(void* base, int64_t row, float* buffer) const {
    return dtype == DType::f32 ? static_cast<float*>(base) + row * length : buffer;
  }
  void write(void* base, int64_t row, const float* buffer) const {
    if (dtype == DType::bf16) row_ops().shrink(buffer, n(), static_cast<bf16*>(base) + row * length);
  }
  int64_t grain() const { return std::max<int64_t>(1, kMathGrain / std::max<int64_t>(length, 1)); }
};

// Element i of a tensor of f32 or bf16.
inline float read_element(DType t, const void* base, int64_t i) {
  return t == DType::f32 ? static_cast<const float*>(base)[i]
                         : static_cast<float>(static_cast<const bf16*>(base)[i]);
}
inline void write_element(DType t, void* base, int64_t i, float v) {
  if (t == DType::f32)
    static_cast<float*>(base)[i] = v;
  else
    static_cast<bf16*>(base)[i] = bf16(v);
}

// Buffers of a kernel's threads in scratch memory. The number of threads is that of the time of compilation,
// at most.
class ThreadBuffers {
 public:
  ThreadBuffers() = default;
  ThreadBuffers(const Context& context, size_t first, size_t floats_each)
      : threads_(context.threads), first_(align64(first)), each_(align64(floats_each * sizeof(float))) {}
  size_t scratch_bytes() const { return first_ + each_ * static_cast<size_t>(threads_); }
  int threads(const Context& context) const { return std::min(context.threads, threads_); }
  // The calling thread's, inside parallel_for.
  float* mine(void* scratch) const {
    return reinterpret_cast<float*>(static_cast<std::byte*>(scratch) + first_ +
                                    each_ * static_cast<size_t>(omp_get_thread_num()));
  }

 private:
  int threads_ = 1;
  size_t first_ = 0, each_ = 0;
};

}  // namespace tenon::cpu
