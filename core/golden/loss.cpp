// Losses. Inputs are the roles ("x/0", "x/1": those of a role of many); they are called in training, one step after
// another. Expected values:
//   loss                          the loss that is shown (rank 0; or [B] where the plugin gives one a sample)
//   loss_per_sample, per_sample   [B], before reduction
//   grad:<role>                   derivative of the loss with respect to a role, or to a trained parameter of the plugin
//   state:<slot>                  a slot after the call
//   <name>                        anything that the plugin emits under this name
// The learning rate that the loss sees is the option "learning_rate" or "lr", where the case has one.
#include "core/golden/run.h"
#include "core/graph/grad.h"
#include "core/plugin/loss.h"

namespace tenon::golden {
Status run_loss(Bench& bench, const Case& c, Record& record) {
  TN_ASSIGN(const auto plugin, LossPlugin::create(bench.catalog, c.id, c.id, c.options));
  Instance& instance = plugin->instance();
  TN_ASSIGN(const std::vector<Inputs> calls, calls_of(c));
  instance.table_rows = table_rows(calls);
  Graph graph(bench.runtime);
  for (size_t k = 0; k < calls.size(); ++k) {
    TN_RETURN_IF_ERROR(check_roles(instance.descriptor(), instance.who(), calls[k]));
    graph.reset();
    TN_ASSIGN(std::vector<NamedTensor> inputs, bind_roles(graph, calls[k]));
    const CallInfo info{.step = static_cast<int64_t>(k), .total_steps = static_cast<int64_t>(calls.size()),
                        .lr = c.number("learning_rate", c.number("lr", 0)), .train = true};
    TN_ASSIGN(const LossResult loss, plugin->build(graph, info, inputs, nullptr));
    // The step's own backward pass, with everything that a training step would differentiate.
    std::vector<NamedTensor> leaves;
    for (const NamedTensor& in : inputs)
      if (is_floating(in.value.dtype())) leaves.push_back(in);
    for (const auto& [name, slot] : instance.slots())
      for (const nn::ParameterPtr& p : slot.trainable) leaves.push_back({name, graph.input(p->value)});
    std::vector<Tensor> xs;
    for (const NamedTensor& leaf : leaves) xs.push_back(leaf.value);
    const std::vector<Tensor> grads = xs.empty() ? xs : grad(loss.value, xs);
    TN_ASSIGN(const Emissions after, instance.after_step(graph, info, nullptr));
    const std::vector<Update> updates = instance.take_updates();

    record.begin();
    for (const Emissions* e : {&loss.emitted, &after})
      for (const auto& [name, v] : e->values) record.add(name, value_of(v));
    const auto find = [&](const std::string& key) -> Tensor {
      const Tensor raw = loss.emitted.find(key);
      if (key == "loss") return raw.valid() && raw.rank() == 1 && loss.report == loss.value ? raw : loss.report;
      if (raw.valid()) return raw;
      if (const Tensor t = after.find(key); t.valid()) return t;
      if (key == "loss_per_sample" || key == "per_sample") return loss.per_sample;
      for (size_t i = 0; i < leaves.size(); ++i)
        if (key == "grad:" + leaves[i].name) return grads[i];
      return {};
    };
    TN_RETURN_IF_ERROR(record.evaluate(graph, find, updates, loss.emitted.checks(instance.who())));
    TN_RETURN_IF_ERROR(record_state(instance, record));
  }
  return Status::ok();
}

}  // namespace tenon::golden
