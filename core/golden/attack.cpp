// Attacks on a linear classifier z = W x + b with cross-entropy. Inputs: W [K, D], b [K], x [B, D], labels [B], and the
// plugin's other roles ("x_start" for the role "start"). Expected values: x_adv and whatever the plugin emits;
// "losses" is the cross-entropy at x_adv.
#include "core/golden/run.h"
#include "core/ops/elementwise.h"
#include "core/ops/matmul.h"
#include "core/ops/softmax.h"
#include "core/plugin/attack.h"

namespace tenon::golden {

Status run_attack(Bench& bench, const Case& c, Record& record) {
  TN_ASSIGN(const auto plugin, Instance::create(bench.catalog, TN_KIND_ATTACK, c.id, c.id, c.options));
  Instance& instance = *plugin;
  Graph graph(bench.runtime);
  std::map<std::string, Tensor> given;
  for (const auto& [name, a] : c.inputs) {
    TN_ASSIGN(given[name], upload(graph, a));
  }
  for (const char* key : {"W", "b", "x", "labels"})
    if (!given.contains(key)) return invalid(instance.who() + ": the case has no input '" + std::string(key) + "'");
  const auto logits = [&](Tensor x) { return matmul(x, given["W"], false, true) + given["b"]; };
  const auto losses = [&](Tensor x) { return cross_entropy(logits(x), given["labels"]); };
  AttackTarget target;
  target.evaluate = [&](Graph&, Tensor x, bool) -> Result<AttackTarget::At> { return AttackTarget::At{losses(x), logits(x)}; };
  std::vector<NamedTensor> inputs;
  for (const auto& [name, t] : given) {
    if (name == "W" || name == "b") continue;
    const std::string role = name == "x" ? "input" : name.starts_with("x_") ? name.substr(2) : name;
    if (is_role(instance.descriptor(), role)) inputs.push_back({role, t});
    else if (name != "labels") return invalid(instance.who() + ": it has no role '" + role + "'");
  }
  TN_ASSIGN(const PerturbedInput p, perturb_input(instance, graph, {.train = true}, target, inputs));
  record.begin();
  for (const auto& [name, v] : p.emitted.values) record.add(name, value_of(v));
  const auto find = [&](const std::string& key) -> Tensor {
    if (const Tensor t = p.emitted.find(key); t.valid()) return t;
    return key == "losses" ? losses(p.x_adv) : Tensor{};
  };
  return record.evaluate(graph, find, {}, p.emitted.checks(instance.who()));
}

}  // namespace tenon::golden
