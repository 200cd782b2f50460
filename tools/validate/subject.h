// A plugin of any kind as a function of named tensors: what the checks call.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/plugin/instance.h"
#include "core/runtime.h"
#include "tools/validate/inputs.h"

namespace tenon::validate {

// What one call appended to the graph.
struct Built {
  std::vector<NamedTensor> results;  // all that it gave, by name
  std::vector<NamedTensor> checks;   // what must hold
  std::vector<std::pair<std::string, EmittedValue>> values;
  Tensor objective;  // rank 0, what derivatives are taken of; null where the kind has none
};

class Subject {
 public:
  virtual ~Subject() = default;
  virtual Instance& instance() = 0;
  virtual Result<Built> build(Graph& graph, const CallInfo& info, std::span<const NamedTensor> inputs) = 0;
  // What callbacks reach the model through; null where there is none.
  virtual ModelService* models() { return nullptr; }
  // Beside the instance's slots: what the latest call changes, and what a checkpoint would hold.
  virtual std::vector<Update> own_updates() { return {}; }
  virtual std::vector<std::pair<std::string, Array>> own_arrays() const { return {}; }
  // What can be wrong with the values of a call though the types are right.
  virtual Status inspect(const Inputs& inputs, const Inputs& results) const {
    static_cast<void>(inputs), static_cast<void>(results);
    return Status::ok();
  }
};

// The options that a plugin declares.
std::vector<const tn_option*> schema_of(const tn_descriptor& d);
bool has_default(const tn_option& o);

struct Host {
  Runtime& runtime;
  Catalog& catalog;
};

// How plugins of a kind are called.
struct Kind {
  std::string_view id;  // TN_KIND_*
  std::vector<Wanted> (*inputs)(const tn_descriptor& d);
  Result<std::unique_ptr<Subject>> (*make)(const Host& host, const tn_descriptor& d, const Options& options);
  const char* no_derivative = nullptr;  // why derivatives are not compared with differences
};

// Null: a kind that this program does not know. Procedures are no functions of tensors: see procedure.h.
const Kind* find_kind(std::string_view id);

// Each in its file.
extern const Kind kOptimizerKind, kKernelKind;

// What most kinds give: all tensors and values that were emitted, with the checks.
Built built_from(const Instance& instance, const Emissions& emitted);
// sum of out times fixed numbers of no special value, over all floating `outs`; null when there are none.
Tensor projection(Graph& graph, std::span<const Tensor> outs);

}  // namespace tenon::validate
