#include "core/train/run_folder.h"

#include <algorithm>
#include <filesystem>

#include "core/io/safetensors.h"

namespace tenon {

namespace fs = std::filesystem;

namespace {

// Every plugin instance that may have bytes to save, under a stable name.
std::vector<std::pair<std::string, Instance*>> instances(Experiment& e) {
  std::vector<std::pair<std::string, Instance*>> out;
  for (const auto& plugin : e.objective().plugins()) out.push_back(plugin);
  if (e.procedure()) out.emplace_back("procedure", e.procedure());
  int i = 0;
  for (Instance* o : e.optimizers().instances()) out.emplace_back("optimizer/" + std::to_string(i++) + "/" + o->name(), o);
  return out;
}

// What a process that was killed while writing a small file (AtomicFile) left in the folders of its run.
void remove_unfinished_files(const std::string& dir) {
  std::error_code ec;
  for (const std::string& folder : {dir, dir + "/checkpoints"})
    for (fs::directory_iterator it(folder, ec), end; !ec && it != end; it.increment(ec)) {
      const std::string name = it->path().filename().string();
      const size_t digits = name.find_last_not_of("0123456789");
      if (digits == std::string::npos || digits + 1 == name.size() || !name.substr(0, digits + 1).ends_with(".tmp")) continue;
      std::error_code ignored;
      fs::remove(it->path(), ignored);
    }
}

}  // namespace

Result<RunFolder> RunFolder::open(const std::string& dir, bool resume, const Recipe& recipe) {
  RunFolder r;
  r.dir_ = dir;
  const bool occupied = fs::exists(dir + "/metrics.jsonl") || fs::exists(dir + "/checkpoints");
  if (occupied && !resume)
    return invalid("'" + dir + "' already holds a run; " +
                   (latest_checkpoint(dir + "/checkpoints") ? "continue it with --resume, or choose"
                                                            : "it has no checkpoint to go on from: remove it, or choose") +
                   " another folder with --out");
  if (resume) {
    auto last = latest_checkpoint(dir + "/checkpoints");
    if (!last) return std::move(last).status().at("--resume");
    r.last_ = std::move(last).value();
    remove_unfinished_files(dir);
  }
  TN_RETURN_IF_ERROR(make_folders(dir + "/checkpoints"));
  TN_RETURN_IF_ERROR(write_atomically(dir + "/recipe.txtpb", to_text(recipe.proto)));
  if (!resume) TN_RETURN_IF_ERROR(r.open_logs(-1));
  return r;
}

Status RunFolder::open_logs(int64_t from_step) {
  TN_ASSIGN(auto lines, MetricsLog::open(dir_ + "/metrics.jsonl", from_step));
  lines_ = std::make_unique<MetricsLog>(std::move(lines));
  TN_ASSIGN(auto events, EventWriter::create(dir_, from_step));
  events_ = std::make_unique<EventWriter>(std::move(events));
  return Status::ok();
}

Result<int64_t> RunFolder::restore(Experiment& e) {
  int64_t step = 0;
  TN_RETURN_IF_ERROR(restore_checkpoint(last_, e, &step, &made_plugins_));
  TN_RETURN_IF_ERROR(open_logs(step));
  if (const auto marked = best_checkpoint(dir_ + "/checkpoints"))
    if (const auto best = load_checkpoint(*marked))
      for (const Checkpoint::Point& p : best->history)
        if (p.name == e.recipe().proto.checkpoint().best()) best_ = p.value;
  return step;
}

Status RunFolder::log(int64_t step, const MetricValues& values) {
  TN_RETURN_IF_ERROR(lines_->write(step, values));
  return events_->scalars(step, values);
}

Status RunFolder::save(Experiment& e, int64_t step, const MetricValues& metrics) {
  Checkpoint c;
  c.step = step;
  c.epoch = step / e.steps_per_epoch();
  c.seed = e.seed();
  c.recipe = to_text(e.recipe().proto);
  for (const auto& [name, array] : e.saved_arrays()) {
    TN_ASSIGN(HostArray h, array.to_host());
    c.tensors.emplace_back(name, std::move(h));
  }
  for (const auto& [name, count] : e.optimizers().counts()) c.scalars["optimizer/" + name] = static_cast<double>(count);
  for (const auto& [name, instance] : instances(e)) {
    TN_ASSIGN(std::string bytes, instance->save_bytes());
    if (!bytes.empty()) c.blobs[name] = std::move(bytes);
  }
  TN_RETURN_IF_ERROR(made_plugins_.save(c));
  for (const DataStream& s : e.streams()) c.blobs["schema/" + s.name] = s.train->schema.to_json();
  for (const auto& [name, value] : metrics) c.history.push_back({step, name, value});
  const std::string dir = dir_ + "/checkpoints";
  TN_ASSIGN(last_, save_checkpoint(dir, c));

  const proto::Checkpoint& keep = e.recipe().proto.checkpoint();
  if (keep.has_best()) {
    const auto it = metrics.find(keep.best());
    if (it == metrics.end()) return invalid(e.recipe().where("checkpoint.best") + ": this run measures no '" + keep.best() + "'");
    const std::string id = keep.best().substr(keep.best().find('/') + 1);
    const auto info = find_metric(id);
    const bool higher = info && (*info)->higher_is_better;
    if (!best_ || (higher ? it->second > *best_ : it->second < *best_)) {
      best_ = it->second;
      TN_RETURN_IF_ERROR(mark_best(last_, *best_));
    }
  }
  return prune_checkpoints(dir, keep.keep());
}

void RunFolder::discard_if_unused() {
  std::error_code ignored;
  if (!last_.empty() || fs::file_size(dir_ + "/metrics.jsonl", ignored) != 0) return;
  lines_.reset();
  const std::string events = events_ ? events_->path() : "";
  events_.reset();
  for (const std::string& path : {dir_ + "/metrics.jsonl", dir_ + "/recipe.txtpb", events, dir_ + "/checkpoints", dir_})
    if (!path.empty()) fs::remove(path, ignored);  // a folder with anything else in it stays
}

Status restore_checkpoint(const std::string& path, Experiment& e, int64_t* step, MadePlugins* made) {
  TN_ASSIGN(const Checkpoint c, load_checkpoint(path));
  auto arrays = e.saved_arrays();
  std::vector<Wanted> wanted;
  for (const auto& [name, array] : arrays) wanted.push_back({name, array.dtype(), array.shape()});
  auto values = match_tensors(c.tensors, wanted);
  if (!values) return std::move(values).status().at(path);
  for (size_t i = 0; i < arrays.size(); ++i) TN_RETURN_IF_ERROR(arrays[i].second.assign(*(*values)[i]));
  std::map<std::string, int64_t> counts;
  const std::string prefix = "optimizer/";
  for (const auto& [name, value] : c.scalars)
    if (name.starts_with(prefix)) counts[name.substr(prefix.size())] = static_cast<int64_t>(value);
  e.optimizers().set_counts(counts);
  for (const auto& [name, instance] : instances(e))
    if (const auto it = c.blobs.find(name); it != c.blobs.end()) TN_RETURN_IF_ERROR(instance->load_bytes(it->second));
  if (made) made->load(c);
  if (step) *step = c.step;
  return Status::ok();
}

Status load_parameters(const std::string& path, const std::string& recipe_dir, const std::string& model_name, nn::Model& model) {
  const std::string found = fs::exists(path) ? path : (fs::path(recipe_dir) / path).string();
  NamedArrays tensors;
  if (found.ends_with(".safetensors")) {
    TN_ASSIGN(Safetensors s, read_safetensors(found));
    tensors = std::move(s.tensors);
  } else {
    TN_ASSIGN(Checkpoint c, load_checkpoint(found));
    tensors = std::move(c.tensors);
  }
  // Names in the file may carry a model's name ("model.linear0.weight") or not.
  const bool prefixed = std::any_of(tensors.begin(), tensors.end(), [&](const auto& t) { return t.first.starts_with(model_name + "."); });
  std::vector<Wanted> wanted;
  std::vector<nn::ParameterPtr> all = model.parameters;
  all.insert(all.end(), model.states.begin(), model.states.end());
  for (const nn::ParameterPtr& p : all)
    wanted.push_back({prefixed ? model_name + "." + p->name : p->name, p->value.dtype(), p->value.shape()});
  auto values = match_tensors(tensors, wanted);
  if (!values) return std::move(values).status().at(found);
  for (size_t i = 0; i < all.size(); ++i) TN_RETURN_IF_ERROR(all[i]->value.assign(*(*values)[i]));
  return Status::ok();
}

}  // namespace tenon
