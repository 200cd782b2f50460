// The run as a procedure plugin sees it: sessions on the recipe's models, its data, its own training steps.
#include "core/plugin/procedure.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "core/base/nearest.h"
#include "core/base/random.h"
#include "core/train/fit.h"
#include "core/train/run_folder.h"
#include "core/train/step.h"

namespace tenon {
namespace {

class ProcedureRun final : public RunService {
 public:
  ProcedureRun(Experiment& e, RunFolder* folder, Observer& observer, int64_t first)
      : RunService(e.catalog()), e_(e), folder_(folder), observer_(observer), step_(first), steps_graph_(e.runtime()), graph_(e.runtime()) {}

  ~ProcedureRun() override {
    if (folder_) folder_->made_plugins().clear();
  }

  int64_t step() const { return step_; }
  const MetricValues& reported() const { return reported_; }
  // Whether a checkpoint holds all there is: the plugins that the procedure made are gone when it has returned.
  bool is_saved() const { return is_saved_; }

  // --- other plugins ---
  Result<HeldPlugin*> of_recipe(const std::string& kind, const std::string& name) override {
    const proto::Recipe& r = e_.recipe().proto;
    if (kind == TN_KIND_OPTIMIZER) {
      for (const proto::Optimizer& o : r.optimizer())
        if (name.empty() ? r.optimizer_size() == 1 : name == (o.has_name() ? o.name() : o.id())) return create(kind, o.id(), to_options(o.options()));
      return not_found("the recipe has no " + (name.empty() ? "single optimizer" : "optimizer '" + name + "'"));
    }
    std::vector<std::string> names;
    std::vector<Instance*> found;
    for (const auto& [full, instance] : e_.objective().plugins()) {
      if (instance->descriptor().kind != kind) continue;
      names.push_back(instance->name());
      if (name.empty() || name == instance->name()) found.push_back(instance);
    }
    if (found.size() != 1)
      return not_found(name.empty() ? "the recipe has " + std::to_string(found.size()) + " plugins of kind " + kind + "; give the name of one"
                                    : "the recipe has no " + short_kind(kind) + " '" + name + "'" + did_you_mean(name, names));
    auto held = std::make_unique<HeldPlugin>();
    held->instance = found[0];
    held_.push_back(std::move(held));
    return held_.back().get();
  }

  // --- sessions ---
  Result<Call*> open(Call& procedure, bool train, int64_t step) override {
    if (session_) return bad_state("open: a session is open; close it first");
    CallInfo info = e_.training_info(step);
    info.train = train;
    info.key = split_key(info.key, procedure.instance.name());
    graph_.reset();
    e_.objective().begin(nothing_, info);
    e_.objective().own_passes = true;
    session_ = std::make_unique<Call>(procedure.instance, &graph_, info, &e_.objective());
    session_->run = this;
    parent_ = &procedure;
    return session_.get();
  }
  Status evaluate(Call& session, std::span<const Tensor> values) override {
    if (session_.get() != &session) return bad_state("run: the session is closed");
    Objective& objective = e_.objective();
    std::vector<Update> updates = session.instance.take_updates();
    for (const auto& p : held_)
      for (Update& u : p->instance->take_updates()) updates.push_back(std::move(u));
    e_.optimizers().take_next_values(objective.take_assigned(), updates);
    for (Update& u : objective.take_updates()) updates.push_back(std::move(u));
    const std::vector<NamedTensor> checks = session.emitted.checks(session.instance.who());
    std::erase_if(session.emitted.tensors, [](const Emitted& t) { return t.as == TN_OUT_CHECK; });
    std::vector<Tensor> wanted(values.begin(), values.end());
    for (const NamedTensor& check : checks) wanted.push_back(check.value);
    TN_RETURN_IF_ERROR(graph_.materialise(wanted, updates));
    for (const NamedTensor& check : checks) {
      TN_ASSIGN(const double holds, graph_.value(check.value));
      if (holds == 0) return invalid(check.name);
    }
    const std::vector<Objective::ModelChange> changes = objective.take_changes();
    for (const Objective::ModelChange& change : changes) TN_RETURN_IF_ERROR(e_.apply(change));
    if (!updates.empty() || !changes.empty()) changed();
    return Status::ok();
  }
  void close(Call& session) override {
    if (session_.get() != &session) return;
    parent_->fail(session_->status());  // the reason must outlive the session
    e_.objective().end();
    e_.objective().own_passes = false;
    session_->instance.forget_step();
    for (const auto& p : held_) p->instance->forget_step();
    session_.reset();
  }
  Status checkpoint(bool force) override {
    const proto::Checkpoint& keep = e_.recipe().proto.checkpoint();
    ++asked_;
    const bool due = force || !keep.has_every() || (keep.every() > 0 && asked_ % keep.every() == 0);
    if (!folder_ || !due) return Status::ok();
    step_ = std::max(step_ + 1, trained_);
    TN_RETURN_IF_ERROR(folder_->save(e_, step_, reported_));
    observer_.on_checkpoint(step_, folder_->last_checkpoint());
    is_saved_ = true;
    return Status::ok();
  }

  // --- data ---
  Result<int64_t> count(const std::string& stream, const std::string& split) override {
    TN_ASSIGN(const size_t i, stream_of(stream));
    const DatasetPtr part = e_.streams()[i].part(split);
    return part ? part->size() : 0;
  }
  Result<std::vector<std::string>> columns(const std::string& stream) override {
    TN_ASSIGN(const size_t i, stream_of(stream));
    std::vector<std::string> out;
    for (const auto& [name, unused] : e_.streams()[i].train->columns()) out.push_back(name);
    return out;
  }
  Result<HostArray> rows(const std::string& stream, const std::string& split, const std::string& column,
                         const std::vector<int64_t>* indices) override {
    TN_ASSIGN(const size_t i, stream_of(stream));
    return e_.rows(i, split, column, indices);
  }
  Result<std::vector<std::pair<std::string, HostArray>>> next_batch(const std::string& stream, const std::string& split) override {
    TN_ASSIGN(const size_t i, stream_of(stream));
    TN_ASSIGN(Columns batch, e_.batch_columns(i, split, position_[{i, split}]++));
    std::vector<std::pair<std::string, HostArray>> out;
    for (auto& [name, values] : batch) out.emplace_back(name, e_.in_model_type(std::move(values)));
    return out;
  }

  // --- the recipe's own training ---
  Result<double> train(int64_t first, int64_t steps) override {
    if (session_) return bad_state("train: a session is open; close it first");
    if (e_.objective().losses.empty()) return invalid("train: the recipe has no loss");
    double sum = 0;
    for (int64_t k = first; k < first + steps; ++k) {
      if (observer_.cancelled()) return cancelled("stopped");
      TN_ASSIGN(const StepResult r, training_step(e_, steps_graph_, k));
      if (!std::isfinite(r.loss))
        return Status(Code::state, "the loss became " + std::string(std::isnan(r.loss) ? "NaN" : "infinite") + " in step " + std::to_string(k + 1));
      sum += r.loss;
      ++trained_;
      observer_.on_step({.step = k + 1, .total_steps = e_.total_steps(), .epoch = k / e_.steps_per_epoch(), .loss = r.loss,
                         .learning_rate = e_.optimizers().learning_rate(k, e_.total_steps()), .samples_per_second = 0, .parts = r.parts});
    }
    changed();
    return steps > 0 ? sum / static_cast<double>(steps) : 0;
  }
  Result<double> metric(const std::string& split, const std::string& name) override {
    if (!measured_.contains(split)) {
      TN_ASSIGN(measured_[split], e_.evaluate(split, trained_, e_.recipe().proto.train().eval_steps()));
    }
    const MetricValues& values = measured_[split];
    const auto it = values.find(split + "/" + name);
    if (it != values.end()) return it->second;
    std::vector<std::string> names;
    for (const auto& [full, unused] : values) names.push_back(full.substr(split.size() + 1));
    return not_found("the recipe measures no '" + name + "' on '" + split + "'" + did_you_mean(name, names));
  }
  Result<std::vector<double>> predict(const std::string& model, const std::string& split) override {
    std::vector<double> out;
    TN_RETURN_IF_ERROR(e_.predict(split, [&](const Columns&, const HostArray& y) {
      for (int64_t i = 0; i < y.numel(); ++i) out.push_back(y.at(i));
      return Status::ok();
    }, model));
    return out;
  }
  Status set_column(const std::string& stream, const std::string& split, const std::string& name, HostArray values) override {
    TN_ASSIGN(const size_t i, stream_of(stream));
    measured_.clear();
    return e_.set_column(i, split, name, std::move(values));
  }
  Status select_rows(const std::string& stream, const std::vector<int64_t>* rows, uint64_t key) override {
    TN_ASSIGN(const size_t i, stream_of(stream));
    return e_.select_rows(i, rows, key);
  }

  // --- quantised forms ---
  Result<std::vector<SiteForm>> sites(const std::string& model) override {
    return e_.objective().sites(model_of(model));
  }
  Status configure(const std::string& model, const std::vector<int64_t>& choices) override {
    changed();
    return e_.objective().configure(model_of(model), choices);
  }
  Result<std::vector<int64_t>> sample(const std::string& model, uint64_t key, int32_t which) override {
    return e_.objective().sample(model_of(model), key, which);
  }
  Status recalibrate(const std::string& model, int64_t batches) override {
    if (session_) return bad_state("recalibrate: a session is open; close it first");
    Objective& objective = e_.objective();
    for (int64_t k = 0; k < batches; ++k) {
      TN_ASSIGN(const Batch batch, e_.training_batch(k, nullptr));
      steps_graph_.reset();
      objective.begin(batch, e_.training_info(k));
      objective.stats_share = 1.0 / static_cast<double>(k + 1);  // the mean of the batches so far
      auto pass = objective.forward(steps_graph_);
      objective.stats_share = 0;
      if (!pass) return pass.status();
      std::vector<Update> updates;
      for (Update& u : (*pass)->contexts.at(model_of(model))->updates()) updates.push_back(std::move(u));
      TN_RETURN_IF_ERROR(steps_graph_.eval({}, updates).status());
      objective.end();
      for (Instance* plugin : objective.instances()) plugin->forget_step();
    }
    changed();
    return Status::ok();
  }

  // --- what the procedure has to say ---
  void report(const std::string& name, double value) override {
    reported_[name] = unlogged_[name] = value;
    is_saved_ = false;
  }
  void progress(int64_t done, int64_t total, const std::string& text) override {
    flush(done);
    observer_.on_message(std::to_string(done) + (total > 0 ? "/" + std::to_string(total) : "") + (text.empty() ? "" : " " + text));
  }
  // Writes what was reported since the last time, under this step. The first failure is kept for the end of the run.
  void flush(int64_t step) {
    if (unlogged_.empty()) return;
    observer_.on_evaluation(step, unlogged_);
    if (folder_ && log_.is_ok()) log_ = folder_->log(step, unlogged_);
    unlogged_.clear();
  }
  const Status& logged() const { return log_; }

 protected:
  Status on_made(HeldPlugin& p) override { return folder_ ? folder_->made_plugins().add(p) : Status::ok(); }
  void on_release(HeldPlugin& p) override {
    if (folder_) folder_->made_plugins().remove(p);
  }

 private:
  void changed() {
    measured_.clear();
    is_saved_ = false;
  }
  std::string model_of(const std::string& name) const { return name.empty() ? e_.main_model() : name; }
  Result<size_t> stream_of(const std::string& name) const {
    std::vector<std::string> names;
    for (size_t i = 0; i < e_.streams().size(); ++i) {
      if (name.empty() || e_.streams()[i].name == name) return i;
      names.push_back(e_.streams()[i].name);
    }
    return not_found(names.empty() ? "the recipe has no data" : "no data stream '" + name + "'" + did_you_mean(name, names));
  }

  Experiment& e_;
  RunFolder* folder_;
  Observer& observer_;
  int64_t step_, trained_ = 0, asked_ = 0;
  bool is_saved_ = false;
  Graph steps_graph_, graph_;
  const Batch nothing_;
  std::unique_ptr<Call> session_;
  Call* parent_ = nullptr;
  std::map<std::pair<size_t, std::string>, int64_t> position_;
  std::map<std::string, MetricValues> measured_;
  MetricValues reported_, unlogged_;
  Status log_;
};

}  // namespace

Result<Summary> run_recipe(Experiment& e, RunFolder* folder, Observer& observer, int64_t first_step) {
  if (!e.procedure()) return fit(e, folder, observer, first_step);
  const auto started = std::chrono::steady_clock::now();
  ProcedureRun run(e, folder, observer, first_step);
  const CallInfo info{.step = first_step, .total_steps = e.last_step(), .key = split_key(e.seed(), "procedure"), .train = true};
  Status status = run_procedure(*e.procedure(), info, run);
  Summary summary;
  summary.cancelled = status.code() == Code::cancelled;
  if (!status.is_ok() && !summary.cancelled) return status;
  run.flush(run.step());
  TN_RETURN_IF_ERROR(run.logged());
  if (folder && !summary.cancelled && !run.is_saved()) TN_RETURN_IF_ERROR(run.checkpoint(true));
  summary.metrics = run.reported();
  summary.steps = run.step();
  summary.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  if (folder) summary.checkpoint = folder->last_checkpoint();
  return summary;
}

}  // namespace tenon
