#include "core/train/layer_plugins.h"

#include <algorithm>
#include <regex>

#include "core/base/random.h"
#include "core/ops/index.h"
#include "core/plugin/parametrization.h"
#include "core/plugin/router.h"

namespace tenon {
namespace {

std::string place_of(const Recipe& recipe, const char* field, int count, int i) {
  return recipe.where(count > 1 ? std::string(field) + "[" + std::to_string(i) + "]" : field);
}

bool matches(const proto::Parametrization& p, const std::string& name) {
  return std::any_of(p.params().begin(), p.params().end(), [&](const std::string& pattern) {
    return std::regex_search(name, std::regex(pattern), std::regex_constants::match_continuous);
  });
}

// What the plugin emitted beside its result, for the step that the context belongs to.
void note(nn::Context& ctx, const Instance& instance, const Emissions& emitted) {
  for (const Emitted& e : emitted.tensors) {
    const std::string name = instance.name() + "/" + e.name;
    if (e.as == TN_OUT_LOSS || e.as == TN_OUT_PART) ctx.penalties.push_back({name, e.value});
    if (e.as == TN_OUT_METRIC) ctx.metrics.push_back({name, e.value});
  }
  for (NamedTensor& check : emitted.checks(instance.who())) ctx.checks.push_back({std::move(check.name), check.value});
}

// The place in the run as a plugin of this model sees it.
CallInfo here(const CallInfo& run, const nn::Context& ctx, const std::string& name) {
  CallInfo info = run;
  info.train = ctx.train();
  info.key = split_key(run.key, name);
  return info;
}

bool has_option(const Instance& instance, std::string_view name) {
  const auto& attrs = instance.options().attrs();
  return std::any_of(attrs.begin(), attrs.end(), [&](const tn_attr& a) { return name == a.name; });
}

}  // namespace

Status LayerPlugins::check(Catalog& catalog, const Recipe& recipe) {
  for (int i = 0; i < recipe.proto.parametrization_size(); ++i) {
    const proto::Parametrization& p = recipe.proto.parametrization(i);
    const std::string where = place_of(recipe, "parametrization", recipe.proto.parametrization_size(), i);
    if (p.params().empty()) return invalid(where + ": a parametrization needs 'params', patterns of the weights that it takes");
    if (auto one = Instance::create(catalog, TN_KIND_PARAMETRIZATION, p.id(), p.id(), to_options(p.options())); !one)
      return std::move(one).status().at(where);
  }
  return Status::ok();
}

Status LayerPlugins::attach(Runtime& runtime, Catalog& catalog, const Recipe& recipe, const std::string& model, RecipeModel& built) {
  const int n = recipe.proto.parametrization_size();
  taken_.resize(static_cast<size_t>(n));
  for (const nn::ParameterPtr& p : built.model.parameters) {
    if (p->effective) continue;  // shared with a model before
    for (int i = 0; i < n; ++i)
      if (matches(recipe.proto.parametrization(i), model + "." + p->name)) {
        taken_[static_cast<size_t>(i)] = true;
        if (Status s = parametrize(runtime, catalog, recipe, i, model, p); !s.is_ok())
          return std::move(s).at(place_of(recipe, "parametrization", n, i));
        break;
      }
  }
  for (const RouterUse& use : built.routers)
    if (use.router.id() != "softmax_topk") TN_RETURN_IF_ERROR(give_router(catalog, recipe, model, use));
  return Status::ok();
}

Status LayerPlugins::check_patterns(const Recipe& recipe) const {
  for (size_t i = 0; i < taken_.size(); ++i)
    if (!taken_[i])
      return invalid(place_of(recipe, "parametrization", static_cast<int>(taken_.size()), static_cast<int>(i)) +
                     ": 'params' matches no parameter of a model");
  return Status::ok();
}

Status LayerPlugins::parametrize(Runtime& runtime, Catalog& catalog, const Recipe& recipe, int index, const std::string& model,
                                 const nn::ParameterPtr& p) {
  const proto::Parametrization& said = recipe.proto.parametrization(index);
  const std::string full = model + "." + p->name;
  TN_ASSIGN(auto instance, Instance::create(catalog, TN_KIND_PARAMETRIZATION, said.id(), full + "." + said.id(), to_options(said.options())));
  Graph graph(runtime);
  CallInfo info = *info_;
  info.key = split_key(static_cast<uint64_t>(recipe.proto.seed()), instance->name());
  TN_ASSIGN(const Tensor start, init_parametrization(*instance, graph, info, graph.input(p->value)));
  if (start.valid()) {
    TN_ASSIGN(const HostArray value, graph.to_host(start));
    TN_RETURN_IF_ERROR(p->value.assign(value));
  }
  p->effective = [run = info_, plugin = instance.get()](nn::Context& ctx, Tensor stored) -> Tensor {
    auto w = effective_weight(*plugin, ctx.graph(), here(*run, ctx, plugin->name()), stored);
    if (!w) {
      ctx.graph().fail(w.status());
      return {};
    }
    note(ctx, *plugin, w->emitted);
    return w->weight;
  };
  placed_.push_back({"parametrization/" + full, std::move(instance)});
  return Status::ok();
}

Status LayerPlugins::give_router(Catalog& catalog, const Recipe& recipe, const std::string& model, const RouterUse& use) {
  const std::string name = model + (use.layer.empty() ? "" : "." + use.layer);
  const std::string where = recipe.where("model");
  Options options = to_options(use.router.options());
  if (Status s = catalog.check_id(TN_KIND_ROUTER, use.router.id(), "softmax_topk"); !s.is_ok()) return std::move(s).at(where + ": router of '" + name + "'");
  auto made = Instance::create(catalog, TN_KIND_ROUTER, use.router.id(), name, options);
  if (!made) return std::move(made).status().at(where + ": router of '" + name + "'");
  if (!options.contains("top_k") && has_option(**made, "top_k")) {  // the layer knows
    options["top_k"] = use.top_k;
    made = Instance::create(catalog, TN_KIND_ROUTER, use.router.id(), name, options);
    if (!made) return std::move(made).status().at(where + ": router of '" + name + "'");
  }
  std::unique_ptr<Instance> instance = std::move(made).value();
  use.slot->route = [run = info_, plugin = instance.get()](nn::Context& ctx, Tensor logits, int64_t k) -> nn::Routing {
    auto r = route_tokens(*plugin, ctx.graph(), here(*run, ctx, plugin->name()), logits, k);
    if (!r) {
      ctx.graph().fail(r.status());
      return {};
    }
    note(ctx, *plugin, r->emitted);
    return {r->indices, r->gates};
  };
  placed_.push_back({"router/" + name, std::move(instance)});
  return Status::ok();
}

void LayerPlugins::begin(const CallInfo& info, bool replay) {
  *info_ = info;
  info_->replay = replay;
}

std::vector<std::pair<std::string, Instance*>> LayerPlugins::instances() const {
  std::vector<std::pair<std::string, Instance*>> out;
  for (const Placed& p : placed_) out.emplace_back(p.name, p.instance.get());
  return out;
}

}  // namespace tenon
