// A second thread that makes batches: the same ones, in whatever order they are asked for.
#include "core/data/read_ahead.h"

#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <chrono>
#include <random>
#include <thread>

namespace tenon {
namespace {

// Batches of their own number, which take as long as is worth a thread; the seventh fails.
class Numbers final : public Batcher {
 public:
  explicit Numbers(std::atomic<int>& made) : made_(made) {}
  Result<Columns> make(int64_t step) const override {
    ++made_;
    std::this_thread::sleep_for(std::chrono::microseconds(200));
    if (step == 7) return invalid("there is no batch 7");
    return Columns{{"x", HostArray::of<int64_t>(std::span(&step, 1), Shape{})}};
  }
  int64_t steps_per_epoch() const override { return 5; }
  int64_t batch_rows(int64_t step) const override { return step; }

 private:
  std::atomic<int>& made_;
};

double number(const Result<Columns>& batch) {
  REQUIRE(batch.is_ok());
  return batch->at("x").at(0);
}

}  // namespace

TEST_CASE("batches made ahead are those that are asked for") {
  std::atomic<int> made = 0;
  const auto batches = read_ahead(std::make_unique<Numbers>(made));
  CHECK(batches->steps_per_epoch() == 5);
  CHECK(batches->batch_rows(3) == 3);
  for (int64_t step = 0; step < 7; ++step) CHECK(number(batches->make(step)) == static_cast<double>(step));
  CHECK(made <= 8);  // each once, and one more at most
  CHECK(batches->make(7).status().message() == "there is no batch 7");
  CHECK(batches->make(7).status().message() == "there is no batch 7");
  CHECK(number(batches->make(8)) == 8);
  const uint32_t seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 rng(seed);
  for (int i = 0; i < 50; ++i) {
    const int64_t step = std::uniform_int_distribution<int64_t>(8, 12)(rng);
    CHECK(number(batches->make(step)) == static_cast<double>(step));
  }
}

TEST_CASE("several threads may ask for batches made ahead") {
  std::atomic<int> made = 0, wrong = 0;
  {
    const auto batches = read_ahead(std::make_unique<Numbers>(made));
    std::vector<std::jthread> threads;
    for (int t = 0; t < 3; ++t)
      threads.emplace_back([&, t] {
        for (int64_t step = 8 + t % 2; step < 40; ++step) {
          const auto batch = batches->make(step);
          if (!batch || batch->at("x").at(0) != static_cast<double>(step)) ++wrong;
        }
      });
  }  // while a batch is being made
  CHECK(wrong == 0);
}

}  // namespace tenon
