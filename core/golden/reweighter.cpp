// Reweighters. Inputs are the roles, "losses" [B] among them; or "logits" [B, T, C] and "labels" [B, T] (or [B, C] and
// [B]), whose per-sample losses the loss "cross_entropy" gives, with the case's "ignore_index". Losses [S, B] are S
// calls. Expected values:
//   weights, <name>           what the plugin emits
//   weighted_loss, loss       sum of factor times loss, as a recipe trains it
//   losses                    per-sample losses
//   grad:<input>              derivative of that sum; the factors are constants
#include "core/graph/grad.h"
#include "core/golden/run.h"
#include "core/ops/elementwise.h"
#include "core/ops/reduce.h"
#include "core/plugin/loss.h"
#include "core/plugin/reweighter.h"

namespace tenon::golden {
namespace {

// Calls of a case whose losses have a row for each.
Result<std::vector<Inputs>> calls_by_row(const Case& c) {
  const HostArray* losses = c.input("losses");
  if (!losses || losses->shape().rank() != 2) return calls_of(c);
  std::vector<Inputs> out(static_cast<size_t>(losses->shape()[0]));
  for (size_t i = 0; i < out.size(); ++i)
    for (const auto& [name, a] : c.inputs) out[i].emplace_back(name, name == "losses" ? row(a, static_cast<int64_t>(i)) : a);
  return out;
}

}  // namespace

Status run_reweighter(Bench& bench, const Case& c, Record& record) {
  TN_ASSIGN(const auto plugin, Instance::create(bench.catalog, TN_KIND_REWEIGHTER, c.id, c.id, c.options));
  Instance& instance = *plugin;
  Options entropy;
  if (const auto it = c.options.find("ignore_index"); it != c.options.end()) entropy.insert(*it);
  TN_ASSIGN(const std::vector<Inputs> calls, calls_by_row(c));
  instance.table_rows = table_rows(calls);
  Graph graph(bench.runtime);
  for (size_t k = 0; k < calls.size(); ++k) {
    graph.reset();
    const CallInfo info{.step = static_cast<int64_t>(k), .total_steps = static_cast<int64_t>(calls.size()), .train = true};
    TN_ASSIGN(const std::vector<NamedTensor> given, bind_roles(graph, calls[k]));
    std::vector<NamedTensor> inputs;
    Tensor losses;
    std::vector<NamedTensor> leaves;
    for (const NamedTensor& t : given) {
      if (t.name == "losses") losses = t.value;
      if (is_floating(t.value.dtype())) leaves.push_back(t);
      if (is_role(instance.descriptor(), t.name)) inputs.push_back(t);
    }
    if (!losses.valid() && c.has("logits") && c.has("labels")) {
      TN_ASSIGN(const auto loss, LossPlugin::create(bench.catalog, "cross_entropy", "cross_entropy", entropy));
      TN_ASSIGN(const LossResult built, loss->build(graph, info, given, nullptr));
      losses = built.per_sample;
    }
    if (!losses.valid()) {
      TN_RETURN_IF_ERROR(check_roles(instance.descriptor(), instance.who(), calls[k]));
    } else {
      std::erase_if(inputs, [](const NamedTensor& t) { return t.name == "losses"; });
      inputs.push_back({"losses", stop_gradient(losses)});
    }
    TN_ASSIGN(const SampleWeights w, weigh_samples(instance, graph, info, inputs, nullptr));
    TN_ASSIGN(const Emissions after, instance.after_step(graph, info, nullptr));
    const std::vector<Update> updates = instance.take_updates();
    const Tensor total = losses.valid() ? sum(stop_gradient(w.factors) * losses) : Tensor{};

    record.begin();
    for (const auto& [name, v] : w.emitted.values) record.add(name, value_of(v));
    const auto find = [&](const std::string& key) -> Tensor {
      if (const Tensor t = w.emitted.find(key); t.valid()) return t;
      if (const Tensor t = after.find(key); t.valid()) return t;
      if (key == "losses") return losses;
      if (key == "weighted_loss" || key == "loss") return total;
      for (const NamedTensor& leaf : leaves)
        if (key == "grad:" + leaf.name && total.valid()) return grad(total, {&leaf.value, 1})[0];
      return {};
    };
    TN_RETURN_IF_ERROR(record.evaluate(graph, find, updates, w.emitted.checks(instance.who())));
    TN_RETURN_IF_ERROR(record_state(instance, record));
  }
  return Status::ok();
}

}  // namespace tenon::golden
