// gather and scatter_add of whole slices along an axis: embeddings and their gradients. Threads own ranges of
// the result, and sums are taken in the order of the indices, so that the result does not depend on the
// number of threads.
#include <cstring>

#include "backends/cpu/kernels.h"
#include "backends/cpu/parallel.h"
#include "backends/cpu/row_ops.h"
#include "backends/cpu/strided.h"

namespace tenon::cpu {
namespace {

// before * n * after elements around the axis.
struct Around {
  int64_t before = 1, n = 1, after = 1;
  Around(const Attrs& attrs, const Shape& shape) {
    int64_t axis = attrs.i("axis");
    if (axis < 0) axis += shape.rank();
    for (int i = 0; i < shape.rank(); ++i) (i < axis ? before : i == axis ? n : after) *= shape[i];
  }
};

// Indices of i32 or i64, row-major.
class Indices {
 public:
  explicit Indices(const Layout& l) : count(l.numel()), wide_(l.dtype == DType::i64) {}
  int64_t at(const void* base, int64_t i) const {
    return wide_ ? static_cast<const int64_t*>(base)[i] : static_cast<const int32_t*>(base)[i];
  }
  Status check(std::string_view op, const void* base, int64_t n) const {
    for (int64_t i = 0; i < count; ++i)
      if (const int64_t v = at(base, i); v < 0 || v >= n)
        return invalid(std::string(op) + ": index " + std::to_string(v) + " at position " +
                       std::to_string(i) + " is outside [0, " + std::to_string(n) + ")");
    return Status::ok();
  }
  int64_t count;

 private:
  bool wide_;
};

class Gather final : public Kernel {
 public:
  Gather(Context& context, const Piece& piece)
      : context_(context),
        x_(piece.nodes[0].attrs, piece.inputs[0].shape),
        idx_(piece.inputs[1]),
        bytes_(static_cast<size_t>(x_.after) * size_of(piece.inputs[0].dtype)) {}
  Status run(std::span<void* const> in, std::span<void* const> out, void*) override {
    TN_RETURN_IF_ERROR(idx_.check("gather", in[1], x_.n));
    const int64_t grain =
        std::max<int64_t>(1, 4 * kMovedGrain / static_cast<int64_t>(std::max<size_t>(bytes_, 1)));
    const std::byte* from = static_cast<const std::byte*>(in[0]);
    std::byte* to = static_cast<std::byte*>(out[0]);
    parallel_for(context_.threads, x_.before * idx_.count, grain, [&](int64_t begin, int64_t end) {
      for (int64_t u = begin; u < end; ++u) {
        const int64_t row = u / idx_.count * x_.n + idx_.at(in[1], u % idx_.count);
        std::memcpy(to + static_cast<size_t>(u) * bytes_, from + static_cast<size_t>(row) * bytes_, bytes_);
      }
    });
    return Status::ok();
  }
  std::string_view name() const override { return "cpu:gather"; }

 private:
  Context& context_;
  Around x_;
  Indices idx_;
  size_t bytes_;  // of a slice
};

// base (any layout) + src's slices at idx, f32. Where the result is to lie in base itself, only these slices
// are touched.
class ScatterAdd final : public Kernel {
 public:
  ScatterAdd(Context& context, const Piece& piece)
      : context_(context),
        base_(piece.nodes[0].attrs, piece.inputs[0].shape),
        idx_(piece.inputs[1]),
        shape_(piece.inputs[0].shape) {
    std::vector<Strides> strides{piece.inputs[0].strides};
    collapse(shape_, strides);
    strides_ = strides[0];
  }
  Status run(std::span<void* const> in, std::span<void* const> out, void*) override {
    TN_RETURN_IF_ERROR(idx_.check("scatter_add", in[1], base_.n));
    const RowOps& ops = row_ops();
    const float* src = static_cast<const float*>(in[2]);
    float* to = static_cast<float*>(out[0]);
    const auto after = static_cast<size_t>(base_.after);
    const bool in_base = in[0] == out[0];
    const int64_t rows = base_.before * base_.n;
    const int64_t grain = in_base ? rows / context_.threads + 1
                                  : std::max<int64_t>(1, kMovedGrain / std::max<int64_t>(1, base_.after));
    parallel_for(context_.threads, rows, grain, [&](int64_t begin, int64_t end) {
      if (!in_base)
        gather(shape_, strides_, sizeof(float), in[0], begin * base_.after, (end - begin) * base_.after,
               to + begin * base_.after);
      for (int64_t b = begin / base_.n; b * base_.n < end; ++b)
        for (int64_t i = 0; i < idx_.count; ++i) {
          const int64_t row = b * base_.n + idx_.at(in[1], i);
          if (row >= begin && row < end)
            ops.add_to(src + (b * idx_.count + i) * base_.after, after, to + row * base_.after);
        }
    });
    return Status::ok();
  }
  std::string_view name() const override { return "cpu:scatter_add"; }

 private:
  Context& context_;
  Around base_;
  Indices idx_;
  Shape shape_;  // of base, collapsed
  Strides strides_;
};

uint32_t scatter_wants_contiguous(const Piece& piece) { return all_contiguous(piece) & ~1u; }

std::unique_ptr<Kernel> make_gather(Context& context, const Piece& piece) {
  if (!inputs_contiguous(piece)) return nullptr;
  return std::make_unique<Gather>(context, piece);
}
std::unique_ptr<Kernel> make_scatter_add(Context& context, const Piece& piece) {
  if (piece.inputs[0].dtype != DType::f32 || scatter_wants_contiguous(piece) || piece.inputs[0].numel() == 0)
    return nullptr;
  return std::make_unique<ScatterAdd>(context, piece);
}

}  // namespace

std::span<const KernelEntry> index_kernels() {
  static constexpr KernelEntry entries[] = {
      {"gather/1", make_gather, all_contiguous},
      {"scatter_add/1", make_scatter_add, scatter_wants_contiguous},
  };
  return entries;
}

}  // namespace tenon::cpu
