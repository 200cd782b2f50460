// Sums, means, maxima, minima and logsumexp over any axes of a tensor whose last kept or last reduced axis is
// contiguous. f32 and bf16, accumulated in f32. How a sum is split into parts depends on the shape alone, so
// that the result is the same for any number of threads.
#include <cmath>
#include <limits>

#include "backends/cpu/rows.h"
#include "backends/cpu/strided.h"

namespace tenon::cpu {
namespace {

enum class Fold : uint8_t { sum, mean, max, min, logsumexp };

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// The tensor as alternating kept and reduced dimensions.
struct Problem {
  DType dtype = DType::f32;
  Shape kept, reduced;  // the last of one of them is `row`, apart
  Strides kept_strides, reduced_strides;
  int64_t row = 1;
  bool row_reduced = false;

  int64_t outer() const { return kept.numel(); }
  int64_t parts() const { return reduced.numel(); }
};

int64_t offset_of(int64_t i, const Shape& shape, const Strides& strides) {
  int64_t at = 0;
  for (int d = shape.rank() - 1; d >= 0; --d) {
    at += i % shape[d] * strides[d];
    i /= shape[d];
  }
  return at;
}

std::vector<bool> reduced_axes(const Piece& piece) {
  const int rank = piece.inputs[0].shape.rank();
  const auto axes = piece.nodes[0].attrs.ints("axes");
  std::vector<bool> reduced(static_cast<size_t>(rank), axes.empty());
  for (const int64_t a : axes) reduced[static_cast<size_t>(a < 0 ? a + rank : a)] = true;
  return reduced;
}

// Neighbouring dimensions of one kind are merged where the layout allows.
std::optional<Problem> analyse(const Piece& piece) {
  const Layout& in = piece.inputs[0];
  if (!is_row_type(in.dtype) || in.numel() == 0) return std::nullopt;
  const std::vector<bool> axes = reduced_axes(piece);
  struct Dim {
    int64_t size, stride;
    bool reduced;
  };
  std::vector<Dim> dims;
  for (int d = 0; d < in.shape.rank(); ++d) {
    if (in.shape[d] == 1) continue;
    const Dim dim{in.shape[d], in.strides[d], axes[static_cast<size_t>(d)]};
    if (!dims.empty() && dims.back().reduced == dim.reduced && dims.back().stride == dim.stride * dim.size) {
      dims.back().size *= dim.size;
      dims.back().stride = dim.stride;
    } else {
      dims.push_back(dim);
    }
  }
  Problem p;
  p.dtype = in.dtype;
  if (!dims.empty() && dims.back().stride != 1) return std::nullopt;
  if (!dims.empty()) {
    p.row = dims.back().size;
    p.row_reduced = dims.back().reduced;
    dims.pop_back();
  } else {
    p.row_reduced = true;
  }
  for (const Dim& dim : dims) {
    (dim.reduced ? p.reduced : p.kept).push_back(dim.size);
    (dim.reduced ? p.reduced_strides : p.kept_strides).push_back(dim.stride);
  }
  return p;
}

class Reduce final : public Kernel {
 public:
  Reduce(Context& context, const Problem& p, Fold fold) : context_(context), p_(p), fold_(fold) {
    const double n = static_cast<double>(p.parts()) * static_cast<double>(p.row_reduced ? p.row : 1);
    scale_ = fold == Fold::mean ? static_cast<float>(1 / n) : 1.0f;
    // One output from many elements, or few rows of outputs from many: parts of the reduced range are folded
    // apart.
    const int64_t per_part =
        p.row_reduced ? kChunk : std::max<int64_t>(1, kChunk / p.row);  // elements, or rows
    total_ = p.row_reduced ? p.parts() * p.row : p.parts();
    splits_ = std::clamp<int64_t>(total_ / per_part, 1, kMaxSplits);
    if (fold == Fold::logsumexp) splits_ = 1;
    if (p.row_reduced && p.parts() > 1) {
      total_ = p.parts();
      splits_ = std::min(splits_, total_);
    }
    if (p_.outer() >= kMaxSplits) splits_ = 1;
    stride_ = align64((p.row_reduced ? 1 : static_cast<size_t>(p.row)) * sizeof(float)) / sizeof(float);
    const size_t partial = static_cast<size_t>(p_.outer() * splits_) * stride_ * sizeof(float);
    buffers_ = ThreadBuffers(context, partial, static_cast<size_t>(std::min<int64_t>(p.row, kChunk)));
  }

  Status run(std::span<void* const> in, std::span<void* const> out, void* scratch) override {
    float* const partial = static_cast<float*>(scratch);
    const int64_t work = p_.outer() * splits_;
    const int64_t elements = p_.parts() * p_.row;
    const int64_t grain = std::max<int64_t>(1, kChunk * splits_ / std::max<int64_t>(1, elements));
    parallel_for(buffers_.threads(context_), work, grain, [&](int64_t begin, int64_t end) {
      float* const buffer = buffers_.mine(scratch);
      for (int64_t unit = begin; unit < end; ++unit) {
        const int64_t o = unit / splits_, s = unit % splits_;
        const int64_t first = total_ * s / splits_, last = total_ * (s + 1) / splits_;
        const int64_t base = offset_of(o, p_.kept, p_.kept_strides);
        float* const acc = partial + static_cast<size_t>(unit) * stride_;
        if (p_.row_reduced)
          *acc = fold_rows(in[0], base, first, last, buffer);
        else
          fold_columns(in[0], base, first, last, acc, buffer);
      }
    });
    for (int64_t o = 0; o < p_.outer(); ++o)
      finish(partial + static_cast<size_t>(o * splits_) * stride_, o, out[0]);
    return Status::ok();
  }
  size_t scratch_bytes() const override { return buffers_.scratch_bytes(); }
  std::string_view name() const override {
    constexpr std::string_view names[] = {"cpu:sum", "cpu:mean", "cpu:max", "cpu:min", "cpu:logsumexp"};
    return names[static_cast<int>(fold_)];
  }

 private:
  static constexpr int64_t kChunk = 16384, kMaxSplits = 64;

  float idle() const { return fold_ == Fold::max ? -kInfinity : fold_ == Fold::min ? kInfinity : 0.0f; }
  float join(float a, float b) const {
    if (fold_ == Fold::max) return a != a || a > b ? a : b;
    if (fold_ == Fold::min) return a != a || a < b ? a : b;
    return a + b;
  }
  float fold_run(const float* x, size_t n) const {
    const RowOps& ops = row_ops();
    if (fold_ == Fold::max) return ops.max(x, n);
    if (fold_ == Fold::min) return ops.min(x, n);
    return ops.sum(x, n);
  }
  const float* load(const void* in, int64_t at, int64_t n, float* buffer) const {
    if (p_.dtype == DType::f32) return static_cast<const float*>(in) + at;
    row_ops().expand(static_cast<const bf16*>(in) + at, static_cast<size_t>(n), buffer);
    return buffer;
  }

  // Rows of the reduced range [first, last): whole rows, or elements of the only one.
  float fold_rows(const void* in, int64_t base, int64_t first, int64_t last, float* buffer) const {
    const bool one_row = p_.parts() == 1;
    float acc = idle();
    if (fold_ == Fold::logsumexp) return logsumexp(in, base, buffer);
    for (int64_t r = one_row ? 0 : first; r < (one_row ? 1 : last); ++r) {
      const int64_t at = base + offset_of(r, p_.reduced, p_.reduced_strides);
      const int64_t from = one_row ? first : 0, to = one_row ? last : p_.row;
      for (int64_t c = from; c < to; c += kChunk) {
        const int64_t n = std::min(kChunk, to - c);
        acc = join(acc, fold_run(load(in, at + c, n, buffer), static_cast<size_t>(n)));
      }
    }
    return acc;
  }

  float logsumexp(const void* in, int64_t base, float* buffer) const {
    const auto for_each_run = [&](auto&& f) {
      for (int64_t r = 0; r < p_.parts(); ++r)
        for (int64_t c = 0; c < p_.row; c += kChunk) {
          const int64_t n = std::min(kChunk, p_.row - c);
          f(load(in, base + offset_of(r, p_.reduced, p_.reduced_strides) + c, n, buffer),
            static_cast<size_t>(n));
        }
    };
    float max = -kInfinity, sum = 0;
    for_each_run([&](const float* x, size_t n) {
      const float m = row_ops().max(x, n);
      max = m != m || m > max ? m : max;
    });
    if (std::isinf(max) || max != max) return max;
    for_each_run([&](const float* x, size_t n) { sum += row_ops().exp_sum(x, n, max, nullptr); });
    return max + std::log(sum);
  }

  // acc[c] folds rows [first, last) of the reduced range.
  void fold_columns(const void* in, int64_t base, int64_t first, int64_t last, float* acc,
                    float* buffer) const {
    const RowOps& ops = row_ops();
    std::fill_n(acc, p_.row, idle());
    for (int64_t c = 0; c < p_.row; c += kChunk) {
      const int64_t n = std::min(kChunk, p_.row - c);
      for (int64_t r = first; r < last; ++r) {
        const float* x = load(in, base + offset_of(r, p_.reduced, p_.reduced_strides) + c, n, buffer);
        const auto count = static_cast<size_t>(n);
        if (fold_ == Fold::max)
          ops.max_to(x, count, acc + c);
        else if (fold_ == Fold::min)
          ops.min_to(x, count, acc + c);
        else
          ops.add_to(x, count, acc + c);
      }
    }
  }

  // Joins the parts of output o in order, and stores it.
  void finish(float* parts, int64_t o, void* out) const {
    const RowOps& ops = row_ops();
    if (p_.row_reduced) {
      float v = parts[0];
      for (int64_t s = 1; s < splits_; ++s) v = join(v, parts[static_cast<size_t>(s) * stride_]);
      write_element(p_.dtype, out, o, fold_ == Fold::mean ? v * scale_ : v);
      return;
    }
    const auto n = static_cast<size_t>(p_.row);
    for (int64_t s = 1; s < splits_; ++s) {
      const float* x = parts + static_cast<size_t>(s) * stride_;
      if (fold_ == Fold::max)
        ops.max_to(x, n, parts);
      else if (fold_ == Fold::min)
        ops.min_to(x, n, parts);
      else
        ops.add_to(x, n, parts);
    }
    if (fold_ == Fold::mean) ops.scale(parts, n, scale_, parts);
    if (p_.dtype == DType::bf16)
      ops.shrink(parts, n, static_cast<bf16*>(out) + o * p_.row);
    else
      std::memcpy(static_cast<float*>(out) + o * p_.row, parts, n * sizeof(float));
  }

  Context& context_;
  Problem p_;
  Fold fold_;
  float scale_ = 1;
  int64_t total_ = 0, splits_ = 1;  // the reduced range in rows (or elements of the only row), and its parts
  size_t stride_ = 0;               // of a part's result, in floats
  ThreadBuffers buffers_;
};

uint32_t wants_contiguous(const Piece& piece) {
  return is_row_type(piece.inputs[0].dtype) && piece.inputs[0].numel() > 0 && !analyse(piece) ? 1 : 0;
}

template <Fold kFold>
std::unique_ptr<Kernel> make(Context& context, const Piece& piece) {
  const auto p = analyse(piece);
  if (!p || (kFold == Fold::logsumexp && !p->row_reduced)) return nullptr;
  return std::make_unique<Reduce>(context, *p, kFold);
}

}  // namespace

std::span<const KernelEntry> reduce_kernels() {
  static constexpr KernelEntry entries[] = {
      {"sum/1", make<Fold::sum>, wants_contiguous},
      {"mean/1", make<Fold::mean>, wants_contiguous},
      {"max/1", make<Fold::max>, wants_contiguous},
      {"min/1", make<Fold::min>, wants_contiguous},
      {"logsumexp/1", make<Fold::logsumexp>, wants_contiguous},
  };
  return entries;
}

}  // namespace tenon::cpu
