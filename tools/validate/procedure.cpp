#include "tools/validate/procedure.h"

#include <algorithm>
#include <filesystem>

#include "core/train/fit.h"
#include "core/train/run_folder.h"

namespace tenon::validate {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMostCount = 4;

std::string blobs(const SmallData& d) {
  return "kind: \"blobs\" n: " + std::to_string(d.samples) + " classes: " + std::to_string(d.classes) + " noise: 0.4";
}
std::string line(const SmallData& d) { return "kind: \"linear\" n: " + std::to_string(d.samples); }

constexpr const char* kNumbers = "loss { id: \"mse\" }";

std::string part(const char* name, int64_t n) { return n > 0 ? " " + std::string(name) + "_split { count: " + std::to_string(n) + " }" : ""; }

std::string quoted(const std::string& s) {
  std::string out = "\"";
  for (const char c : s) out += (c == '"' || c == '\\' ? std::string("\\") : std::string()) + c;
  return out + "\"";
}

std::string text_of(const OptionValue& v) {
  return std::visit(
      [](const auto& x) -> std::string {
        using T = std::decay_t<decltype(x)>;
        if constexpr (std::is_same_v<T, bool>) return x ? "true" : "false";
        else if constexpr (std::is_same_v<T, std::string>) return quoted(x);
        else if constexpr (std::is_same_v<T, double>) {
          char text[32];
          std::snprintf(text, sizeof text, "%.17g", x);
          return text;
        } else if constexpr (std::is_arithmetic_v<T>) return std::to_string(x);
        else {
          std::string list;
          for (const auto& e : x) list += (list.empty() ? "" : ", ") + text_of(e);
          return "[" + list + "]";
        }
      },
      v);
}

Inputs metrics_of(const Summary& summary) {
  Inputs out;
  for (const auto& [name, value] : summary.metrics) out.emplace_back(name, HostArray::of<double>(std::span(&value, 1), Shape{}));
  return out;
}

}  // namespace

std::vector<std::string> small_recipes(const Host& host) {
  const std::string classifier = "loss { id: \"cross_entropy\" } metric { id: \"accuracy\" }";
  std::vector<std::string> out{classifier, kNumbers};
  for (const tn_descriptor* q : host.catalog.list(TN_KIND_QUANTIZER)) {
    const auto with = [&](const std::string& options) { out.push_back(classifier + " quantizer { id: " + quoted(q->id) + " options {" + options + "} }"); };
    with("");
    for (const tn_option* o : schema_of(*q))
      if (has_default(*o) && o->type == TN_VALUE_BOOL) with(std::string(o->name) + ": " + (o->fallback.as.i64 ? "false" : "true"));
  }
  return out;
}

Options small_counts(const tn_descriptor& d) {
  Options out;
  for (const tn_option* o : schema_of(d)) {
    if (!has_default(*o) || o->type != TN_VALUE_I64 || o->fallback.as.i64 <= kMostCount) continue;
    out[o->name] = o->flags & TN_OPTION_MIN ? std::max(kMostCount, static_cast<int64_t>(o->min)) : kMostCount;
  }
  return out;
}

Result<std::unique_ptr<Experiment>> open_small(const Bench& bench, const Options& options, const SmallData& d) {
  const std::string recipe = small_recipes(bench.host).at(bench.recipe);
  std::string text = "data { format: \"synthetic\" options { " + (recipe == kNumbers ? line(d) : blobs(d)) + " features: " + std::to_string(d.features) +
                     " }" + part("val", d.val) + part("test", d.test) + " }\n" + recipe +
                     "model { layer { mlp { hidden: [6, 5] activation: \"tanh\" } } } optimizer { id: \"sgd\" options { lr: 0.05 } }"
                     " train { steps: 8 batch_size: " + std::to_string(d.batch) + " } seed: 5"
                     " procedure { id: " + quoted(bench.descriptor.id) + " options {";
  Options all = small_counts(bench.descriptor);
  for (const auto& [name, value] : options) all[name] = value;
  for (const auto& [name, value] : all) text += " " + name + ": " + text_of(value);
  text += " } }";
  TN_ASSIGN(Recipe parsed, parse_recipe(text, "the validator's recipe"));
  return Experiment::open(bench.host.runtime, bench.host.catalog, std::move(parsed), "");
}

Result<Inputs> run_small(Experiment& e) {
  Observer quiet;
  TN_ASSIGN(const Summary summary, run_recipe(e, nullptr, quiet));
  return metrics_of(summary);
}

// --- checks ---

Verdict check_procedure_sizes(const Bench& bench) {
  const struct {
    const char* name;
    SmallData data;
  } cases[] = {{"batches of one sample", {.batch = 1}},
               {"batches that do not divide the data", {.batch = 7}},
               {"batches larger than the data", {.batch = 1000}},
               {"one feature", {.features = 1}},
               {"two classes", {.classes = 2}},
               {"parts of one sample", {.val = 1, .test = 1}},
               {"no validation part", {.val = 0}},
               {"no test part", {.test = 0}},
               {"three samples in all", {.samples = 3, .val = 1, .test = 1, .batch = 1}}};
  std::string refused;
  for (const auto& c : cases) {
    bench.doing(std::string("with ") + c.name);
    const auto run = [&]() -> Status {
      TN_ASSIGN(const auto e, open_small(bench, {}, c.data));
      return run_small(*e).status();
    };
    const Status s = run();
    if (s.is_ok()) continue;
    if (s.code() == Code::internal) return failed(std::string("with ") + c.name + ": " + s.message());
    refused += (refused.empty() ? "refused: " : ", ") + std::string(c.name);
  }
  return ok(refused);
}

Verdict check_procedure_instances(const Bench& bench, const Inputs& expected) {
  const auto beside = [&]() -> Result<Verdict> {
    bench.doing("beside another run");
    TN_ASSIGN(const auto one, open_small(bench, {}));
    TN_ASSIGN(const auto other, open_small(bench, {}, {.samples = 60}));
    TN_RETURN_IF_ERROR(run_small(*other).status());
    TN_ASSIGN(const Inputs got, run_small(*one));
    const std::string what = difference(got, expected);
    return what.empty() ? ok() : failed("beside another run " + what);
  };
  const auto verdict = beside();
  return verdict ? *verdict : failed(verdict.status().message());
}

namespace {

// Copies the run's folder when the first checkpoint is there: what a kill in that moment would leave.
class Snapshot : public Observer {
 public:
  void on_checkpoint(int64_t, const std::string&) override {
    if (++seen > 1) return;
    std::error_code ec;
    fs::copy(kWhole, kKilled, fs::copy_options::recursive, ec);
  }
  static constexpr const char *kWhole = "whole", *kKilled = "killed";
  int seen = 0;
};

}  // namespace

Verdict check_procedure_resume(const Bench& bench, const Inputs& expected) {
  const auto continued = [&]() -> Result<Verdict> {
    bench.doing("to its end");
    TN_ASSIGN(const auto whole, open_small(bench, {}));
    TN_ASSIGN(RunFolder folder, RunFolder::open(Snapshot::kWhole, false, whole->recipe()));
    Snapshot snapshot;
    TN_RETURN_IF_ERROR(run_recipe(*whole, &folder, snapshot).status());
    // The last one is the host's, and holds a run that is over.
    if (snapshot.seen < 2) return not_applicable("it makes no checkpoint on its way");
    bench.doing("from its first checkpoint");
    TN_ASSIGN(const auto again, open_small(bench, {}));
    TN_ASSIGN(RunFolder killed, RunFolder::open(Snapshot::kKilled, true, again->recipe()));
    TN_ASSIGN(const int64_t first, killed.restore(*again));
    Observer quiet;
    TN_ASSIGN(const Summary got, run_recipe(*again, &killed, quiet, first));
    // What was reported before the checkpoint is in the folder's log alone.
    const std::string what = difference(expected, metrics_of(got));
    return what.empty() ? ok(std::to_string(snapshot.seen) + " checkpoints") : failed("continued from its first checkpoint it ends elsewhere: alone " + what);
  };
  const auto verdict = continued();
  return verdict ? *verdict : failed(verdict.status().message());
}

}  // namespace tenon::validate
