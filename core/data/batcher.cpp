#include "core/data/batcher.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "core/base/random.h"

namespace tenon {
namespace {

class RowBatcher final : public Batcher {
 public:
  RowBatcher(std::shared_ptr<const Dataset> data, RowBatcherOptions options)
      : data_(std::move(data)), o_(std::move(options)) {
    if (o_.per_class == 0) return;
    std::map<int64_t, std::vector<int64_t>> of;
    const HostArray& y = data_->columns().at("y");
    for (int64_t i = 0; i < data_->size(); ++i) of[static_cast<int64_t>(y.at(i))].push_back(i);
    for (auto& [label, rows] : of) classes_.push_back(std::move(rows));
  }

  int64_t classes() const { return static_cast<int64_t>(classes_.size()); }

  int64_t steps_per_epoch() const override {
    const int64_t n = data_->size();
    if (draws_anew()) return std::max<int64_t>(1, n / o_.batch_size);
    return o_.drop_last ? n / o_.batch_size : (n - 1) / o_.batch_size + 1;
  }

  int64_t batch_rows(int64_t step) const override {
    if (draws_anew()) return o_.batch_size;
    const int64_t begin = step % steps_per_epoch() * o_.batch_size;
    return std::min(o_.batch_size, data_->size() - begin);
  }

  Result<Columns> make(int64_t step) const override {
    if (step < 0) return invalid("batch " + std::to_string(step) + " does not exist; steps count from 0");
    const int64_t begin = step % steps_per_epoch() * o_.batch_size;
    std::vector<int64_t> rows(static_cast<size_t>(batch_rows(step)));
    if (o_.per_class > 0) {
      rows = balanced(step);
    } else if (o_.replacement) {
      Philox random(split_key(split_key(o_.seed, "replacement"), static_cast<uint64_t>(step)));
      for (int64_t& r : rows) r = static_cast<int64_t>(random.below(static_cast<uint64_t>(data_->size())));
    } else if (o_.shuffle) {
      const auto order = order_of(epoch_of(step));
      std::copy_n(order->begin() + begin, rows.size(), rows.begin());
    } else {
      std::iota(rows.begin(), rows.end(), begin);
    }
    Columns batch;
    for (const auto& [name, values] : data_->columns()) batch.emplace(name, gather_rows(values, rows));
    if (!data_->has("id")) batch.emplace("id", HostArray::of(rows));
    const uint64_t key = split_key(split_key(o_.seed, "transform"), static_cast<uint64_t>(step));
    TN_RETURN_IF_ERROR(apply_all(o_.transforms, batch, key, o_.training));
    return batch;
  }

 private:
  bool draws_anew() const { return o_.per_class > 0 || o_.replacement; }

  using Order = std::shared_ptr<const std::vector<int64_t>>;

  // The order of an epoch; the last one is remembered, which does not show outside.
  Order order_of(int64_t epoch) const {
    const std::lock_guard lock(mutex_);
    if (epoch != order_epoch_) {
      Philox random(split_key(split_key(o_.seed, "shuffle"), static_cast<uint64_t>(epoch)));
      order_ = std::make_shared<const std::vector<int64_t>>(random.permutation(data_->size()));
      order_epoch_ = epoch;
    }
    return order_;
  }

  std::vector<int64_t> balanced(int64_t step) const {
    Philox random(split_key(split_key(o_.seed, "classes"), static_cast<uint64_t>(step)));
    const std::vector<int64_t> drawn = random.permutation(classes());
    std::vector<int64_t> rows;
    for (int64_t c = 0; c < o_.batch_size / o_.per_class; ++c) {
      const std::vector<int64_t>& of = classes_[static_cast<size_t>(drawn[static_cast<size_t>(c)])];
      const auto n = static_cast<int64_t>(of.size());
      const std::vector<int64_t> order = random.permutation(n);
      for (int64_t k = 0; k < o_.per_class; ++k) {
        const int64_t pick = n >= o_.per_class ? order[static_cast<size_t>(k)] : static_cast<int64_t>(random.below(static_cast<uint64_t>(n)));
        rows.push_back(of[static_cast<size_t>(pick)]);
      }
    }
    return rows;
  }

  std::shared_ptr<const Dataset> data_;
  RowBatcherOptions o_;
  std::vector<std::vector<int64_t>> classes_;  // rows of each, with per_class
  mutable std::mutex mutex_;
  mutable int64_t order_epoch_ = -1;
  mutable Order order_;
};

class WindowBatcher final : public Batcher {
 public:
  WindowBatcher(std::shared_ptr<const Dataset> data, const HostArray* tokens, WindowBatcherOptions options)
      : data_(std::move(data)), tokens_(tokens), o_(std::move(options)) {
    const auto ranges = file_ranges(*data_);
    for (const auto& [begin, end] : ranges) {
      File f{.begin = begin, .starts = end - begin - span() + 1, .windows = (end - begin - tail()) / o_.context};
      f.used = f.windows;
      if (!o_.random && o_.max_windows > 0)
        f.used = std::min(f.windows, std::max<int64_t>(1, o_.max_windows / static_cast<int64_t>(ranges.size())));
      used_ += f.used;
      starts_ += f.starts;
      files_.push_back(f);
    }
    for (const Draw& d : o_.draws) weight_ += d.weight;
  }

  int64_t files() const { return static_cast<int64_t>(files_.size()); }
  // Tokens that a window takes.
  int64_t span() const { return o_.context + tail(); }

  int64_t steps_per_epoch() const override {
    return o_.random ? std::max<int64_t>(used_ / o_.batch_size, 1) : (used_ - 1) / o_.batch_size + 1;
  }

  int64_t batch_rows(int64_t step) const override {
    return o_.random ? o_.batch_size
                     : std::min(o_.batch_size, used_ - step % steps_per_epoch() * o_.batch_size);
  }

  Result<Columns> make(int64_t step) const override {
    if (step < 0) return invalid("batch " + std::to_string(step) + " does not exist; steps count from 0");
    const int64_t rows = batch_rows(step), context = o_.context, n = tail();
    Philox random(split_key(split_key(o_.seed, "windows"), static_cast<uint64_t>(step)));
    HostArray x(tokens_->dtype(), o_.ngram > 0 ? Shape{rows, context, n} : Shape{rows, context});
    HostArray y(tokens_->dtype(), Shape{rows, context}), id(DType::i64, Shape{rows});
    const size_t item = size_of(tokens_->dtype());
    const auto copy = [&](HostArray& to, int64_t at, int64_t from, int64_t count) {
      std::memcpy(to.data() + static_cast<size_t>(at) * item, tokens_->data() + static_cast<size_t>(from) * item,
                  static_cast<size_t>(count) * item);
    };
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t start = !o_.random        ? side_by_side(step % steps_per_epoch() * o_.batch_size + r)
                            : o_.draws.empty() ? anywhere(random)
                                               : drawn(random);
      id.as<int64_t>()[static_cast<size_t>(r)] = start;
      copy(y, r * context, start + n, context);
      if (o_.ngram == 0) copy(x, r * context, start, context);
      for (int64_t t = 0; t < context && o_.ngram > 0; ++t) copy(x, (r * context + t) * n, start + t, n);
    }
    Columns batch;
    batch.emplace("x", std::move(x));
    batch.emplace("y", std::move(y));
    batch.emplace("id", std::move(id));
    return batch;
  }

 private:
  struct File {
    int64_t begin = 0, starts = 0;  // first token; places where a window may begin
    int64_t windows = 0, used = 0;  // side by side
  };

  // How far the first token of y is behind that of x.
  int64_t tail() const { return std::max<int64_t>(o_.ngram, 1); }

  static int64_t below(Philox& random, int64_t n) { return static_cast<int64_t>(random.below(static_cast<uint64_t>(n))); }

  int64_t anywhere(Philox& random) const {
    int64_t at = below(random, starts_);
    size_t f = 0;
    for (; at >= files_[f].starts; ++f) at -= files_[f].starts;
    return files_[f].begin + at;
  }

  int64_t drawn(Philox& random) const {
    double at = random.uniform() * weight_;
    size_t k = 0;
    for (; k + 1 < o_.draws.size() && at >= o_.draws[k].weight; ++k) at -= o_.draws[k].weight;
    const Draw& d = o_.draws[k];
    const File& f = files_[static_cast<size_t>(d.file >= 0 ? d.file : below(random, files()))];
    return f.begin + below(random, d.first > 0 ? std::min(f.starts, d.first - span() + 1) : f.starts);
  }

  // Where window w of the used ones begins.
  int64_t side_by_side(int64_t w) const {
    size_t f = 0;
    for (; w >= files_[f].used; ++f) w -= files_[f].used;
    const double spread = static_cast<double>(files_[f].windows) / static_cast<double>(files_[f].used);
    return files_[f].begin + static_cast<int64_t>(static_cast<double>(w) * spread) * o_.context;
  }

  std::shared_ptr<const Dataset> data_;
  const HostArray* tokens_;  // in data_
  WindowBatcherOptions o_;
  std::vector<File> files_;
  int64_t used_ = 0, starts_ = 0;
  double weight_ = 0;  // of all draws
};

}  // namespace

Result<std::unique_ptr<Batcher>> make_row_batcher(std::shared_ptr<const Dataset> data,
                                                  RowBatcherOptions options) {
  if (data->size() < 1) return invalid("there are no samples to make batches of");
  if (options.batch_size < 1)
    return invalid("batch_size is " + std::to_string(options.batch_size) + ", must be at least 1");
  if (options.drop_last && data->size() < options.batch_size)
    return invalid("batch_size " + std::to_string(options.batch_size) +
                   " with drop_last leaves no batch of " + std::to_string(data->size()) +
                   " samples; lower it");
  const int64_t each = options.per_class, size = options.batch_size;
  if (each < 0) return invalid("per_class is " + std::to_string(each) + ", must be at least 1");
  if (each > 0 && options.replacement) return invalid("per_class and replacement are two ways to draw a batch; give one");
  if (each > 0 && size % each != 0)
    return invalid("batch_size " + std::to_string(size) + " is not a multiple of per_class " + std::to_string(each));
  if (each > 0) {
    const auto y = data->columns().find("y");
    if (y == data->columns().end() || !is_integer(y->second.dtype()) || y->second.shape().rank() != 1)
      return invalid("per_class needs class numbers: an integer column 'y' with one number a row");
  }
  auto batcher = std::make_unique<RowBatcher>(std::move(data), std::move(options));
  if (each > 0 && size / each > batcher->classes())
    return invalid("batch_size " + std::to_string(size) + " with per_class " + std::to_string(each) + " asks for " +
                   std::to_string(size / each) + " classes; there are " + std::to_string(batcher->classes()));
  return std::unique_ptr<Batcher>(std::move(batcher));
}

Result<std::unique_ptr<Batcher>> make_window_batcher(std::shared_ptr<const Dataset> data,
                                                     WindowBatcherOptions options) {
  TN_ASSIGN(const HostArray* tokens, data->column(options.column));
  if (tokens->shape().rank() != 1 || !is_integer(tokens->dtype()))
    return invalid("windows need a stream of integer tokens, column '" + options.column + "' is " +
                   std::string(name_of(tokens->dtype())) + to_string(tokens->shape()));
  if (options.batch_size < 1)
    return invalid("batch_size is " + std::to_string(options.batch_size) + ", must be at least 1");
  if (options.context < 1)
    return invalid("context is " + std::to_string(options.context) + ", must be at least 1");
  if (options.max_windows < 0) return invalid("max_windows is negative");
  if (options.ngram < 0) return invalid("ngram is negative");
  for (const auto& [begin, end] : file_ranges(*data))
    if (end - begin < options.context + std::max<int64_t>(options.ngram, 1))
      return invalid("a stream of " + std::to_string(end - begin) + " tokens holds no window of context " +
                     std::to_string(options.context) + " and its next token; lower context");
  if (!options.draws.empty() && !options.random) return invalid("draws are for random windows; leave out shuffle: false");
  auto batcher = std::make_unique<WindowBatcher>(std::move(data), tokens, options);
  for (const Draw& d : options.draws) {
    if (!(d.weight > 0 && std::isfinite(d.weight))) return invalid("the weight of a draw is " + std::to_string(d.weight) + ", must be positive");
    if (d.file < -1 || d.file >= batcher->files())
      return invalid("a draw is from file number " + std::to_string(d.file) + "; there are " + std::to_string(batcher->files()) + ", counted from 0");
    if (d.first < 0 || (d.first > 0 && d.first < batcher->span()))
      return invalid("a draw is from the first " + std::to_string(d.first) + " tokens of a file; a window takes " + std::to_string(batcher->span()));
  }
  return std::unique_ptr<Batcher>(std::move(batcher));
}

}  // namespace tenon
