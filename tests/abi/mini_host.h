// A host written against the header alone, with none of Tenon's code: it computes in doubles while the graph
// is built. It proves that plugins need nothing but the contract, and it may stand for an older or smaller
// host.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/abi/mini_ops.h"

namespace abi_test {

struct Emitted {
  Value value;
  int32_t as = 0;
};

struct Outcome {
  int32_t code = 0;
  std::string message;
  std::map<std::string, Emitted> emitted;
  std::map<std::string, std::string> texts;
};

class MiniHost {
 public:
  MiniHost();
  const tn_host* table() const { return &table_; }
  void forget_op(const std::string& id) { hidden_ops_.push_back(id); }  // an older host

  // Calls f(ctx) as a [build] callback with these inputs and numbers; the handles given to f are `in` in
  // order.
  template <class F>
  Outcome call(const std::vector<Value>& in, F&& f) {
    begin(in);
    const int32_t code = f(&ctx_, inputs_);
    return end(code);
  }
  Value value(tn_tensor t) const { return values_.at(index_of(t)); }

  std::vector<tn_attr> options;
  tn_ctx ctx_{};
  std::map<std::string, Value> slots;          // "m#0"
  std::map<std::string, tn_slot> declared;     // by name
  std::vector<Value> params;                   // for TN_SLOT_PER_PARAM
  int64_t applied = 0;                         // ops run so far
  std::vector<Value> derivatives;              // of custom gradients, for a cotangent of ones
  std::vector<std::string> runtime_structure;  // ops of the last call, in order

 private:
  friend struct MiniCalls;
  void begin(const std::vector<Value>& in);
  Outcome end(int32_t code);
  tn_tensor add(Value v);
  size_t index_of(tn_tensor t) const;
  bool valid(tn_tensor t) const;

  tn_host table_{};
  tn_ops ops_{};
  tn_state_api state_{};
  std::vector<Value> values_;
  std::vector<tn_tensor> inputs_;
  uint64_t generation_ = 1;
  Outcome outcome_;
  std::vector<std::string> hidden_ops_;
  std::map<std::string, std::unique_ptr<std::string>> op_names_;
};

// A loaded plugin; the library stays loaded (as in Tenon), deinit is called at the end.
class Loaded {
 public:
  Loaded(const std::string& path, const MiniHost& host);
  ~Loaded();
  Loaded(const Loaded&) = delete;
  Loaded& operator=(const Loaded&) = delete;
  const tn_plugin* plugin = nullptr;
  std::string error;
};

// One instance with options: the schema's defaults, replaced by what is given.
class Instance {
 public:
  Instance(MiniHost& host, const tn_descriptor* d, const std::map<std::string, tn_value>& given = {});
  ~Instance();
  Instance(const Instance&) = delete;
  Instance& operator=(const Instance&) = delete;
  // A loss: inputs by role name; a role not named is unbound.
  Outcome loss(const std::map<std::string, Value>& in);
  // An optimizer's step number `count` on host.params with these gradients; the parameters are updated.
  Outcome step(const std::vector<Value>& grads, int64_t count, double lr);
  void* raw() const { return inst_; }
  Outcome created;

 private:
  MiniHost& host_;
  const tn_descriptor* d_;
  void* inst_ = nullptr;
  bool ready_ = false;
};

tn_value real(double v);
tn_value integer(int64_t v);
tn_value boolean(bool v);
tn_value text(const char* v);
tn_value reals(const std::vector<double>& v);  // borrowed
Value tensor(const Shape& shape, const std::vector<double>& data, tn_dtype dtype = TN_F64);

}  // namespace abi_test
