#include "core/data/batcher.h"

#include <algorithm>
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
    if (o_.per_class > 0) return std::max<int64_t>(1, n / o_.batch_size);
    return o_.drop_last ? n / o_.batch_size : (n - 1) / o_.batch_size + 1;
  }

  int64_t batch_rows(int64_t step) const override {
    if (o_.per_class > 0) return o_.batch_size;
    const int64_t begin = step % steps_per_epoch() * o_.batch_size;
    return std::min(o_.batch_size, data_->size() - begin);
  }

  Result<Columns> make(int64_t step) const override {
    if (step < 0) return invalid("batch " + std::to_string(step) + " does not exist; steps count from 0");
    const int64_t begin = step % steps_per_epoch() * o_.batch_size;
    std::vector<int64_t> rows(static_cast<size_t>(batch_rows(step)));
    if (o_.per_class > 0) {
      rows = balanced(step);
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
      : data_(std::move(data)),
        tokens_(tokens),
        o_(std::move(options)),
        windows_((tokens->numel() - 1) / o_.context) {
    if (!o_.random && o_.max_windows > 0)
      used_ = std::min(windows_, o_.max_windows);
    else
      used_ = windows_;
  }

  int64_t steps_per_epoch() const override {
    return o_.random ? std::max<int64_t>(used_ / o_.batch_size, 1) : (used_ - 1) / o_.batch_size + 1;
  }

  int64_t batch_rows(int64_t step) const override {
    return o_.random ? o_.batch_size
                     : std::min(o_.batch_size, used_ - step % steps_per_epoch() * o_.batch_size);
  }

  Result<Columns> make(int64_t step) const override {
    if (step < 0) return invalid("batch " + std::to_string(step) + " does not exist; steps count from 0");
    const int64_t rows = batch_rows(step), context = o_.context;
    Philox random(split_key(split_key(o_.seed, "windows"), static_cast<uint64_t>(step)));
    HostArray x(tokens_->dtype(), Shape{rows, context}), y(tokens_->dtype(), Shape{rows, context});
    HostArray id(DType::i64, Shape{rows});
    const size_t item = size_of(tokens_->dtype()), bytes = static_cast<size_t>(context) * item;
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t start =
          o_.random ? static_cast<int64_t>(random.below(static_cast<uint64_t>(tokens_->numel() - context)))
                    : side_by_side(step % steps_per_epoch() * o_.batch_size + r);
      id.as<int64_t>()[static_cast<size_t>(r)] = start;
      const std::byte* from = tokens_->data() + static_cast<size_t>(start) * item;
      std::memcpy(x.data() + static_cast<size_t>(r) * bytes, from, bytes);
      std::memcpy(y.data() + static_cast<size_t>(r) * bytes, from + item, bytes);
    }
    Columns batch;
    batch.emplace("x", std::move(x));
    batch.emplace("y", std::move(y));
    batch.emplace("id", std::move(id));
    return batch;
  }

 private:
  // Where window w of the used ones begins.
  int64_t side_by_side(int64_t w) const {
    const double spread = static_cast<double>(windows_) / static_cast<double>(used_);
    return used_ == windows_ ? w * o_.context
                             : static_cast<int64_t>(static_cast<double>(w) * spread) * o_.context;
  }

  std::shared_ptr<const Dataset> data_;
  const HostArray* tokens_;  // in data_
  WindowBatcherOptions o_;
  int64_t windows_ = 0, used_ = 0;
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
  if (tokens->numel() <= options.context)
    return invalid("a stream of " + std::to_string(tokens->numel()) + " tokens holds no window of context " +
                   std::to_string(options.context) + " and its next token; lower context");
  return std::unique_ptr<Batcher>(
      std::make_unique<WindowBatcher>(std::move(data), tokens, std::move(options)));
}

}  // namespace tenon
