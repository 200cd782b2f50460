// Sums, means, maxima, minima and logsumexp over any axes of a tensor whose last kept or last reduced axis is
// contiguous. f32 and bf16, accumulated in f32; a cast of bf16 to f32 before the fold is part of it. How a
// sum is split into parts depends on the shape alone, so that the result is the same for any number of
// threads.
#include "backends/cpu/channel_ops.h"
#include "backends/cpu/row_fold.h"
#include "backends/cpu/rows.h"
#include "backends/cpu/strided.h"
#include "core/tensor/channels_last.h"

namespace tenon::cpu {
namespace {

using Fold = RowFold;

// The tensor as alternating kept and reduced dimensions.
struct Problem {
  DType dtype = DType::f32, result = DType::f32;
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
  const auto axes = piece.nodes.back().attrs.ints("axes");
  std::vector<bool> reduced(static_cast<size_t>(rank), axes.empty());
  for (const int64_t a : axes) reduced[static_cast<size_t>(a < 0 ? a + rank : a)] = true;
  return reduced;
}

struct Dim {
  int64_t size, stride;
  bool reduced;
};

// Neighbouring dimensions of one kind are merged where the layout allows.
std::vector<Dim> merged(const Layout& in, const std::vector<bool>& axes) {
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
  return dims;
}

// Nothing where the elements don't lie so that they can be folded in the order of a row-major tensor.
std::optional<Problem> analyse(const Piece& piece, const Layout& in) {
  if (!is_row_type(in.dtype) || in.numel() == 0) return std::nullopt;
  const std::vector<bool> axes = reduced_axes(piece);
  std::vector<Dim> dims = merged(in, axes);
  const std::vector<Dim> row_major = merged(Layout(TensorType{in.dtype, in.shape}), axes);
  if (!std::equal(dims.begin(), dims.end(), row_major.begin(), row_major.end(),
                  [](const Dim& a, const Dim& b) { return a.size == b.size; }))
    return std::nullopt;
  Problem p;
  p.dtype = in.dtype;
  p.result = piece.output_type(0).dtype;
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
                write_element(p_.result, out[0], o, v * scale_);
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
  // How the order of a sum comes about.
  int64_t splits() const { return splits_; }
  bool cuts_row() const { return one_row_; }  // splits are of the only row, else of all rows
  float scale() const { return scale_; }
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
    if (p_.result == DType::bf16)
      row_ops().shrink(v, count, static_cast<bf16*>(out) + at);
    else
      std::memcpy(static_cast<float*>(out) + at, v, count * sizeof(float));
  }

  // Joins the parts of one index of the kept dimensions, in order.
  void finish(float* parts, int64_t o, void* out) const {
    if (p_.row_reduced) {
      float v = parts[0];
      for (int64_t s = 1; s < splits_; ++s) v = join(fold_, v, parts[s]);
      write_element(p_.result, out, o, v * scale_);
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

// Sums and means over the places of images that lie channels-last, perhaps over the batch as well, with the
// bits that Reduce gives for the same images row-major.
class SumOfPlaces final : public Kernel {
 public:
  SumOfPlaces(Context& context, const Reduce& rows, const Shape& x, bool over_batch)
      : context_(context),
        rows_(rows),
        batch_(x[0]),
        channels_(x[1]),
        places_(x.numel() / (x[0] * x[1])),
        over_batch_(over_batch) {
    // The runs that a row is summed in.
    const int64_t parts = rows.cuts_row() ? rows.splits() : 1;
    for (int64_t s = 0; s < parts; ++s)
      for (int64_t at = places_ * s / parts, end = places_ * (s + 1) / parts; at < end; at += kFoldRun)
        runs_.push_back({at, std::min(kFoldRun, end - at), s});
  }

  Status run(std::span<void* const> in, std::span<void* const> out, void* scratch) override {
    const auto* const x = static_cast<const float*>(in[0]);
    auto* const sums = static_cast<float*>(scratch);  // [B, run, C]
    const auto runs = static_cast<int64_t>(runs_.size());
    constexpr auto kBlock = static_cast<int64_t>(kChannelBlock);
    const int64_t blocks = (channels_ + kBlock - 1) / kBlock;
    const int64_t grain =
        std::max<int64_t>(1, kMovedGrain / (std::min(places_, kFoldRun) * std::min(channels_, kBlock)));
    parallel_for(context_.threads, batch_ * runs * blocks, grain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t first = i % blocks * kBlock, row = i / blocks;  // row of [B, run]
        const Run& r = runs_[static_cast<size_t>(row % runs)];
        channel_ops().sum(x + (row / runs * places_ + r.first) * channels_ + first,
                          static_cast<size_t>(r.count), static_cast<size_t>(channels_),
                          static_cast<size_t>(std::min(kBlock, channels_ - first)),
                          sums + row * channels_ + first);
      }
    });
    auto* const y = static_cast<float*>(out[0]);
    for (int64_t b = 0; b < (over_batch_ ? 1 : batch_); ++b)
      for (int64_t c = 0; c < channels_; ++c)
        y[b * channels_ + c] = joined(sums + b * runs * channels_ + c) * rows_.scale();
    return Status::ok();
  }
  size_t scratch_bytes() const override {
    return static_cast<size_t>(batch_ * channels_) * runs_.size() * sizeof(float);
  }
  std::string_view name() const override { return rows_.name(); }

 private:
  struct Run {
    int64_t first, count, split;
  };
  // The runs of one result, `channels_` apart: those of each split in f64, then the splits.
  float joined(const float* sums) const {
    const int64_t images = over_batch_ ? batch_ : 1, splits = rows_.splits();
    float total = 0;
    for (int64_t s = 0; s < splits; ++s) {
      double sum = 0;
      const bool by_images = !rows_.cuts_row();
      const int64_t first = by_images ? images * s / splits : 0,
                    last = by_images ? images * (s + 1) / splits : images;
      for (int64_t b = first; b < last; ++b)
        for (size_t r = 0; r < runs_.size(); ++r)
          if (by_images || runs_[r].split == s)
            sum += static_cast<double>(
                sums[(b * static_cast<int64_t>(runs_.size()) + static_cast<int64_t>(r)) * channels_]);
      total = s == 0 ? static_cast<float>(sum) : total + static_cast<float>(sum);
    }
    return total;
  }

  Context& context_;
  Reduce rows_;
  int64_t batch_, channels_, places_;
  bool over_batch_;
  std::vector<Run> runs_;
};

// Whether all axes but the channels and perhaps the batch are summed.
bool sums_places(const Piece& piece) {
  const std::vector<bool> axes = reduced_axes(piece);
  if (piece.inputs[0].dtype != DType::f32 || piece.inputs[0].numel() == 0 || axes.size() < 3 || axes[1])
    return false;
  return std::all_of(axes.begin() + 2, axes.end(), [](bool reduced) { return reduced; });
}

ChannelsLast layout_of(Context&, const Piece& piece) {
  return sums_places(piece) ? ChannelsLast::reads : ChannelsLast::never;
}

template <Fold kFold>
bool sums_channels_last(const Piece& piece) {
  return (kFold == Fold::sum || kFold == Fold::mean) && is_channels_last(piece.inputs[0]) &&
         sums_places(piece);
}

template <Fold kFold>
uint32_t wants_contiguous(const Piece& piece) {
  const Layout& x = piece.inputs[0];
  if (!is_row_type(x.dtype) || x.numel() == 0 || sums_channels_last<kFold>(piece)) return 0;
  return analyse(piece, x) ? 0 : 1;
}

template <Fold kFold>
std::unique_ptr<Kernel> make(Context& context, const Piece& piece) {
  const Layout& x = piece.inputs[0];
  if (sums_channels_last<kFold>(piece)) {
    const Layout row_major(TensorType{x.dtype, x.shape});
    return std::make_unique<SumOfPlaces>(context, Reduce(context, *analyse(piece, row_major), kFold), x.shape,
                                         reduced_axes(piece)[0]);
  }
  const auto p = analyse(piece, x);
  if (!p || (kFold == Fold::logsumexp && !p->row_reduced)) return nullptr;
  return std::make_unique<Reduce>(context, *p, kFold);
}

// The fold of a piece that is a cast of bf16 to f32 and a fold of it; null for others.
const KernelEntry* widened_fold(const Piece& piece) {
  const bool fits = piece.nodes.size() == 2 && piece.nodes[0].op == "cast/1" && piece.inputs.size() == 1 &&
                    piece.inputs[0].dtype == DType::bf16 && piece.nodes[0].outputs[0].dtype == DType::f32 &&
                    piece.nodes[1].inputs == std::vector<int>{~0} && piece.outputs.size() == 1 &&
                    piece.outputs[0].node == 1;
  if (!fits) return nullptr;
  const std::span<const KernelEntry> folds = reduce_kernels();
  const auto at = std::find_if(folds.begin(), folds.end(),
                               [&](const KernelEntry& e) { return e.op == piece.nodes[1].op; });
  return at == folds.end() ? nullptr : &*at;
}

}  // namespace

uint32_t widened_fold_wants_contiguous(const Piece& piece) {
  const KernelEntry* const fold = widened_fold(piece);
  return fold ? fold->wants_contiguous(piece) : 0;
}

std::unique_ptr<Kernel> make_widened_fold(Context& context, const Piece& piece) {
  const KernelEntry* const fold = widened_fold(piece);
  return fold ? fold->make(context, piece) : nullptr;
}

std::span<const KernelEntry> reduce_kernels() {
  static constexpr KernelEntry entries[] = {
      {"sum/1", make<Fold::sum>, wants_contiguous<Fold::sum>, layout_of},
      {"mean/1", make<Fold::mean>, wants_contiguous<Fold::mean>, layout_of},
      {"max/1", make<Fold::max>, wants_contiguous<Fold::max>},
      {"min/1", make<Fold::min>, wants_contiguous<Fold::min>},
      {"logsumexp/1", make<Fold::logsumexp>, wants_contiguous<Fold::logsumexp>},
  };
  return entries;
}

}  // namespace tenon::cpu
