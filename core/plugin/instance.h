// A plugin's instance: options, the pointer it made, and its slots (tensors that the host keeps for it).
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/nn/module.h"
#include "core/plugin/call.h"
#include "core/plugin/catalog.h"
#include "core/plugin/options.h"

namespace tenon {

class Instance {
 public:
  // Checks the options and calls create. `name` is the recipe's ("loss 'focal'" in messages).
  // Errors: unknown id, refused options, what the plugin says.
  static Result<std::unique_ptr<Instance>> create(Catalog& catalog, std::string_view kind, const std::string& id,
                                                  const std::string& name, const Options& options);
  // Stands for a probe ("tenon.probe/1") of the descriptor: options of the probe's own schema, no plugin data.
  static Result<std::unique_ptr<Instance>> for_probe(Catalog& catalog, const tn_descriptor& d, const tn_probe& probe, const Options& options);
  ~Instance();
  Instance(const Instance&) = delete;
  Instance& operator=(const Instance&) = delete;

  const tn_descriptor& descriptor() const { return *descriptor_; }
  const std::string& name() const { return name_; }
  std::string who() const;  // "loss 'focal'"
  void* pointer() const { return pointer_; }
  const PluginOptions& options() const { return options_; }
  const tn_host& host() const { return *host_; }
  bool has_cap(uint32_t cap) const { return (descriptor_->caps & cap) != 0; }
  // Why it has no second derivative (TN_CAP_FIRST_ORDER), as a message.
  std::string second_order_refusal() const;
  // A table of the descriptor's extension, or null.
  template <class T>
  const T* extension(const char* id) const {
    return TN_HAS(descriptor_, get_extension) ? static_cast<const T*>(descriptor_->get_extension(id)) : nullptr;
  }
  // Matches named inputs to the declared roles: one entry a role, null where an optional one is unbound, those of
  // "many" roles after them; no gradient passes through those of constant roles. Errors: a required role unbound, a wrong dtype or rank.
  Result<std::vector<NamedTensor>> arrange(std::span<const NamedTensor> inputs) const;

  // hooks.init and hooks.on_epoch, where the plugin has them.
  // What init emits comes out.
  Result<Emissions> init(Graph& graph, const CallInfo& info, std::span<const NamedTensor> inputs, ModelService* models);
  bool initialised() const { return initialised_; }
  void set_initialised() { initialised_ = true; }  // kinds with an init of their own
  Status on_epoch(Graph& graph, const CallInfo& info, ModelService* models);
  // What it emits comes out: values after the step.
  Result<Emissions> after_step(Graph& graph, const CallInfo& info, ModelService* models);

  // --- slots ---
  // What a slot's tensor holds until it is set, and again after a reset. The usual fill takes no memory.
  struct Initial {
    TensorType type;
    double fill = 0;                       // of every element, or
    std::optional<HostArray> values = {};  // all of them
    Status write_to(Array& array) const;
  };
  struct Slot {
    int32_t kind = TN_SLOT_STATE;
    bool saved = true;
    std::vector<Array> values;               // one, or one per parameter
    std::vector<Initial> initial;
    std::vector<Tensor> pending;             // set in this step
    std::vector<nn::ParameterPtr> trainable;  // TN_SLOT_TRAINABLE: what the optimizer trains
    std::string group;
    double lr_scale = 1;
    bool no_decay = false;
  };
  // Parameters that an optimizer's per-parameter slots follow, while its init runs.
  std::vector<Array> slot_params;
  int64_t table_rows = 0;
  bool declaring = false;

  Status declare(Call& call, const tn_slot& slot);
  Tensor get(Call& call, const std::string& name, uint32_t index);
  Status set(Call& call, const std::string& name, uint32_t index, Tensor value);
  Status reset(const std::string& name);  // "" = all
  void forget_slots() { slots_.clear(); }  // before init declares them anew
  // Updates collected since the last call, for the step's evaluation; forgets pending values and kept handles.
  std::vector<Update> take_updates();
  void forget_step();
  struct Trainable {
    nn::ParameterPtr parameter;
    std::string optimizer;  // of the recipe, by name; "": whichever takes it
    double lr_scale = 1;
    bool no_decay = false;
  };
  std::vector<Trainable> trainable_parameters() const;
  // "slot" or "slot.3" -> array, of slots that checkpoints hold.
  std::vector<std::pair<std::string, Array>> saved_slots() const;
  const std::map<std::string, Slot>& slots() const { return slots_; }
  // State beside the slots ("tenon.bytes/1"): 4 bytes of version, then what the plugin wrote; "" when it keeps none.
  Result<std::string> save_bytes();
  Status load_bytes(const std::string& bytes);

  std::vector<Tensor> kept;  // by keep(), until the step ends
  uint32_t kept_generation;

 private:
  Instance();
  const tn_descriptor* descriptor_ = nullptr;
  const tn_host* host_ = nullptr;
  std::string name_;
  void* pointer_ = nullptr;
  bool created_ = false, initialised_ = false;
  PluginOptions options_;
  std::map<std::string, Slot> slots_;
};

// A fresh number for handles; never 0.
uint32_t next_generation();

}  // namespace tenon
