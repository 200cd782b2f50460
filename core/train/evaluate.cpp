// Evaluation and prediction on a part of the data.
#include <algorithm>

#include "core/train/experiment.h"

namespace tenon {
namespace {

// A mean over batches, weighted by their rows.
struct Mean {
  double sum = 0, weight = 0;
  void add(double value, int64_t rows) {
    sum += value * static_cast<double>(rows);
    weight += static_cast<double>(rows);
  }
  double value() const { return sum / weight; }
};

// What one batch is asked for: tensors, each evaluated once, and where each ended up.
struct Wanted {
  std::vector<Tensor> tensors;
  std::map<std::string, size_t> sources;
  size_t add(Tensor t) {
    tensors.push_back(t);
    return tensors.size() - 1;
  }
};

}  // namespace

bool Experiment::has_split(const std::string& split) const {
  return std::any_of(streams_.begin(), streams_.end(), [&](const DataStream& s) { return s.part(split) != nullptr; });
}

Result<Experiment::SplitBatchers> Experiment::split_batchers(const std::string& split, int64_t max_batches) const {
  if (!has_split(split))
    return not_found("the recipe's data has no part '" + split + "' (give it " + split + "_files or " + split + "_split)");
  SplitBatchers out(streams_.size());
  for (size_t i = 0; i < streams_.size(); ++i)
    if (const DatasetPtr part = streams_[i].part(split)) {
      TN_ASSIGN(out[i], eval_batcher(recipe_, static_cast<int>(i), streams_[i], part, max_batches));
    }
  return out;
}

Result<Experiment::SplitBatch> Experiment::split_batch(SplitBatchers& batchers, int64_t b) const {
  SplitBatch out;
  for (size_t i = 0; i < streams_.size(); ++i) {
    const std::string& name = streams_[i].name;
    if (!batchers[i] || b >= batchers[i]->steps_per_epoch()) {
      out.absent.insert(name);
      continue;
    }
    TN_ASSIGN(out.columns[name], batchers[i]->make(b));
    out.rows[name] = batchers[i]->batch_rows(b);
    TN_ASSIGN(out.batch, upload(streams_[i], out.columns[name], i == 0, std::move(out.batch)));
  }
  return out;
}

namespace {

int64_t longest(const std::vector<std::unique_ptr<Batcher>>& batchers) {
  int64_t n = 0;
  for (const auto& b : batchers)
    if (b) n = std::max(n, b->steps_per_epoch());
  return n;
}

}  // namespace

Result<MetricValues> Experiment::evaluate(const std::string& split, int64_t step, int64_t max_batches) {
  TN_ASSIGN(auto batchers, split_batchers(split, max_batches));
  for (MetricUse& m : metrics_) m.metric->reset();
  std::map<const LossTerm*, Mean> losses;
  std::map<const LossTerm*, double> weights;
  std::map<std::string, Mean> reported;
  std::set<std::string> measured;  // metrics that some batch had the data for
  Graph graph(*runtime_);
  CallInfo info = training_info(step);
  info.train = false;

  const auto attacked_output = [](const MetricUse& m) { return "attack of metric " + m.name; };
  const auto source_of = [&](const MetricUse& m, const std::string& role) {
    if (m.attack && role == "outputs") return attacked_output(m);
    if (const auto it = m.bind.find(role); it != m.bind.end()) return it->second;
    return role == "labels" ? std::string("y") : main_model() + (role == "load" ? ".load" : ".output");
  };
  const auto roles_of = [](const MetricUse& m) {
    std::vector<std::string> roles;
    for (const char* role : {"outputs", "labels", "load"})
      if (m.roles.find(role) != std::string::npos) roles.emplace_back(role);
    if (m.roles == "values")
      for (const auto& [role, source] : m.bind) roles.push_back(role);
    return roles;
  };

  for (int64_t b = 0; b < longest(batchers); ++b) {
    TN_ASSIGN(const SplitBatch data, split_batch(batchers, b));
    graph.reset();
    objective_.begin(data.batch, info, data.absent);
    TN_ASSIGN(Pass * pass, objective_.forward(graph));
    TN_ASSIGN(const ObjectiveValue value, objective_.evaluate(graph, *pass));
    const auto rows_of = [&](const std::string& source) { return data.rows.at(objective_.stream_of(source)); };
    const auto term_rows = [&](const LossTerm& t) { return data.rows.at(t.stream.empty() ? streams_[0].name : t.stream); };

    // One evaluation for the losses, what they report, and what the metrics read.
    Wanted wanted;
    std::vector<std::pair<NamedTensor, size_t>> checks;
    for (const ObjectiveValue::Term& t : value.terms) {
      wanted.add(t.report);
      for (const NamedTensor& p : t.parts) wanted.add(p.value);
      for (const NamedTensor& check : t.checks) checks.emplace_back(check, wanted.add(check.value));
    }
    for (const ObjectiveValue::Layers& said : value.layers) {
      for (const NamedTensor& p : said.parts) wanted.add(p.value);
      for (const NamedTensor& check : said.checks) checks.emplace_back(check, wanted.add(check.value));
    }
    const size_t total = value.terms.empty() ? 0 : wanted.add(value.report);
    std::vector<MetricUse*> measurable;
    for (MetricUse& m : metrics_) {
      const auto roles = roles_of(m);
      if (std::any_of(roles.begin(), roles.end(), [&](const std::string& r) { return objective_.is_absent(*pass, source_of(m, r)); }) ||
          (roles.empty() && value.terms.empty()))
        continue;
      measurable.push_back(&m);
      if (m.attack && !value.terms.empty()) {
        LossTerm& against = objective_.losses[0];
        auto a = objective_.attacked(graph, *pass, against, *m.attack);
        if (!a) return std::move(a).status().at("metric '" + m.name + "'");
        wanted.sources[attacked_output(m)] = wanted.add(a->output);
      }
      for (const std::string& role : roles)
        if (const std::string source = source_of(m, role); !wanted.sources.contains(source)) {
          TN_ASSIGN(const Tensor t, objective_.resolve(graph, *pass, source));
          wanted.sources[source] = wanted.add(t);
        }
    }
    TN_ASSIGN(const auto arrays, graph.eval(wanted.tensors));
    for (const auto& [check, place] : checks) TN_RETURN_IF_ERROR(verify({&check, 1}, {&arrays[place], 1}));
    std::vector<HostArray> host;
    for (const Array& a : arrays) {
      TN_ASSIGN(HostArray h, a.to_host());
      host.push_back(std::move(h));
    }

    size_t at = 0;
    for (const ObjectiveValue::Term& t : value.terms) {
      const int64_t rows = term_rows(*t.of);
      losses[t.of].add(host[at++].at(0), rows);
      weights[t.of] = t.weight;
      for (const NamedTensor& p : t.parts) reported[p.name].add(host[at++].at(0), rows);
      at += t.checks.size();
      for (const auto& [name, number] : t.numbers) reported[name].add(number, rows);
    }
    for (const ObjectiveValue::Layers& said : value.layers) {
      for (const NamedTensor& p : said.parts) reported[p.name].add(host[at++].at(0), rows_of(said.model + ".output"));
      at += said.checks.size();
    }
    for (MetricUse* m : measurable) {
      RoleArrays roles;
      if (!value.terms.empty()) roles["loss"] = &host[total];
      int64_t count = data.rows.begin()->second;
      for (const std::string& role : roles_of(*m)) {
        roles[role] = &host[wanted.sources.at(source_of(*m, role))];
        count = rows_of(source_of(*m, role));
      }
      if (Status s = m->metric->update(roles, count); !s.is_ok()) return std::move(s).at("metric '" + m->name + "'");
      measured.insert(m->name);
    }
    objective_.end();
    for (Instance* plugin : objective_.instances()) plugin->forget_step();
  }

  MetricValues out;
  for (const auto& [term, mean] : losses) out[split + "/loss"] += weights[term] * mean.value();
  for (const auto& [name, mean] : reported) out[split + "/" + name] = mean.value();
  for (const MetricUse& m : metrics_) {
    if (!measured.contains(m.name)) continue;
    auto v = m.metric->value();
    if (!v) return std::move(v).status().at("metric '" + m.name + "' on " + split);
    out[split + "/" + m.name] = *v;
  }
  return out;
}

Status Experiment::predict(const std::string& split, const std::function<Status(const Columns&, const HostArray&)>& sink,
                           const std::string& model) {
  const std::string& name = model.empty() ? main_model() : model;
  if (std::none_of(objective_.models.begin(), objective_.models.end(), [&](const TrainedModel& m) { return m.name == name; }))
    return not_found("no model '" + name + "'");
  TN_ASSIGN(auto batchers, split_batchers(split, 0));
  const std::string source = name + ".output";
  Graph graph(*runtime_);
  CallInfo info = training_info(0);
  info.train = false;
  for (int64_t b = 0; b < longest(batchers); ++b) {
    TN_ASSIGN(const SplitBatch data, split_batch(batchers, b));
    graph.reset();
    objective_.begin(data.batch, info, data.absent);
    TN_ASSIGN(Pass * pass, objective_.forward(graph));
    if (objective_.is_absent(*pass, source)) continue;
    TN_ASSIGN(const HostArray output, graph.to_host(pass->outputs.at(name)));
    TN_RETURN_IF_ERROR(sink(data.columns.at(objective_.stream_of(source)), output));
    objective_.end();
  }
  return Status::ok();
}

}  // namespace tenon
