// Kernels: ops that plugins bring, and faster forms of built-in ones.
//
// A kernel is an optimisation of a graph: its `compose` is the reference, gives every derivative, and runs wherever its
// code does not. Whether the code takes a case is asked once for each combination of types, on zeros.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/graph/graph.h"
#include "core/plugin/instance.h"

namespace tenon {

class Catalog;

class KernelOps {
 public:
  explicit KernelOps(Catalog& catalog);
  ~KernelOps();
  KernelOps(const KernelOps&) = delete;
  KernelOps& operator=(const KernelOps&) = delete;

  // The op of this id ("org.example.swiglu/1") if a kernel plugin has it; null when none does.
  const OpDef* find(std::string_view id);
  // Whether this is an op of a plugin.
  static bool owns(const OpDef& op);
  // Appends the kernel, or its composed form. Errors: options, what the plugin says of types and inputs.
  static Result<std::vector<Tensor>> apply(Graph& graph, const OpDef& op, std::span<const Tensor> in, const Options& options,
                                           std::span<const int64_t> replaced_words = {});
  // Lets the kernel stand for the built-in op that it replaces, on this runtime. Error: it replaces none.
  Status install(Runtime& runtime, const std::string& id);

 private:
  struct Op;
  Result<Op*> open(std::string_view id);
  Catalog& catalog_;
  std::map<std::string, std::unique_ptr<Op>, std::less<>> ops_;
};

}  // namespace tenon
