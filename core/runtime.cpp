#include "core/runtime.h"

#include "core/plan/plan.h"

namespace tenon {

Runtime::Runtime(std::unique_ptr<Backend> backend, RuntimeOptions options)
    : backend_(std::move(backend)), options_(options) {}

Runtime::~Runtime() { clear(); }

std::shared_ptr<Plan> Runtime::find_plan(const Hash128& key) {
  const auto it = plans_.find(key);
  if (it == plans_.end()) return nullptr;
  lru_.splice(lru_.begin(), lru_, it->second);
  ++stats_.plan_hits;
  return it->second->plan;
}

void Runtime::remember_plan(const Hash128& key, std::shared_ptr<Plan> plan) {
  ++stats_.plan_misses;
  plan_bytes_ += plan->host_bytes();
  lru_.push_front({key, std::move(plan)});
  plans_[key] = lru_.begin();
  while (plan_bytes_ > options_.plan_cache_bytes && lru_.size() > 1) {
    plan_bytes_ -= lru_.back().plan->host_bytes();
    plans_.erase(lru_.back().key);
    lru_.pop_back();
  }
}

Result<void*> Runtime::arena(size_t bytes) {
  if (!arena_ || arena_->size_bytes() < bytes) {
    arena_.reset();
    TN_ASSIGN(void* p, backend_->allocate(bytes));
    arena_ = std::make_shared<Buffer>(*backend_, p, bytes);
    stats_.arena_bytes = std::max(stats_.arena_bytes, bytes);
  }
  return arena_->data();
}

void Runtime::clear() {
  plans_.clear();
  lru_.clear();
  plan_bytes_ = 0;
  arena_.reset();
}

}  // namespace tenon
