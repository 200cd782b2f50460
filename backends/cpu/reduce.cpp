// Sums, means, maxima, minima and logsumexp over any axes of a tensor whose last kept or last reduced axis is
// contiguous. f32 and bf16, accumulated in f32. How a sum is split into parts depends on the shape alone, so
// that the result is the same for any number of threads.
#include "backends/cpu/row_fold.h"
#include "backends/cpu/rows.h"
#include "backends/cpu/strided.h"

namespace tenon::cpu {
namespace {

using Fold = RowFold;

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
    scale_ = fold == Fold::mean ? mean_scale(n) : 1.0f;
    chunks_ = p.row_reduced ? 1 : (p.row + kColumns - 1) / kColumns;
    one_row_ = p.row_reduced && p.parts() == 1;
    total_ = one_row_ ? p.row : p.parts();
    // Where there are few results, the reduced range is cut into parts that are folded apart and then joined.
    const int64_t elements = p.parts() * (p.row_reduced ? p.row : std::min(p.row, kColumns));
    const int64_t most = std::min(total_, kMaxUnits / (p_.outer() * chunks_));
    splits_ = fold == Fold::logsumexp ? 1 : std::max<int64_t>(1, std::min(elements / kChunk, most));
    grain_ = std::max<int64_t>(1, kMovedGrain * splits_ / std::max<int64_t>(1, elements));
    const int64_t partial = splits_ > 1 ? p_.outer() * splits_ * width() : 0;
    buffers_ = ThreadBuffers(context, static_cast<size_t>(partial) * sizeof(float), size_t{2} * kChunk);
  }

  Status run(std::span<void* const> in, std::span<void* const> out, void* scratch) override {
    float* const partial = static_cast<float*>(scratch);
    parallel_for(
        buffers_.threads(context_), p_.outer() * splits_ * chunks_, grain_, [&](int64_t begin, int64_t end) {
          float* const buffer = buffers_.mine(scratch);
          for (int64_t unit = begin; unit < end; ++unit) {
            const int64_t chunk = unit % chunks_, s = unit / chunks_ % splits_, o = unit / chunks_ / splits_;
            const int64_t first = total_ * s / splits_, last = total_ * (s + 1) / splits_;
            const int64_t base = offset_of(o, p_.kept, p_.kept_strides);
            float* const part = partial + (o * splits_ + s) * width();
            if (p_.row_reduced) {
              const float v = fold_rows(in[0], base, first, last, buffer);
              if (splits_ > 1)
                *part = v;
              else
                write_element(p_.dtype, out[0], o, v * scale_);
            } else {
              const int64_t c = chunk * kColumns, n = std::min(kColumns, p_.row - c);
              float* acc = splits_ > 1 ? part + c : buffer + kChunk;
              fold_columns(in[0], base + c, first, last, n, acc, buffer);
              if (splits_ == 1) store(acc, n, o * p_.row + c, out[0]);
            }
          }
        });
    if (splits_ > 1)
      for (int64_t o = 0; o < p_.outer(); ++o) finish(partial + o * splits_ * width(), o, out[0]);
    return Status::ok();
  }
  size_t scratch_bytes() const override { return buffers_.scratch_bytes(); }
  std::string_view name() const override {
    constexpr std::string_view names[] = {"cpu:sum", "cpu:mean", "cpu:max", "cpu:min", "cpu:logsumexp"};
    return names[static_cast<int>(fold_)];
  }

 private:
  static constexpr int64_t kChunk = 16384, kColumns = 2048, kBlockRows = 128, kMaxUnits = 64;

  // Results that belong to one index of the kept dimensions.
  int64_t width() const { return p_.row_reduced ? 1 : p_.row; }
  void fold_to(const float* x, size_t n, float* acc) const {
    const RowOps& ops = row_ops();
    if (fold_ == Fold::max)
      ops.max_to(x, n, acc);
    else if (fold_ == Fold::min)
      ops.min_to(x, n, acc);
    else
      ops.add_to(x, n, acc);
  }
  const float* load(const void* in, int64_t at, int64_t n, float* buffer) const {
    if (p_.dtype == DType::f32) return static_cast<const float*>(in) + at;
    row_ops().expand(static_cast<const bf16*>(in) + at, static_cast<size_t>(n), buffer);
    return buffer;
  }

  // Rows [first, last) of the reduced range, or elements of the only one; in short runs, whose
  // sums keep the rounding error small.
  float fold_rows(const void* in, int64_t base, int64_t first, int64_t last, float* buffer) const {
    if (fold_ == Fold::logsumexp) return logsumexp(in, base, buffer);
    float acc = idle(fold_);
    double sum = 0;  // over rows, which may be many and short
    for (int64_t r = one_row_ ? 0 : first; r < (one_row_ ? 1 : last); ++r) {
      const int64_t at = base + offset_of(r, p_.reduced, p_.reduced_strides);
      const int64_t from = one_row_ ? first : 0, to = one_row_ ? last : p_.row;
      for (int64_t c = from; c < to; c += kFoldRun) {
        const int64_t n = std::min(kFoldRun, to - c);
        const float run = fold_run(fold_, load(in, at + c, n, buffer), static_cast<size_t>(n));
        if (fold_ == Fold::sum || fold_ == Fold::mean)
          sum += static_cast<double>(run);
        else
          acc = join(fold_, acc, run);
      }
    }
    return fold_ == Fold::sum || fold_ == Fold::mean ? static_cast<float>(sum) : acc;
  }

  float logsumexp(const void* in, int64_t base, float* buffer) const {
    return logsumexp_runs([&](auto&& f) {
      for (int64_t r = 0; r < p_.parts(); ++r)
        for (int64_t c = 0; c < p_.row; c += kFoldRun) {
          const int64_t n = std::min(kFoldRun, p_.row - c);
          f(load(in, base + offset_of(r, p_.reduced, p_.reduced_strides) + c, n, buffer),
            static_cast<size_t>(n));
        }
    });
  }

  // acc[c] folds rows [first, last) of the reduced range; n columns from `base` on. Sums of blocks of rows
  // keep the rounding error of a long column small.
  void fold_columns(const void* in, int64_t base, int64_t first, int64_t last, int64_t n, float* acc,
                    float* buffer) const {
    const auto count = static_cast<size_t>(n);
    float* const block = buffer + kColumns;
    std::fill_n(acc, n, idle(fold_));
    for (int64_t b = first; b < last; b += kBlockRows) {
      std::fill_n(block, n, idle(fold_));
      for (int64_t r = b; r < std::min(last, b + kBlockRows); ++r)
        fold_to(load(in, base + offset_of(r, p_.reduced, p_.reduced_strides), n, buffer), count, block);
      fold_to(block, count, acc);
    }
  }

  // n results from element `at` of the output on.
  void store(float* v, int64_t n, int64_t at, void* out) const {
    const auto count = static_cast<size_t>(n);
    if (fold_ == Fold::mean) row_ops().scale(v, count, scale_, v);
    if (p_.dtype == DType::bf16)
      row_ops().shrink(v, count, static_cast<bf16*>(out) + at);
    else
      std::memcpy(static_cast<float*>(out) + at, v, count * sizeof(float));
  }

  // Joins the parts of one index of the kept dimensions, in order.
  void finish(float* parts, int64_t o, void* out) const {
    if (p_.row_reduced) {
      float v = parts[0];
      for (int64_t s = 1; s < splits_; ++s) v = join(fold_, v, parts[s]);
      write_element(p_.dtype, out, o, v * scale_);
      return;
    }
    for (int64_t s = 1; s < splits_; ++s) fold_to(parts + s * p_.row, static_cast<size_t>(p_.row), parts);
    store(parts, p_.row, o * p_.row, out);
  }

  Context& context_;
  Problem p_;
  Fold fold_;
  float scale_ = 1;
  bool one_row_ = false;                         // all of the reduced range is one run of memory
  int64_t total_ = 0, splits_ = 1, chunks_ = 1;  // the reduced range, its parts; chunks of kept columns
  int64_t grain_ = 1;
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
