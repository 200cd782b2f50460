// tenon dump: the graph of a recipe's training step.
#include <cstdio>

#include "core/graph/dump.h"
#include "core/graph/grad.h"
#include "tools/tenon/commands.h"
#include "tools/tenon/session.h"

namespace tenon::cli {
namespace {

struct DumpFlags : RecipeFlags {
  std::string format = "text";
  bool forward = false;
};

int dump(const DumpFlags& flags) {
  if (flags.format != "text" && flags.format != "dot") return report(invalid("--format: '" + flags.format + "' is neither text nor dot"));
  auto session = open_session(flags);
  if (!session) return report(session.status());
  Experiment& e = *session->experiment;
  const auto build = [&](Graph& graph) -> Status {
    TN_ASSIGN(const Batch batch, e.training_batch(0, nullptr));
    const CallInfo info = e.training_info(0);
    e.objective().begin(batch, info);
    TN_ASSIGN(Pass * pass, e.objective().forward(graph));
    TN_ASSIGN(const ObjectiveValue value, e.objective().evaluate(graph, *pass));
    if (!flags.forward) {
      Gradients gradients;
      std::vector<Tensor> leaves;
      for (const NamedParameter& p : e.optimizers().parameters()) leaves.push_back(graph.input(p.parameter->value));
      const auto grads = grad(value.loss, leaves);
      for (size_t i = 0; i < leaves.size(); ++i) gradients.of[e.optimizers().parameters()[i].parameter.get()] = grads[i];
      gradients.loss = value.loss;
      if (!e.optimizers().wants_closure() && !e.optimizers().wants_objectives())
        TN_RETURN_IF_ERROR(e.optimizers().append(graph, info, gradients).status());
    }
    return graph.status();
  };
  Graph graph(*session->runtime);
  if (Status s = build(graph); !s.is_ok()) return report(s);
  const std::string text = flags.format == "dot" ? dump_dot(graph) : dump_text(graph);
  std::fwrite(text.data(), 1, text.size(), stdout);
  return 0;
}

}  // namespace

void add_dump(CLI::App& app, Command& run) {
  auto flags = std::make_shared<DumpFlags>();
  CLI::App* c = app.add_subcommand("dump", "Print the graph of a training step");
  flags->add_to(*c);
  c->add_option("--format", flags->format, "text or dot (Graphviz)")->capture_default_str();
  c->add_flag("--forward", flags->forward, "Only model and losses, without gradients and optimizer");
  c->callback([flags, &run] { run = [flags] { return dump(*flags); }; });
}

}  // namespace tenon::cli
