// The state of plugins that a procedure makes for itself (aggregators, optimizers, ..): part of a checkpoint. When a run goes on,
// the procedure makes them again, in the same order, and each goes on with what the checkpoint holds for it.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "core/plugin/run_service.h"
#include "core/train/checkpoint.h"

namespace tenon {

class MadePlugins {
 public:
  // A plugin that was just made. Errors: stored bytes that it refuses.
  Status add(HeldPlugin& p);
  void remove(HeldPlugin& p);
  void clear() { live_.clear(); }

  // Slots, bytes and counts of steps, under "made/<kind>.<id>". What a checkpoint held for a plugin that was not made or used
  // since is kept.
  Status save(Checkpoint& c) const;
  void load(const Checkpoint& c);

 private:
  // What a checkpoint holds of one plugin.
  struct Stored {
    std::map<std::string, HostArray> slots;
    std::string bytes;
    int64_t steps = 0;
  };
  std::vector<std::pair<std::string, HeldPlugin*>> live_;
  std::map<std::string, Stored> waiting_;  // for plugins that are not made yet
};

}  // namespace tenon
