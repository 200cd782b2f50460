#include "core/train/optimize.h"

#include <algorithm>
#include <cstdio>
#include <regex>

#include "core/ops/elementwise.h"
#include "core/ops/reduce.h"
#include "core/ops/shape.h"
#include "core/runtime.h"

namespace tenon {
namespace {

bool matches(const std::vector<std::string>& patterns, const std::string& name) {
  return std::any_of(patterns.begin(), patterns.end(), [&](const std::string& p) {
    return std::regex_search(name, std::regex(p), std::regex_constants::match_continuous);
  });
}

std::vector<std::string> strings(const google::protobuf::RepeatedPtrField<std::string>& f) { return {f.begin(), f.end()}; }

bool has_option(const tn_descriptor& d, std::string_view name) {
  for (uint32_t i = 0; i < d.n_options; ++i)
    if (name == d.options[i]->name) return true;
  return false;
}

}  // namespace

Result<Optimizers> Optimizers::create(Catalog& catalog, const Recipe& recipe) {
  Optimizers out;
  out.catalog_ = &catalog;
  for (int k = 0; k < recipe.proto.optimizer_size(); ++k) {
    const proto::Optimizer& o = recipe.proto.optimizer(k);
    const std::string path = recipe.proto.optimizer_size() > 1 ? "optimizer[" + std::to_string(k) + "]" : "optimizer";
    const std::string where = recipe.where(path + ".id");
    Settings s{.name = o.has_name() ? o.name() : o.id(), .params = strings(o.params()), .no_decay = strings(o.no_decay()), .schedule = {},
               .clip_norm = o.clip_norm(), .clip_value = o.clip_value(), .where = where};
    auto schedule = Schedule::make(o.schedule().id(), to_options(o.schedule().options()));
    if (!schedule) return std::move(schedule).status().at(recipe.where(path + ".schedule"));
    s.schedule = std::move(schedule).value();
    out.settings_.push_back(std::move(s));

    // Groups in the order in which they get to choose: the recipe's, then the rest; each split by weight decay.
    const std::string& base = out.settings_.back().name;
    int serial = 0;
    for (int g = 0; g <= o.group_size(); ++g) {
      const bool rest = g == o.group_size();
      const proto::Options merged_options = rest ? o.options() : merged(o.options(), o.group(g).options());
      for (const bool no_decay : {true, false}) {
        if (no_decay && o.no_decay_size() == 0) continue;
        Options options = to_options(merged_options);
        if (no_decay) {
          TN_ASSIGN(const tn_descriptor* d, catalog.find(TN_KIND_OPTIMIZER, o.id()));
          if (has_option(*d, "weight_decay")) options["weight_decay"] = 0.0;
        }
        auto plugin = OptimizerPlugin::create(catalog, o.id(), base, options);
        if (!plugin) return std::move(plugin).status().at(where);
        Group group;
        group.optimizer = static_cast<size_t>(k);
        group.name = base + "." + std::to_string(serial++);
        group.plugin = std::move(plugin).value();
        if (!rest) group.patterns = strings(o.group(g).params());
        group.no_decay = no_decay;
        group.options = std::move(options);
        group.lr_scale = rest ? 1 : o.group(g).lr_scale();
        group.skip_unused = !rest && o.group(g).skip_unused();
        out.groups_.push_back(std::move(group));
      }
    }
  }
  return out;
}

Result<size_t> Optimizers::variant(size_t base, double lr_scale, bool no_decay) {
  const Group& like = groups_[base];
  const double scale = like.lr_scale * lr_scale;
  const bool without = no_decay && has_option(like.plugin->instance().descriptor(), "weight_decay");
  if (scale == like.lr_scale && !without) return base;
  char suffix[48];
  std::snprintf(suffix, sizeof suffix, ".x%g%s", lr_scale, without ? ".no_decay" : "");
  const std::string name = like.name + suffix;
  for (size_t i = 0; i < groups_.size(); ++i)
    if (groups_[i].name == name) return i;
  Group made;
  made.optimizer = like.optimizer;
  made.name = name;
  made.lr_scale = scale;
  made.skip_unused = like.skip_unused;
  made.options = like.options;
  if (without) made.options["weight_decay"] = 0.0;
  const Settings& s = settings_[like.optimizer];
  auto plugin = OptimizerPlugin::create(*catalog_, like.plugin->instance().descriptor().id, s.name, made.options);
  if (!plugin) return std::move(plugin).status().at(s.where);
  made.plugin = std::move(plugin).value();
  groups_.push_back(std::move(made));
  return groups_.size() - 1;
}

Status Optimizers::bind(Runtime& runtime, std::vector<NamedParameter> parameters) {
  parameters_ = std::move(parameters);
  const size_t declared = groups_.size();
  for (const NamedParameter& p : parameters_) {
    const auto taker = [&](const auto& takes) {
      return static_cast<size_t>(std::find_if(settings_.begin(), settings_.end(), takes) - settings_.begin());
    };
    size_t optimizer = settings_.size();
    if (!p.optimizer.empty()) {
      optimizer = taker([&](const Settings& s) { return s.name == p.optimizer; });
      if (optimizer == settings_.size())
        return invalid("the parameter '" + p.name + "' wants the optimizer '" + p.optimizer + "', which the recipe does not have");
    }
    if (optimizer == settings_.size()) optimizer = taker([&](const Settings& s) { return matches(s.params, p.name); });
    if (optimizer == settings_.size()) optimizer = taker([](const Settings& s) { return s.params.empty(); });
    if (optimizer == settings_.size())
      return invalid("no optimizer takes the parameter '" + p.name + "'; give one without 'params', or freeze the model");
    const bool no_decay = matches(settings_[optimizer].no_decay, p.name);
    for (size_t i = 0; i < declared; ++i) {
      const Group& g = groups_[i];
      if (g.optimizer != optimizer || g.no_decay != no_decay || (!g.patterns.empty() && !matches(g.patterns, p.name))) continue;
      TN_ASSIGN(const size_t own, variant(i, p.lr_scale, p.no_decay));
      groups_[own].members.push_back(p);
      break;
    }
  }
  for (size_t k = 0; k < settings_.size(); ++k)
    for (const std::string& pattern : settings_[k].params)
      if (std::none_of(parameters_.begin(), parameters_.end(), [&](const NamedParameter& p) { return matches({pattern}, p.name); }))
        return invalid(settings_[k].where + ": the pattern '" + pattern + "' matches no parameter");
  std::erase_if(groups_, [](const Group& g) { return g.members.empty(); });
  for (Group& g : groups_) {
    g.all = g.members;
    TN_RETURN_IF_ERROR(place(runtime, g));
  }
  return Status::ok();
}

namespace {

// Calls f(parameter, name, array) for every slot of the tensors that hold `members`, cut to the parameter; and, with a
// null parameter, for the slots that are not per parameter.
template <class Members, class F>
Status each_slot(Instance& instance, const Members& members, const std::vector<std::vector<size_t>>& contents, F&& f) {
  for (const auto& [name, slot] : instance.slots()) {
    if (slot.kind != TN_SLOT_PER_PARAM) {
      TN_RETURN_IF_ERROR(f(nullptr, name, slot.values[0]));
      continue;
    }
    for (size_t k = 0; k < contents.size(); ++k) {
      int64_t at = 0;
      for (size_t i : contents[k]) {
        const nn::Parameter& p = *members[i].parameter;
        TN_RETURN_IF_ERROR(f(&p, name, slot.values[k].slice(at, p.value.shape())));
        at += p.value.shape().numel();
      }
    }
  }
  return Status::ok();
}

}  // namespace

Status Optimizers::train_only(Runtime& runtime, const std::function<bool(const NamedParameter&)>& trained, bool reset) {
  if (reset) parked_.clear();
  std::vector<NamedParameter> now;
  for (Group& g : groups_) {
    Instance& instance = g.plugin->instance();
    const auto key = [&](const std::string& slot) { return g.name + "/" + slot; };
    if (!reset)
      TN_RETURN_IF_ERROR(each_slot(instance, g.members, g.contents, [&](const nn::Parameter* p, const std::string& name, const Array& slot) -> Status {
        TN_ASSIGN(parked_[p][key(name)], slot.to_host());
        return Status::ok();
      }));
    g.members.clear();
    std::copy_if(g.all.begin(), g.all.end(), std::back_inserter(g.members), trained);
    now.insert(now.end(), g.members.begin(), g.members.end());
    g.tensors.clear(), g.tensor_names.clear(), g.contents.clear();
    instance.forget_slots();
    if (!g.members.empty()) TN_RETURN_IF_ERROR(place(runtime, g));
    if (reset) g.count = 0;
    TN_RETURN_IF_ERROR(each_slot(instance, g.members, g.contents, [&](const nn::Parameter* p, const std::string& name, Array slot) -> Status {
      const auto& known = parked_[p];
      const auto it = known.find(key(name));
      return it == known.end() ? Status::ok() : slot.assign(it->second);
    }));
  }
  parameters_ = std::move(now);
  return parameters_.empty() ? invalid("train_only leaves nothing to train") : Status::ok();
}

Status Optimizers::place(Runtime& runtime, Group& group) {
  group.flat = group.plugin->elementwise();
  if (group.flat) {
    std::vector<DType> dtypes;
    for (const NamedParameter& p : group.members)
      if (std::find(dtypes.begin(), dtypes.end(), p.parameter->value.dtype()) == dtypes.end())
        dtypes.push_back(p.parameter->value.dtype());
    for (DType t : dtypes) {
      std::vector<size_t> inside;
      int64_t total = 0;
      for (size_t i = 0; i < group.members.size(); ++i)
        if (group.members[i].parameter->value.dtype() == t) {
          inside.push_back(i);
          total += group.members[i].parameter->value.shape().numel();
        }
      TN_ASSIGN(Array flat, Array::allocate(runtime.backend(), t, Shape{total}));
      int64_t at = 0;
      for (size_t i : inside) {
        Array& value = group.members[i].parameter->value;
        Array slice = flat.slice(at, value.shape());
        TN_RETURN_IF_ERROR(runtime.backend().copy(slice.data(), value.data(), value.size_bytes()));
        at += value.shape().numel();
        value = slice;
      }
      group.tensors.push_back(flat);
      group.tensor_names.push_back(group.name);
      group.contents.push_back(std::move(inside));
    }
  } else {
    for (size_t i = 0; i < group.members.size(); ++i) {
      group.tensors.push_back(group.members[i].parameter->value);
      group.tensor_names.push_back(group.members[i].name);
      group.contents.push_back({i});
    }
  }
  Graph graph(runtime);
  return group.plugin->init(graph, group.tensor_names, group.tensors);
}

bool Optimizers::wants_objectives() const {
  return std::any_of(groups_.begin(), groups_.end(), [](const Group& g) { return g.plugin->wants_objectives(); });
}
bool Optimizers::wants_closure() const {
  return std::any_of(groups_.begin(), groups_.end(), [](const Group& g) { return g.plugin->wants_closure(); });
}
bool Optimizers::wants_gradients() const {
  return std::any_of(groups_.begin(), groups_.end(), [](const Group& g) { return !g.plugin->wants_closure(); });
}

double Optimizers::learning_rate(int64_t step, int64_t total) const {
  if (groups_.empty()) return 0;
  const Group& g = groups_[0];
  return g.plugin->learning_rate() * g.lr_scale * settings_[g.optimizer].schedule.factor(step, total);
}

// Gradient clipping as torch.nn.utils does it: by value, or by the joint 2-norm, min(1, c / (norm + 1e-6)).
std::vector<Tensor> Optimizers::clipped(size_t optimizer, Graph& graph, std::vector<Tensor> grads) const {
  const Settings& s = settings_[optimizer];
  if (s.clip_value > 0)
    for (Tensor& t : grads) {
      const Tensor limit = scalar_like(t, s.clip_value);
      t = maximum(minimum(t, limit), neg(limit));
    }
  if (s.clip_norm <= 0) return grads;
  Tensor total;
  for (const Tensor& t : grads) {
    const Tensor one = cast(sum(square(t)), DType::f32);
    total = total.valid() ? total + one : one;
  }
  if (!total.valid()) return grads;
  const Tensor factor = minimum(graph.scalar(s.clip_norm) / (sqrt(total) + 1e-6), graph.scalar(1));
  for (Tensor& t : grads) t = t * cast(factor, t.dtype());
  return grads;
}

void Optimizers::keep_unused(Graph& graph, Group& group, std::span<const Tensor> params, std::span<const Tensor> grads, std::vector<Update>& slots) {
  for (size_t k = 0; k < group.contents.size(); ++k) {
    const auto is_used = [](Tensor g) { return any(not_equal(g, zeros_like(g))); };
    Tensor used;  // of the whole tensor, or of each element of the parameters that are joined in it
    if (group.flat) {
      std::vector<Tensor> parts;
      int64_t at = 0;
      for (const size_t i : group.contents[k]) {
        const int64_t n = group.members[i].parameter->value.shape().numel();
        parts.push_back(broadcast_to(is_used(slice(grads[k], {at}, {at + n})), Shape{n}));
        at += n;
      }
      used = parts.size() == 1 ? parts[0] : concat(parts, 0);
    } else {
      used = is_used(grads[k]);
    }
    group.next[k] = where(used, group.next[k], params[k]);
    for (const auto& [name, slot] : group.plugin->instance().slots()) {
      if (slot.kind != TN_SLOT_PER_PARAM) continue;
      for (Update& u : slots)
        if (u.target.data() == slot.values[k].data()) u.value = where(used, u.value, graph.input(u.target));
    }
  }
}

Result<Optimizers::Appended> Optimizers::append(Graph& graph, const CallInfo& info, const Gradients& gradients) {
  Appended appended;
  // A group's tensors hold one gradient (or more, flattened and joined).
  const auto gather = [&](const Group& g, const std::map<const nn::Parameter*, Tensor>& of) {
    std::vector<Tensor> out;
    for (const auto& inside : g.contents) {
      std::vector<Tensor> parts;
      for (size_t i : inside) {
        const auto it = of.find(g.members[i].parameter.get());
        const Array& value = g.members[i].parameter->value;
        const Tensor grad = it != of.end() ? it->second : zeros(graph, value.shape(), value.dtype());
        parts.push_back(g.flat ? reshape(grad, Shape{value.shape().numel()}) : grad);
      }
      out.push_back(parts.size() == 1 ? parts[0] : concat(parts, 0));
    }
    return out;
  };
  // Clipping is joint over all groups of an optimizer.
  std::vector<std::vector<Tensor>> grads(groups_.size());
  for (size_t k = 0; k < settings_.size(); ++k) {
    std::vector<Tensor> all;
    for (size_t i = 0; i < groups_.size(); ++i)
      if (groups_[i].optimizer == k && !groups_[i].plugin->wants_closure()) {
        grads[i] = gather(groups_[i], gradients.of);
        all.insert(all.end(), grads[i].begin(), grads[i].end());
      }
    if (!graph.status().is_ok()) return graph.status();
    all = clipped(k, graph, std::move(all));
    size_t at = 0;
    for (size_t i = 0; i < groups_.size(); ++i)
      if (groups_[i].optimizer == k)
        for (Tensor& t : grads[i]) t = all[at++];
  }
  for (size_t i = 0; i < groups_.size(); ++i) {
    Group& g = groups_[i];
    if (g.members.empty()) continue;
    std::vector<Tensor> params;
    for (const Array& a : g.tensors) params.push_back(graph.input(a));
    CallInfo here = info;
    here.lr = g.plugin->learning_rate() * g.lr_scale * settings_[g.optimizer].schedule.factor(info.step, info.total_steps);
    OptimizerPlugin::Step step{.names = g.tensor_names, .params = params, .grads = grads[i], .count = g.count + 1, .loss = gradients.loss};
    ClosureService closure;
    if (g.plugin->wants_closure() && gradients.closure) {
      std::vector<nn::ParameterPtr> members;
      for (const NamedParameter& p : g.members) members.push_back(p.parameter);
      closure = gradients.closure(members);
      step.closure = &closure;
    }
    Objectives objectives;
    if (g.plugin->wants_objectives()) {
      for (const Gradients::Objective& o : gradients.objectives) {
        objectives.names.push_back(o.name);
        objectives.values.push_back(o.value);
        objectives.grads.push_back(gather(g, o.grads));
        objectives.weights.push_back(o.weight);
      }
      step.objectives = &objectives;
    }
    TN_ASSIGN(auto result, g.plugin->step(graph, here, step));
    g.next = std::move(result.params);
    std::vector<Update> slots = g.plugin->instance().take_updates();
    if (g.skip_unused && !g.plugin->wants_closure()) keep_unused(graph, g, params, grads[i], slots);
    for (Update& u : slots) appended.updates.push_back(std::move(u));
    appended.metrics.insert(appended.metrics.end(), result.metrics.begin(), result.metrics.end());
    for (NamedTensor& check : result.emitted.checks(g.plugin->instance().who())) appended.checks.push_back(std::move(check));
  }
  return appended;
}

Tensor Optimizers::next_value(const nn::Parameter& p) const {
  for (const Group& g : groups_)
    for (size_t k = 0; k < g.next.size(); ++k) {
      int64_t at = 0;
      for (size_t i : g.contents[k]) {
        const nn::Parameter& member = *g.members[i].parameter;
        const int64_t n = member.value.shape().numel();
        if (&member == &p) return g.flat ? reshape(slice(g.next[k], {at}, {at + n}), p.value.shape()) : g.next[k];
        at += n;
      }
    }
  return {};
}

void Optimizers::take_next_values(const std::map<nn::ParameterPtr, Tensor>& assigned, std::vector<Update>& updates) {
  std::map<nn::ParameterPtr, Tensor> others = assigned;
  for (Group& g : groups_) {
    for (size_t k = 0; k < g.next.size(); ++k) {
      const auto is_assigned = [&](size_t i) { return assigned.contains(g.members[i].parameter); };
      Tensor value = g.next[k];
      if (std::any_of(g.contents[k].begin(), g.contents[k].end(), is_assigned)) {
        std::vector<Tensor> parts;
        for (size_t i : g.contents[k]) {
          const nn::ParameterPtr& p = g.members[i].parameter;
          const Tensor t = is_assigned(i) ? assigned.at(p) : next_value(*p);
          parts.push_back(g.flat ? reshape(t, Shape{p->value.shape().numel()}) : t);
          others.erase(p);
        }
        value = parts.size() == 1 ? parts[0] : concat(parts, 0);
      }
      updates.push_back({g.tensors[k], value});
    }
    g.next.clear();
  }
  for (const auto& [p, value] : others) updates.push_back({p->value, value});  // frozen ones
}

void Optimizers::advance() {
  for (Group& g : groups_)
    if (!g.members.empty()) ++g.count;
}

std::vector<std::pair<std::string, Array>> Optimizers::saved_slots() const {
  std::vector<std::pair<std::string, Array>> out;
  for (const Group& g : groups_)
    for (auto& [name, array] : g.plugin->instance().saved_slots()) out.emplace_back(g.name + "/" + name, array);
  return out;
}

std::map<std::string, int64_t> Optimizers::counts() const {
  std::map<std::string, int64_t> out;
  for (const Group& g : groups_) out[g.name] = g.count;
  return out;
}

void Optimizers::set_counts(const std::map<std::string, int64_t>& counts) {
  for (Group& g : groups_)
    if (const auto it = counts.find(g.name); it != counts.end()) g.count = it->second;
}

std::vector<Instance*> Optimizers::instances() const {
  std::vector<Instance*> out;
  for (const Group& g : groups_) out.push_back(&g.plugin->instance());
  return out;
}

}  // namespace tenon
