// What the runners of the kinds share: inputs of consecutive calls, and the record of what each call gave.
#pragma once

#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "core/golden/golden.h"
#include "core/graph/graph.h"
#include "core/plugin/instance.h"

namespace tenon::golden {

using Inputs = std::vector<std::pair<std::string, HostArray>>;

// The inputs of each call on the one instance. "step<k>:x" is x of call k; "x_per_step", "x_per_call" and
// "x_per_round" hold x of every call along their first axis; else all calls (`repeat`) get the same.
Result<std::vector<Inputs>> calls_of(const Case& c);
// The role that an input is for, or the key that it lies under: itself, or "x0" for "x/0".
std::string role_of(const std::string& input);
// Index `i` of the first axis.
HostArray row(const HostArray& a, int64_t i);

Result<Tensor> upload(Graph& graph, const HostArray& a);
Value value_of(const EmittedValue& v);

// Values by key for each call, and how an expected key is looked up among them:
//   key            of the latest call that has it; or of all calls, stacked, when that is the shape expected
//   step<k>:key    of call k
//   key_per_call, key_per_step, key_per_round, key_sequence, key_sequence:name   of all calls, stacked
//   key_final      of the latest call
//   aux:key, diagnostic:key   the same as key
class Record {
 public:
  explicit Record(const Case& c) : case_(c) {}
  void begin() { calls_.emplace_back(); }
  void add(const std::string& key, Value v) { calls_.back()[key] = std::move(v); }
  size_t calls() const { return calls_.size(); }
  // Evaluates, with the updates, what `find` knows of the expected keys (null: it does not), and adds it to this call.
  // Error: a check that does not hold.
  Status evaluate(Graph& graph, const std::function<Tensor(const std::string& key)>& find, std::span<const Update> updates,
                  const std::vector<NamedTensor>& checks = {});
  std::vector<Comparison> compare() const;

 private:
  const Value* at(size_t call, const std::string& key) const;
  Result<Value> stacked(const std::string& key) const;
  Result<Value> lookup(const std::string& key, const Expected& expected) const;

  const Case& case_;
  std::vector<std::map<std::string, Value>> calls_;
};

// --- Kinds whose inputs are roles ---
// Whether an input is one of the plugin's roles, "x/0" being one of a role x of many.
bool is_role(const tn_descriptor& d, const std::string& input);
// Error: an input that is none.
Status check_roles(const tn_descriptor& d, const std::string& who, const Inputs& inputs);
Result<std::vector<NamedTensor>> bind_roles(Graph& graph, const Inputs& inputs);
// Rows of per-sample tables: as many as the largest of "sample_ids" asks for.
int64_t table_rows(const std::vector<Inputs>& calls);
// Another value for the slot. Error: there is no such slot, or it has another shape.
Status set_slot(Instance& instance, const std::string& slot, const HostArray& value);
// Adds state:<slot> of every slot.
Status record_state(Instance& instance, Record& record);

struct Bench {
  Runtime& runtime;
  Catalog& catalog;
};

// Each runs a case of its kind; the conventions are at the head of its file.
Status run_probe(Bench& bench, const Case& c, Record& record);
Status run_loss(Bench& bench, const Case& c, Record& record);
Status run_optimizer(Bench& bench, const Case& c, Record& record);
Status run_reweighter(Bench& bench, const Case& c, Record& record);
Status run_parametrization(Bench& bench, const Case& c, Record& record);
Status run_router(Bench& bench, const Case& c, Record& record);
Status run_attack(Bench& bench, const Case& c, Record& record);
Status run_quantizer(Bench& bench, const Case& c, Record& record);
Status run_aggregator(Bench& bench, const Case& c, Record& record);
Status run_module(Bench& bench, const Case& c, Record& record);

}  // namespace tenon::golden
