#include "core/train/made_plugins.h"

#include <algorithm>

namespace tenon {
namespace {

constexpr std::string_view kPrefix = "made/";

}  // namespace

Status MadePlugins::add(HeldPlugin& p) {
  const std::string first = short_kind(p.instance->descriptor().kind) + "." + p.instance->descriptor().id;
  const auto taken = [&](const std::string& name) {
    return std::any_of(live_.begin(), live_.end(), [&](const auto& other) { return other.first == name; });
  };
  std::string name = first;
  for (int number = 2; taken(name); ++number) name = first + "." + std::to_string(number);
  live_.emplace_back(name, &p);
  auto stored = waiting_.extract(name);
  if (stored.empty()) return Status::ok();
  p.stored = std::move(stored.mapped().slots);
  p.steps = stored.mapped().steps;
  const std::string& bytes = stored.mapped().bytes;
  return bytes.empty() ? Status::ok() : p.instance->load_bytes(bytes);
}

void MadePlugins::remove(HeldPlugin& p) {
  const auto at = std::find_if(live_.begin(), live_.end(), [&](const auto& live) { return live.second == &p; });
  if (at == live_.end()) return;
  if (!p.stored.empty()) waiting_[at->first] = {.slots = std::move(p.stored), .bytes = {}, .steps = p.steps};  // it was not used
  live_.erase(at);
}

Status MadePlugins::save(Checkpoint& c) const {
  const auto put = [&](const std::string& name, const std::map<std::string, HostArray>& slots, std::string bytes, int64_t steps) {
    for (const auto& [slot, value] : slots) c.tensors.emplace_back(std::string(kPrefix) + name + "/" + slot, value);
    if (!bytes.empty()) c.blobs[std::string(kPrefix) + name] = std::move(bytes);
    if (steps > 0) c.scalars[std::string(kPrefix) + name] = static_cast<double>(steps);
  };
  for (const auto& [name, stored] : waiting_) put(name, stored.slots, stored.bytes, stored.steps);
  for (const auto& [name, p] : live_) {
    std::map<std::string, HostArray> slots = p->stored;
    for (const auto& [slot, array] : p->instance->saved_slots()) {
      TN_ASSIGN(slots[slot], array.to_host());
    }
    TN_ASSIGN(std::string bytes, p->instance->save_bytes());
    put(name, slots, std::move(bytes), p->steps);
  }
  return Status::ok();
}

void MadePlugins::load(const Checkpoint& c) {
  waiting_.clear();
  for (const auto& [full, value] : c.tensors) {
    if (!full.starts_with(kPrefix)) continue;
    const std::string name = full.substr(kPrefix.size());
    const size_t slash = name.rfind('/');
    if (slash != std::string::npos) waiting_[name.substr(0, slash)].slots[name.substr(slash + 1)] = value;
  }
  for (const auto& [name, bytes] : c.blobs)
    if (name.starts_with(kPrefix)) waiting_[name.substr(kPrefix.size())].bytes = bytes;
  for (const auto& [name, steps] : c.scalars)
    if (name.starts_with(kPrefix)) waiting_[name.substr(kPrefix.size())].steps = static_cast<int64_t>(steps);
}

}  // namespace tenon
