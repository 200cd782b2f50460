#include "core/train/fit.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "core/train/run_folder.h"
#include "core/train/step.h"

namespace tenon {
namespace {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point t) { return std::chrono::duration<double>(Clock::now() - t).count(); }

// A field that means "once an epoch" when absent and "never on the way" when 0.
bool due(bool given, int64_t every, int64_t epoch_steps, int64_t step) {
  const int64_t n = given ? every : epoch_steps;
  return n > 0 && step % n == 0;
}

double median(std::vector<double> v) {
  if (v.empty()) return 0;
  const auto middle = v.begin() + static_cast<std::ptrdiff_t>(v.size() / 2);
  std::nth_element(v.begin(), middle, v.end());
  return *middle;
}

}  // namespace

Result<Summary> fit(Experiment& e, RunFolder* folder, Observer& observer, int64_t first_step) {
  const proto::Train& train = e.recipe().proto.train();
  const proto::Checkpoint& keep = e.recipe().proto.checkpoint();
  const int64_t total = e.last_step(), epoch = e.steps_per_epoch();
  const Clock::time_point started = Clock::now();
  Graph graph(e.runtime());
  Summary summary;
  std::vector<double> step_ms;
  double loss_sum = 0;
  int64_t loss_count = 0;
  MetricValues latest;

  const auto evaluate = [&](int64_t step, bool last) -> Status {
    MetricValues values;
    if (loss_count > 0) values["train/loss"] = loss_sum / static_cast<double>(loss_count);
    loss_sum = 0, loss_count = 0;
    for (const char* split : {"val", "test"}) {
      // The test part is for the end; on the way it stands in where there is no validation part.
      if (!e.has_split(split) || (!last && std::string_view(split) == "test" && e.has_split("val"))) continue;
      TN_ASSIGN(const MetricValues part, e.evaluate(split, step, train.eval_steps()));
      values.insert(part.begin(), part.end());
    }
    latest = values;
    if (folder) TN_RETURN_IF_ERROR(folder->log(step, values));
    observer.on_evaluation(step, values);
    return Status::ok();
  };
  const auto save = [&](int64_t step) -> Status {
    if (!folder) return Status::ok();
    TN_RETURN_IF_ERROR(folder->save(e, step, latest));
    observer.on_checkpoint(step, folder->last_checkpoint());
    return Status::ok();
  };

  int64_t step = first_step;
  while (step < total) {
    const Clock::time_point before = Clock::now();
    auto result = training_step(e, graph, step);
    if (!result) return std::move(result).status().at("step " + std::to_string(step + 1));
    const StepResult& r = *result;
    const double took = seconds_since(before);
    step_ms.push_back(took * 1e3);
    ++step;
    if (!std::isfinite(r.loss)) {
      std::string message = "the loss became " + std::string(std::isnan(r.loss) ? "NaN" : "infinite") + " in step " + std::to_string(step);
      message += folder && !folder->last_checkpoint().empty()
                     ? "; the last checkpoint is " + folder->last_checkpoint() + " (continue from it with --resume and a smaller learning rate)"
                     : "; try a smaller learning rate or clip_norm";
      return Status(Code::state, message);
    }
    loss_sum += r.loss;
    ++loss_count;
    StepInfo info{.step = step, .total_steps = total, .epoch = (step - 1) / epoch, .loss = r.loss,
                  .learning_rate = e.optimizers().learning_rate(step - 1, e.total_steps()),
                  .samples_per_second = static_cast<double>(r.samples) / took, .parts = r.parts};
    observer.on_step(info);
    if (folder && train.log_every() > 0 && (step % train.log_every() == 0 || step == total)) {
      MetricValues values{{"step/loss", r.loss}, {"step/learning_rate", info.learning_rate}};
      for (const auto& [name, v] : r.parts) values["step/" + name] = v;
      TN_RETURN_IF_ERROR(folder->log(step, values));
    }
    const bool last = step == total;
    const bool stop = !last && observer.cancelled();
    if (last || due(train.has_eval_every(), train.eval_every(), epoch, step)) TN_RETURN_IF_ERROR(evaluate(step, last));
    if (last || stop || due(keep.has_every(), keep.every(), epoch, step)) TN_RETURN_IF_ERROR(save(step));
    if (stop) {
      summary.cancelled = true;
      break;
    }
  }
  if (first_step >= total) TN_RETURN_IF_ERROR(evaluate(step, true));  // a finished run resumed: only its figures
  summary.metrics = latest;
  summary.steps = step;
  summary.seconds = seconds_since(started);
  summary.step_ms = median(std::move(step_ms));
  if (folder) summary.checkpoint = folder->last_checkpoint();
  return summary;
}

}  // namespace tenon
