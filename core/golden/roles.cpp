#include <algorithm>

#include "core/golden/run.h"

namespace tenon::golden {

std::string role_of(const std::string& input) {
  std::string s = input;
  if (const size_t slash = s.rfind('/'); slash != std::string::npos && slash + 1 < s.size() &&
                                         std::all_of(s.begin() + static_cast<std::ptrdiff_t>(slash) + 1, s.end(), [](char ch) { return ch >= '0' && ch <= '9'; }))
    s.erase(slash, 1);
  return s;
}

bool is_role(const tn_descriptor& d, const std::string& input) {
  const std::string name = role_of(input);
  for (uint32_t i = 0; i < d.n_roles; ++i) {
    const std::string_view role = d.roles[i]->name;
    if (name == role) return true;
    if ((d.roles[i]->flags & TN_ROLE_MANY) && name.starts_with(role) && name.size() > role.size() &&
        name.find_first_not_of("0123456789", role.size()) == std::string::npos)
      return true;
  }
  return false;
}

Status check_roles(const tn_descriptor& d, const std::string& who, const Inputs& inputs) {
  for (const auto& [name, unused] : inputs)
    if (!is_role(d, name)) return invalid(who + ": it has no role '" + name + "'");
  return Status::ok();
}

Result<std::vector<NamedTensor>> bind_roles(Graph& graph, const Inputs& inputs) {
  std::vector<NamedTensor> out;
  for (const auto& [name, a] : inputs) {
    TN_ASSIGN(const Tensor t, upload(graph, a));
    out.push_back({role_of(name), t});
  }
  return out;
}

// Rows of per-sample tables: as many as the largest sample number asks for.
int64_t table_rows(const std::vector<Inputs>& calls) {
  int64_t rows = 0;
  for (const Inputs& call : calls)
    for (const auto& [name, a] : call)
      for (int64_t i = 0; name == "sample_ids" && i < a.numel(); ++i) rows = std::max(rows, static_cast<int64_t>(a.at(i)) + 1);
  return rows;
}

Status set_slot(Instance& instance, const std::string& slot, const HostArray& value) {
  const auto it = instance.slots().find(slot);
  if (it == instance.slots().end() || it->second.values.size() != 1)
    return invalid(instance.who() + ": '" + slot + "' is neither a role nor a slot of it");
  Array target = it->second.kind == TN_SLOT_TRAINABLE ? it->second.trainable[0]->value : it->second.values[0];
  if (target.type() != TensorType{value.dtype(), value.shape()})
    return invalid(instance.who() + ": slot '" + slot + "' is " + to_string(target.type()) + ", the case gives " + to_string(TensorType{value.dtype(), value.shape()}));
  return target.assign(value);
}

Status record_state(Instance& instance, Record& record) {
  for (const auto& [name, slot] : instance.slots())
    for (size_t i = 0; i < slot.values.size(); ++i) {
      TN_ASSIGN(HostArray h, (slot.kind == TN_SLOT_TRAINABLE ? slot.trainable[i]->value : slot.values[i]).to_host());
      record.add("state:" + name, std::move(h));
    }
  return Status::ok();
}

}  // namespace tenon::golden
