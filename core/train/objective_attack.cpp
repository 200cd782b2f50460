// Losses at perturbed inputs: the objective as an attack sees it, and roles that take the output at both inputs.
#include <algorithm>

#include "core/base/random.h"
#include "core/ops/shape.h"
#include "core/plugin/attack.h"
#include "core/train/objective.h"

namespace tenon {
namespace {

// The roles with another output in place of the model's, shaped as it was.
std::vector<NamedTensor> with_output(std::vector<NamedTensor> roles, const std::vector<std::string>& of_output, Tensor output) {
  for (NamedTensor& r : roles)
    if (std::find(of_output.begin(), of_output.end(), r.name) != of_output.end())
      r.value = r.value.shape() == output.shape() ? output : reshape(output, r.value.shape());
  return roles;
}

}  // namespace

std::vector<std::string> Objective::output_roles(const Pass& pass, const LossTerm& term, const std::vector<NamedTensor>& roles) const {
  const Tensor output = pass.outputs.at(model_of(term));
  std::vector<std::string> out;
  for (const NamedTensor& r : roles) {
    const bool reshaped = r.value.valid() && r.value.rank() + 1 == output.rank() && r.value.numel() == output.numel() && output.dim(-1) == 1 &&
                          r.value.dtype() == output.dtype() && r.name != "labels" && r.name != "target";
    if (r.value == output || reshaped) out.push_back(r.name);
  }
  return out;
}

Result<Objective::Attacked> Objective::attacked(Graph& graph, Pass& pass, LossTerm& term, Instance& attack) {
  TN_ASSIGN(const TrainedModel* m, find_model(model_of(term)));
  if (m->inputs.size() != 1) return unsupported("an attack perturbs the only input of a model; '" + m->name + "' has " + std::to_string(m->inputs.size()));
  TN_ASSIGN(const std::vector<NamedTensor> in, roles(graph, pass, term, term.plugin->instance().descriptor()));
  const std::vector<std::string> of_output = output_roles(pass, term, in);
  CallInfo here = info_;
  here.key = split_key(info_.key, attack.name());
  AttackTarget target;
  target.evaluate = [&](Graph& g, Tensor x, bool wants_loss) -> Result<AttackTarget::At> {
    TN_ASSIGN(const auto y, apply(g, {.model = m->name, .in = {{m->inputs[0], x}}, .params = {}, .wanted = {}, .frozen = true, .freeze_stats = true, .key = {}}));
    AttackTarget::At at{.per_sample = {}, .output = y[0]};
    if (!wants_loss) return at;
    CallInfo again = info_;
    again.key = split_key(info_.key, term.name);
    again.replay = true;
    TN_ASSIGN(const LossResult loss, term.plugin->build(g, again, with_adversarial_roles(term, with_output(in, of_output, y[0]), of_output, y[0]), this));
    if (!loss.per_sample.valid()) return invalid("the loss '" + term.name + "' gives no losses per sample, which the attack asks for");
    at.per_sample = loss.per_sample;
    return at;
  };
  TN_ASSIGN(std::vector<NamedTensor> attack_roles, roles(graph, pass, term, attack.descriptor()));
  TN_ASSIGN(const Tensor x, resolve(graph, pass, m->inputs[0]));
  std::erase_if(attack_roles, [](const NamedTensor& r) { return r.name == "input"; });
  attack_roles.push_back({"input", x});
  Attacked out;
  TN_ASSIGN(PerturbedInput perturbed, perturb_input(attack, graph, here, target, attack_roles));
  out.x_adv = perturbed.x_adv;
  out.emitted = std::move(perturbed.emitted);
  TN_ASSIGN(const auto y, apply(graph, {.model = m->name, .in = {{m->inputs[0], out.x_adv}}, .params = {}, .wanted = {}, .frozen = false, .freeze_stats = true, .key = {}}));
  out.output = y[0];
  return out;
}

std::vector<NamedTensor> Objective::with_adversarial_roles(const LossTerm& term, std::vector<NamedTensor> in, const std::vector<std::string>& of_output,
                                                           Tensor output_adv) const {
  const tn_descriptor& d = term.plugin->instance().descriptor();
  bool both = false;
  for (uint32_t i = 0; i < d.n_roles; ++i) {
    const std::string role = d.roles[i]->name;
    constexpr std::string_view suffix = "_adv";
    if (!role.ends_with(suffix)) continue;
    const std::string base = role.substr(0, role.size() - suffix.size());
    if (std::find(of_output.begin(), of_output.end(), base) == of_output.end()) continue;
    both = true;
    for (const NamedTensor& r : std::vector<NamedTensor>(in))
      if (r.name == base) in.push_back({role, r.value.shape() == output_adv.shape() ? output_adv : reshape(output_adv, r.value.shape())});
  }
  return both ? in : with_output(std::move(in), of_output, output_adv);
}

}  // namespace tenon
