// Moving whole tensors: concat, slice_grad and pad.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "backends/cpu/kernels.h"
#include "backends/cpu/parallel.h"
#include "backends/cpu/strided.h"

namespace tenon::cpu {
namespace {

// Inputs of any layout behind one another along an axis. Threads own ranges of the output.
class Concat final : public Kernel {
 public:
  Concat(Context& context, const Piece& piece) : context_(context) {
    const Shape& out = piece.output_type(0).shape;
    total_ = out.numel();
    bytes_ = size_of(piece.output_type(0).dtype);
    int64_t axis = piece.nodes[0].attrs.i("axis"), after = 1;
    if (axis < 0) axis += out.rank();
    for (int d = static_cast<int>(axis) + 1; d < out.rank(); ++d) after *= out[d];
    for (const Layout& l : piece.inputs) {
      Part& p = parts_.emplace_back();
      p.first = pitch_;
      p.length = l.shape[static_cast<int>(axis)] * after;
      pitch_ += p.length;
      p.shape = l.shape;
      std::vector<Strides> strides{l.strides};
      collapse(p.shape, strides);
      p.strides = strides[0];
    }
  }

  Status run(std::span<void* const> in, std::span<void* const> out, void*) override {
    parallel_for(context_.threads, total_, kMovedGrain, [&](int64_t begin, int64_t end) {
      while (begin < end) {
        const int64_t row = begin / pitch_, column = begin % pitch_;
        // The last part that begins at or before the column; empty parts are passed over.
        const auto next = std::upper_bound(parts_.begin(), parts_.end(), column,
                                           [](int64_t c, const Part& p) { return c < p.first; });
        const Part& p = *(next - 1);
        const int64_t n = std::min(end - begin, p.first + p.length - column);
        gather(p.shape, p.strides, bytes_, in[static_cast<size_t>(next - 1 - parts_.begin())],
               row * p.length + column - p.first, n,
               static_cast<std::byte*>(out[0]) + begin * static_cast<int64_t>(bytes_));
        begin += n;
      }
    });
    return Status::ok();
  }
  std::string_view name() const override { return "cpu:concat"; }

 private:
  struct Part {
    int64_t first = 0, length = 0;  // columns of the output, seen as rows of `pitch_`
    Shape shape;
    Strides strides;
  };
  Context& context_;
  std::vector<Part> parts_;
  int64_t total_ = 0, pitch_ = 0;
  size_t bytes_ = 0;
};

// The output filled with one value, then the input's elements put at evenly spaced positions.
class Place final : public Kernel {
 public:
  Place(Context& context, const Piece& piece, const Dims& start, const Dims& step, double value,
        std::string_view name)
      : context_(context), name_(name), value_(value), dtype_(piece.inputs[0].dtype) {
    const Layout& in = piece.inputs[0];
    const Shape& out = piece.output_type(0).shape;
    total_ = out.numel();
    const Strides to = out.strides();
    shape_ = in.shape;
    Strides spread = to;
    for (int d = 0; d < out.rank(); ++d) {
      offset_ += start[d] * to[d];
      spread[d] = to[d] * step[d];
    }
    std::vector<Strides> strides{in.strides, spread};
    empty_ = in.numel() == 0;
    collapse(shape_, strides);
    from_ = strides[0];
    to_ = strides[1];
  }

  Status run(std::span<void* const> in, std::span<void* const> out, void*) override {
    dispatch(dtype_, [&](auto t) {
      using T = decltype(t);
      T fill{};
      if constexpr (std::is_same_v<T, bf16>)
        fill = bf16(static_cast<float>(value_));
      else
        fill = static_cast<T>(value_);
      T* const to = static_cast<T*>(out[0]);
      parallel_for(context_.threads, total_, kMovedGrain,
                   [&](int64_t begin, int64_t end) { std::fill(to + begin, to + end, fill); });
      if (!empty_) put(static_cast<const T*>(in[0]), to + offset_);
    });
    return Status::ok();
  }
  std::string_view name() const override { return name_; }

 private:
  template <class T>
  void put(const T* from, T* to) const {
    const int last = shape_.rank() - 1;
    const int64_t n = shape_[last], rows = shape_.numel() / n, sf = from_[last], st = to_[last];
    parallel_for(context_.threads, rows, std::max<int64_t>(1, kMovedGrain / n),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t r = begin; r < end; ++r) {
                     int64_t rest = r, f = 0, t = 0;
                     for (int d = last - 1; d >= 0; --d) {
                       f += rest % shape_[d] * from_[d];
                       t += rest % shape_[d] * to_[d];
                       rest /= shape_[d];
                     }
                     if (sf == 1 && st == 1)
                       std::memcpy(to + t, from + f, static_cast<size_t>(n) * sizeof(T));
                     else
                       for (int64_t i = 0; i < n; ++i) to[t + i * st] = from[f + i * sf];
                   }
                 });
  }

  Context& context_;
  std::string_view name_;
  double value_;
  DType dtype_;
  int64_t total_ = 0, offset_ = 0;
  bool empty_ = false;
  Shape shape_;
  Strides from_, to_;
};

std::unique_ptr<Kernel> make_concat(Context& context, const Piece& piece) {
  if (Layout(piece.output_type(0)).numel() == 0) return nullptr;
  return std::make_unique<Concat>(context, piece);
}

std::unique_ptr<Kernel> make_slice_grad(Context& context, const Piece& piece) {
  const Attrs& attrs = piece.nodes[0].attrs;
  const Dims step = attrs.dims("step");
  return std::make_unique<Place>(context, piece, attrs.dims("start"),
                                 step.empty() ? Dims::filled(piece.inputs[0].shape.rank(), 1) : step, 0,
                                 "cpu:slice_grad");
}

std::unique_ptr<Kernel> make_pad(Context& context, const Piece& piece) {
  const double value = piece.nodes[0].attrs.f("value");
  if (!is_floating(piece.inputs[0].dtype) && value != 0) return nullptr;
  return std::make_unique<Place>(context, piece, piece.nodes[0].attrs.dims("low"),
                                 Dims::filled(piece.inputs[0].shape.rank(), 1), value, "cpu:pad");
}

}  // namespace

std::span<const KernelEntry> join_kernels() {
  static constexpr KernelEntry entries[] = {
      {"concat/1", make_concat, nullptr},
      {"slice_grad/1", make_slice_grad, nullptr},
      {"pad/1", make_pad, nullptr},
  };
  return entries;
}

}  // namespace tenon::cpu
