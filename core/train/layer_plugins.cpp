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

template <class Patterns>
bool matches(const Patterns& patterns, const std::string& name) {
  return std::any_of(patterns.begin(), patterns.end(), [&](const std::string& pattern) {
    return std::regex_search(name, std::regex(pattern), std::regex_constants::match_continuous);
  });
}

// The layers that hold a product: what is quantised.
void collect_products(const nn::ModulePtr& m, std::vector<nn::Module*>& out) {
  if (m->type() == "linear" || m->type() == "conv1d" || m->type() == "conv2d") out.push_back(m.get());
  for (const nn::ModulePtr& child : m->children()) collect_products(child, out);
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
  info.replay = info.replay || ctx.repeated;
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
  for (int i = 0; i < recipe.proto.quantizer_size(); ++i) {
    const proto::Quantizer& q = recipe.proto.quantizer(i);
    if (auto one = Instance::create(catalog, TN_KIND_QUANTIZER, q.id(), q.id(), to_options(q.options())); !one)
      return std::move(one).status().at(place_of(recipe, "quantizer", recipe.proto.quantizer_size(), i));
  }
  return Status::ok();
}

Status LayerPlugins::attach(Runtime& runtime, Catalog& catalog, const Recipe& recipe, const std::string& model, RecipeModel& built) {
  const int n = recipe.proto.parametrization_size();
  taken_.resize(static_cast<size_t>(n));
  for (const nn::ParameterPtr& p : built.model.parameters) {
    if (p->effective) continue;  // shared with a model before
    for (int i = 0; i < n; ++i)
      if (matches(recipe.proto.parametrization(i).params(), model + "." + p->name)) {
        taken_[static_cast<size_t>(i)] = true;
        if (Status s = parametrize(runtime, catalog, recipe, i, model, p); !s.is_ok())
          return std::move(s).at(place_of(recipe, "parametrization", n, i));
        break;
      }
  }
  for (int i = 0; i < recipe.proto.quantizer_size(); ++i)
    if (Status s = quantize_model(runtime, catalog, recipe.proto.quantizer(i), model, built.model); !s.is_ok())
      return std::move(s).at(place_of(recipe, "quantizer", recipe.proto.quantizer_size(), i));
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
  Instance*& shared = shared_[index];
  Instance* plugin = said.shared() ? shared : nullptr;
  if (!plugin) {
    const std::string weight = model + "." + p->name, name = said.shared() ? said.id() : weight + "." + said.id();
    TN_ASSIGN(auto instance, Instance::create(catalog, TN_KIND_PARAMETRIZATION, said.id(), name, to_options(said.options())));
    plugin = shared = instance.get();
    placed_.push_back({"parametrization/" + (said.shared() ? name : weight), std::move(instance)});
  }
  Graph graph(runtime);
  CallInfo info = *info_;
  info.key = split_key(static_cast<uint64_t>(recipe.proto.seed()), plugin->name());
  TN_ASSIGN(const Tensor start, init_parametrization(*plugin, graph, info, graph.input(p->value)));
  if (start.valid()) {
    TN_ASSIGN(const HostArray value, graph.to_host(start));
    TN_RETURN_IF_ERROR(p->value.assign(value));
  }
  p->effective = [run = info_, plugin, place = p->name](nn::Context& ctx, Tensor stored) -> Tensor {
    auto w = effective_weight(*plugin, ctx.graph(), here(*run, ctx, plugin->name() + place), stored);
    if (!w) {
      ctx.graph().fail(w.status());
      return {};
    }
    note(ctx, *plugin, w->emitted);
    return w->weight;
  };
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

Result<LayerPlugins::Site*> LayerPlugins::add_site(Catalog& catalog, const proto::Quantizer& said, const std::string& model, QuantSite place) {
  TN_ASSIGN(auto instance, Instance::create(catalog, TN_KIND_QUANTIZER, said.id(), place.name + "." + said.id(), to_options(said.options())));
  auto site = std::make_unique<Site>();
  site->model = model;
  site->instance = instance.get();
  TN_ASSIGN(site->choices, quantizer_choices(*instance, place));
  site->choice = site->choices.empty() ? 0 : static_cast<int64_t>(site->choices.size()) - 1;
  placed_.push_back({"quantizer/" + place.name, std::move(instance)});
  site->place = std::move(place);
  sites_.push_back(std::move(site));
  return sites_.back().get();
}

Status LayerPlugins::quantize_model(Runtime& runtime, Catalog& catalog, const proto::Quantizer& said, const std::string& model, const nn::Model& built) {
  std::vector<nn::Module*> layers;
  collect_products(built.root, layers);
  std::erase_if(layers, [&](nn::Module* m) { return m->on_input || (said.layers_size() > 0 && !matches(said.layers(), model + "." + m->name())); });
  if (layers.empty()) return invalid("'layers' matches no linear or convolution layer of the model '" + model + "'");
  const auto count = static_cast<uint32_t>(layers.size() * (said.activations() ? 2 : 1));
  uint32_t index = 0;
  for (nn::Module* m : layers) {
    const uint32_t ends = (m == layers.front() ? TN_SITE_FIRST : 0u) | (m == layers.back() ? TN_SITE_LAST : 0u);
    const auto quantised = [run = info_](nn::Context& ctx, Site& s, Tensor x) -> Tensor {
      const CallInfo info = here(*run, ctx, s.instance->name());
      // The first tensor is for calibration, and passes as it is: what follows sees inputs of full precision, too.
      if (!s.instance->initialised()) {
        QuantSite calibrated = s.place;
        calibrated.flags |= TN_SITE_CALIBRATE;
        if (Status st = init_quantizer(*s.instance, ctx.graph(), info, calibrated, x); !st.is_ok()) ctx.graph().fail(std::move(st));
        return x;
      }
      auto q = quantize(*s.instance, ctx.graph(), info, s.place, s.choice, x);
      if (!q) {
        ctx.graph().fail(q.status());
        return {};
      }
      note(ctx, *s.instance, q->emitted);
      return q->y;
    };
    for (const nn::ParameterPtr& p : m->parameters()) {
      if (p->kind != nn::Kind::weight || p->name != (m->name().empty() ? "weight" : m->name() + ".weight")) continue;
      TN_ASSIGN(Site * site, add_site(catalog, said, model, {.name = model + "." + p->name, .flags = TN_SITE_WEIGHT | ends, .index = index++, .count = count}));
      Graph graph(runtime);
      TN_RETURN_IF_ERROR(init_quantizer(*site->instance, graph, *info_, site->place, graph.input(p->value)));
      p->effective = [quantised, site, before = p->effective](nn::Context& ctx, Tensor stored) -> Tensor {
        const Tensor w = before ? before(ctx, stored) : stored;
        return w.valid() ? quantised(ctx, *site, w) : w;
      };
    }
    if (!said.activations()) continue;
    TN_ASSIGN(Site * site, add_site(catalog, said, model, {.name = model + "." + m->name() + ".input", .flags = TN_SITE_ACTIVATION | ends, .index = index++, .count = count}));
    m->on_input = [quantised, site](nn::Context& ctx, Tensor x) { return quantised(ctx, *site, x); };
  }
  return Status::ok();
}

std::vector<LayerPlugins::Site*> LayerPlugins::sites(const std::string& model) const {
  std::vector<Site*> out;
  for (const auto& s : sites_)
    if (s->model == model) out.push_back(s.get());
  return out;
}

Status LayerPlugins::configure(const std::string& model, const std::vector<int64_t>& choices) {
  const std::vector<Site*> own = sites(model);
  if (own.size() != choices.size())
    return invalid("the model '" + model + "' has " + std::to_string(own.size()) + " quantised sites, " + std::to_string(choices.size()) + " choices were given");
  for (size_t i = 0; i < own.size(); ++i)
    if (choices[i] < 0 || choices[i] >= std::max<int64_t>(1, static_cast<int64_t>(own[i]->choices.size())))
      return invalid("'" + own[i]->place.name + "' has " + std::to_string(own[i]->choices.size()) + " forms, there is no number " + std::to_string(choices[i]));
  for (size_t i = 0; i < own.size(); ++i) own[i]->choice = choices[i];
  return Status::ok();
}

Result<std::vector<int64_t>> LayerPlugins::sample(const std::string& model, uint64_t key, int32_t which) const {
  const std::vector<Site*> own = sites(model);
  if (own.empty()) return std::vector<int64_t>{};
  TN_ASSIGN(std::vector<int64_t> out, sample_choices(*own[0]->instance, key, which, static_cast<uint32_t>(own.size())));
  if (!out.empty()) return out;
  for (size_t i = 0; i < own.size(); ++i) {
    const auto n = static_cast<int64_t>(std::max<size_t>(1, own[i]->choices.size()));
    const auto draw = static_cast<int64_t>(split_key(key, static_cast<uint64_t>(i)) % static_cast<uint64_t>(n));
    out.push_back(which == 1 ? 0 : which == 2 ? n - 1 : draw);
  }
  return out;
}

void LayerPlugins::begin(const CallInfo& info, bool replay) {
  *info_ = info;
  info_->replay = replay;
}

std::vector<std::pair<std::string, Instance*>> LayerPlugins::named() const {
  std::vector<std::pair<std::string, Instance*>> out;
  for (const Placed& p : placed_) out.emplace_back(p.name, p.instance.get());
  return out;
}

std::vector<Instance*> LayerPlugins::instances() const {
  std::vector<Instance*> out;
  for (const Placed& p : placed_) out.push_back(p.instance.get());
  return out;
}

}  // namespace tenon
