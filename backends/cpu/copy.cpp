// contiguous/1 and reshape/1: row-major copies of strided tensors. A transposition is copied in small square
// blocks, so that neither side wastes the cache lines it touches.
#include <algorithm>
#include <cstring>

#include "backends/cpu/kernels.h"
#include "backends/cpu/parallel.h"
#include "backends/cpu/strided.h"

namespace tenon::cpu {
namespace {

constexpr int64_t kBlock = 32;

// to[i * to_stride + j] = from[i + j * from_stride] for i < rows, j < columns
template <class T>
void transpose_block(const T* from, int64_t from_stride, T* to, int64_t to_stride, int64_t rows,
                     int64_t columns) {
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < columns; ++j) to[i * to_stride + j] = from[i + j * from_stride];
}

class CopyKernel final : public Kernel {
 public:
  CopyKernel(Context& context, const Layout& in)
      : context_(context), shape_(in.shape), bytes_(size_of(in.dtype)) {
    std::vector<Strides> strides{in.strides};
    collapse(shape_, strides);
    strides_ = strides[0];
    // The dimension that the input walks one by one, when it is not the last one.
    for (int d = 0; d + 1 < shape_.rank(); ++d)
      if (strides_[d] == 1 && strides_.back() > 1) unit_ = d;
  }

  Status run(std::span<void* const> in, std::span<void* const> out, void*) override {
    if (shape_.numel() == 0) return Status::ok();
    if (unit_ >= 0) {
      switch (bytes_) {
        case 1:
          transpose<uint8_t>(in[0], out[0]);
          break;
        case 2:
          transpose<uint16_t>(in[0], out[0]);
          break;
        case 4:
          transpose<uint32_t>(in[0], out[0]);
          break;
        default:
          transpose<uint64_t>(in[0], out[0]);
          break;
      }
    } else {
      parallel_for(context_.threads, shape_.numel(), kMovedGrain, [&](int64_t begin, int64_t end) {
        gather(shape_, strides_, bytes_, in[0], begin, end - begin,
               static_cast<std::byte*>(out[0]) + begin * static_cast<int64_t>(bytes_));
      });
    }
    return Status::ok();
  }
  std::string_view name() const override { return unit_ >= 0 ? "cpu:transpose" : "cpu:copy"; }

 private:
  // Planes spanned by the input's unit dimension and the last one; the other dimensions count them.
  template <class T>
  void transpose(const void* in, void* out) {
    const int last = shape_.rank() - 1;
    const Strides to = shape_.strides();
    const int64_t rows = shape_[unit_], columns = shape_[last];
    const int64_t row_blocks = (rows + kBlock - 1) / kBlock;
    const int64_t planes = shape_.numel() / (rows * columns);
    const int64_t grain = std::max<int64_t>(1, kMovedGrain / (kBlock * columns));
    parallel_for(context_.threads, planes * row_blocks, grain, [&](int64_t begin, int64_t end) {
      for (int64_t unit = begin; unit < end; ++unit) {
        const int64_t i = unit % row_blocks * kBlock, n = std::min(kBlock, rows - i);
        int64_t from_at = i, to_at = i * to[unit_], rest = unit / row_blocks;
        for (int d = last - 1; d >= 0; --d) {
          if (d == unit_) continue;
          from_at += rest % shape_[d] * strides_[d];
          to_at += rest % shape_[d] * to[d];
          rest /= shape_[d];
        }
        for (int64_t j = 0; j < columns; j += kBlock)
          transpose_block(static_cast<const T*>(in) + from_at + j * strides_[last], strides_[last],
                          static_cast<T*>(out) + to_at + j, to[unit_], n, std::min(kBlock, columns - j));
      }
    });
  }

  Context& context_;
  Shape shape_;
  Strides strides_;
  size_t bytes_;
  int unit_ = -1;
};

std::unique_ptr<Kernel> make_copy(Context& context, const Piece& piece) {
  return std::make_unique<CopyKernel>(context, piece.inputs[0]);
}

}  // namespace

std::span<const KernelEntry> copy_kernels() {
  // Where no view of the input's memory does, a reshape is a copy in the order of the elements.
  static constexpr KernelEntry entries[] = {{"contiguous/1", make_copy, nullptr},
                                            {"reshape/1", make_copy, nullptr}};
  return entries;
}

}  // namespace tenon::cpu
