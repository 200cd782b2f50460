// Compiling and running hand-made pieces on the CPU backend.
#pragma once

#include <catch2/catch_test_macros.hpp>
#include <random>

#include "backends/cpu/cpu.h"
#include "core/tensor/attrs.h"
#include "core/tensor/host_array.h"
#include "tests/support/bits.h"

namespace tenon::test {

// A strided tensor in memory of its own.
struct Operand {
  Layout layout;
  std::vector<std::byte> memory;
  int64_t offset = 0;  // of element 0, in elements
  void* data() { return memory.data() + offset * static_cast<int64_t>(size_of(layout.dtype)); }
};

// Element `at` of memory of type t.
inline double get(const void* p, DType t, int64_t at) {
  return dispatch(t, [&](auto v) { return static_cast<double>(static_cast<const decltype(v)*>(p)[at]); });
}
inline void set(void* p, DType t, int64_t at, double x) {
  dispatch(t, [&](auto v) {
    using T = decltype(v);
    if constexpr (std::is_same_v<T, bf16>)
      static_cast<T*>(p)[at] = bf16(static_cast<float>(x));
    else
      static_cast<T*>(p)[at] = static_cast<T>(x);
  });
}

class Random {
 public:
  explicit Random(uint32_t seed) : engine_(seed) {}
  double real(double lo, double hi) { return std::uniform_real_distribution<double>(lo, hi)(engine_); }
  int64_t integer(int64_t lo, int64_t hi) { return std::uniform_int_distribution<int64_t>(lo, hi)(engine_); }

  // Values in [lo, hi); integers for integer types.
  double value(DType t, double lo, double hi) {
    if (t == DType::boolean) return static_cast<double>(integer(0, 1));
    if (is_integer(t)) return std::floor(real(lo, hi));
    return real(lo, hi);
  }

  enum Style { dense, permuted, broadcast, reversed, spaced };
  // A tensor of `shape` laid out in one of several ways.
  Operand tensor(DType t, const Shape& shape, double lo, double hi, Style style = dense) {
    Operand o;
    o.layout = Layout(TensorType{t, shape});
    const int r = shape.rank();
    if (style == permuted && r >= 2) {
      // Memory order has the last two dimensions swapped.
      std::swap(o.layout.shape[r - 1], o.layout.shape[r - 2]);
      o.layout.strides = o.layout.shape.strides();
      std::swap(o.layout.shape[r - 1], o.layout.shape[r - 2]);
      std::swap(o.layout.strides[r - 1], o.layout.strides[r - 2]);
    } else if (style == broadcast) {
      for (int d = 0; d < r; ++d)
        if (integer(0, 1)) o.layout.strides[d] = 0;
    } else if (style == reversed && r >= 1 && shape.numel() > 0) {
      const int d = static_cast<int>(integer(0, r - 1));
      o.offset = o.layout.strides[d] * (shape[d] - 1);
      o.layout.strides[d] = -o.layout.strides[d];
    } else if (style == spaced) {
      for (int d = 0; d < r; ++d) o.layout.strides[d] *= 2;
    }
    int64_t extent = o.offset + 1;
    for (int d = 0; d < r; ++d)
      if (o.layout.strides[d] > 0) extent += o.layout.strides[d] * std::max<int64_t>(shape[d] - 1, 0);
    o.memory.resize(static_cast<size_t>(extent) * size_of(t));
    for (int64_t i = 0; i < extent; ++i) set(o.memory.data(), t, i, value(t, lo, hi));
    return o;
  }
  Operand tensor_any_style(DType t, const Shape& shape, double lo, double hi) {
    return tensor(t, shape, lo, hi, static_cast<Style>(integer(0, 4)));
  }

 private:
  std::mt19937 engine_;
};

// A row-major copy of an operand's elements.
inline HostArray dense(Operand& o) {
  HostArray out(o.layout.dtype, o.layout.shape);
  const Shape& shape = o.layout.shape;
  for (int64_t i = 0; i < shape.numel(); ++i) {
    int64_t rest = i, at = 0;
    for (int d = shape.rank() - 1; d >= 0; --d) {
      at += rest % shape[d] * o.layout.strides[d];
      rest /= shape[d];
    }
    std::memcpy(out.data() + static_cast<size_t>(i) * size_of(o.layout.dtype),
                static_cast<std::byte*>(o.data()) + at * static_cast<int64_t>(size_of(o.layout.dtype)),
                size_of(o.layout.dtype));
  }
  return out;
}

inline PieceNode node(std::string_view op, std::vector<int> inputs, TensorType output, Attrs attrs = {}) {
  PieceNode n;
  n.op = op;
  n.inputs = std::move(inputs);
  n.outputs = {std::move(output)};
  n.attrs = attrs;
  return n;
}

struct Ran {
  std::string kernel;
  std::vector<HostArray> out;
};

inline Ran run(Backend& backend, const Piece& piece, std::span<Operand* const> operands) {
  auto kernel = backend.compile(piece);
  INFO((kernel ? std::string() : kernel.status().message()));
  REQUIRE(kernel);
  // NaN: what a kernel has not written there, it must not use.
  std::vector<std::byte> scratch((*kernel)->scratch_bytes() + 64, std::byte{0xff});
  void* const aligned =
      reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(scratch.data()) + 63) & ~uintptr_t{63});
  std::vector<void*> in, out;
  for (Operand* o : operands) in.push_back(o->data());
  Ran ran;
  ran.kernel = (*kernel)->name();
  for (size_t i = 0; i < piece.outputs.size(); ++i)
    ran.out.emplace_back(piece.output_type(i).dtype, piece.output_type(i).shape);
  for (HostArray& a : ran.out) out.push_back(a.data());
  const Status status = (*kernel)->run(in, out, aligned);
  INFO(status.message());
  REQUIRE(status.is_ok());
  return ran;
}

}  // namespace tenon::test
