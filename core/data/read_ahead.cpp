#include "core/data/read_ahead.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <optional>
#include <thread>

namespace tenon {
namespace {

class ReadAhead final : public Batcher {
 public:
  explicit ReadAhead(std::unique_ptr<Batcher> of)
      : of_(std::move(of)), thread_([this](const std::stop_token& stop) { work(stop); }) {}

  int64_t steps_per_epoch() const override { return of_->steps_per_epoch(); }
  int64_t batch_rows(int64_t step) const override { return of_->batch_rows(step); }

  Result<Columns> make(int64_t step) const override {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return ahead_ != step || ready_; });
    std::optional<Result<Columns>> batch;
    if (ahead_ == step) {
      batch = std::move(ready_);
    } else {
      lock.unlock();
      batch = timed(step);
      lock.lock();
    }
    ready_.reset();
    const bool idle = ahead_ == kNone && !worth_it_;
    ahead_ = worth_it_ ? step + 1 : kNone;
    lock.unlock();
    if (!idle) changed_.notify_all();
    return *std::move(batch);
  }

 private:
  static constexpr int64_t kNone = -1;

  Result<Columns> timed(int64_t step) const {
    using Clock = std::chrono::steady_clock;
    const Clock::time_point start = Clock::now();
    auto batch = of_->make(step);
    worth_it_ = Clock::now() - start >= std::chrono::microseconds(50);
    return batch;
  }

  void work(const std::stop_token& stop) {
    std::unique_lock lock(mutex_);
    while (changed_.wait(lock, stop, [&] { return ahead_ != kNone && !ready_; })) {
      const int64_t step = ahead_;
      lock.unlock();
      auto batch = timed(step);
      lock.lock();
      if (ahead_ != step) continue;  // something else was asked for meanwhile
      ready_ = std::move(batch);
      changed_.notify_all();
    }
  }

  const std::unique_ptr<Batcher> of_;
  mutable std::atomic<bool> worth_it_ = false;
  mutable std::mutex mutex_;
  mutable std::condition_variable_any changed_;
  mutable int64_t ahead_ = kNone;                 // the batch that the thread makes, or has made
  mutable std::optional<Result<Columns>> ready_;  // what it has made
  std::jthread thread_;                           // last, so that it ends first
};

}  // namespace

std::unique_ptr<Batcher> read_ahead(std::unique_ptr<Batcher> of) {
  return std::make_unique<ReadAhead>(std::move(of));
}

}  // namespace tenon
