// One Runtime per process (or per test): it owns the backend, the plan cache and the arena that steps run in.
#pragma once

#include <functional>
#include <list>
#include <memory>
#include <span>
#include <unordered_map>

#include "backends/backend.h"
#include "core/base/hash.h"
#include "core/tensor/array.h"

namespace tenon {

class Graph;
class Plan;
class Tensor;
struct OpDef;

struct RuntimeOptions {
  bool eager = false;  // evaluate each node when it is built (TENON_EAGER=1): same results, friendly to a debugger
  size_t plan_cache_bytes = size_t{64} << 20;
  // Planner passes (core/plan/passes.h); turning one off changes speed and memory, never results.
  bool pass_expand = true;
  bool pass_cse = true;
  bool pass_simplify = true;
  bool pass_epilogue = true;
  bool pass_fuse = true;
  bool pass_rows = true;
  bool pass_layout = true;
  bool pass_joins = true;
  bool pass_widen = true;
  bool pass_inplace = true;
  bool pass_native = true;
};

struct RuntimeStats {
  int64_t evals = 0;         // plans run, whole steps and single eager nodes alike
  int64_t plan_hits = 0;
  int64_t plan_misses = 0;
  int64_t kernels = 0;       // kernels launched
  int64_t reads = 0;         // explicit evaluation points inside steps
  size_t arena_bytes = 0;    // high-water mark
};

class Runtime {
 public:
  explicit Runtime(std::unique_ptr<Backend> backend, RuntimeOptions options = {});
  ~Runtime();
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  Backend& backend() { return *backend_; }
  const RuntimeOptions& options() const { return options_; }
  RuntimeStats& stats() { return stats_; }

  // The cached plan, marked as just used, or null.
  std::shared_ptr<Plan> find_plan(const Hash128& key);
  void remember_plan(const Hash128& key, std::shared_ptr<Plan> plan);
  // Working memory of at least this size; valid until the next call.
  Result<void*> arena(size_t bytes);
  // What stands for a built-in op in the graphs of this runtime: gives its first output, or null to leave a case to it.
  using Replacement = std::function<Tensor(Graph&, std::span<const Tensor> in, const Attrs&)>;
  void replace(const OpDef& op, Replacement r) { replacements_[&op] = std::move(r); }
  const Replacement* replacement(const OpDef& op) const {
    if (replacements_.empty()) return nullptr;
    const auto it = replacements_.find(&op);
    return it == replacements_.end() ? nullptr : &it->second;
  }
  // Frees working memory and forgets all plans.
  void clear();

 private:
  struct Entry {
    Hash128 key;
    std::shared_ptr<Plan> plan;
  };
  std::unique_ptr<Backend> backend_;
  RuntimeOptions options_;
  RuntimeStats stats_;
  std::list<Entry> lru_;  // most recently used first
  std::unordered_map<Hash128, std::list<Entry>::iterator, Hash128Hasher> plans_;
  size_t plan_bytes_ = 0;
  std::shared_ptr<Buffer> arena_;
  std::unordered_map<const OpDef*, Replacement> replacements_;
};

}  // namespace tenon
