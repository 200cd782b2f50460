// A compiled graph: kernels in order, with every address resolved to (base, offset). Running it allocates only the
// arrays it returns.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/plan/program.h"

namespace tenon {

class Runtime;

class Plan {
 public:
  // Compiles what `roots` and `updates` need of the graph for the graph's backend.
  static Result<std::shared_ptr<Plan>> make(const Graph& g, std::span<const uint32_t> roots,
                                            std::span<const Update> updates);

  // Runs on a graph of the same structure. `leaves` are graph values in the plan's order (leaf_values() of the graph it
  // was made from, or their counterparts); `results` gets one new array per root.
  Status run(const Graph& g, std::span<const uint32_t> leaves, std::span<const Update> updates,
             std::vector<Array>& results);

  std::span<const uint32_t> leaf_values() const { return leaf_ids_; }
  size_t arena_bytes() const { return arena_bytes_; }
  size_t host_bytes() const;  // what the plan itself takes, estimated

  // An address at run time: a base (arena, scalars, a leaf, a result, an update's target) plus a byte offset.
  struct Ref {
    uint32_t base = 0;
    int64_t offset = 0;
  };
  struct Step {
    std::unique_ptr<Kernel> kernel;
    std::vector<Ref> in, out;
    Ref scratch;
    std::string label;  // "matmul", "add+mul+tanh": for errors and the profile
  };
  std::span<const Step> steps() const { return steps_; }

 private:
  friend class Lowering;
  std::vector<Step> steps_;
  std::vector<uint32_t> leaf_ids_;
  struct Scalar {
    uint32_t slot, value;  // in scalar_staging_, of 8 bytes; graph value
  };
  std::vector<Scalar> runtime_scalars_;  // constants are in the staging memory for good
  std::vector<TensorType> root_types_;
  size_t n_updates_ = 0;
  size_t arena_bytes_ = 0;
  std::shared_ptr<Buffer> scalars_;
  std::vector<std::byte> scalar_staging_;
  std::vector<void*> bases_, pointers_;
};

// A block of working memory that a step writes and later steps read.
struct Lifetime {
  size_t bytes = 0;
  int first = 0, last = 0;  // steps, inclusive
  size_t offset = 0;        // decided by assign_offsets
};
// Best fit of all blocks into one arena, 64-byte aligned; returns the arena's size.
size_t assign_offsets(std::vector<Lifetime>& blocks);

}  // namespace tenon
