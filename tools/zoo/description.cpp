#include "tools/zoo/description.h"

#include <google/protobuf/descriptor.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <set>

#include "core/base/hash.h"
#include "core/base/nearest.h"
#include "core/io/file.h"
#include "core/train/recipe_text.h"

namespace tenon::zoo {
namespace {

namespace fs = std::filesystem;
namespace pb = google::protobuf;

std::vector<int> lines_of(const pb::TextFormat::ParseInfoTree& tree, int field_number, int count) {
  const pb::FieldDescriptor* field = proto::Zoo::descriptor()->FindFieldByNumber(field_number);
  std::vector<int> lines;
  for (int i = 0; i < count; ++i) lines.push_back(tree.GetLocation(field, i).line + 1);
  return lines;
}

template <class Values>
Status check_distinct(const Values& values, const char* what) {
  auto sorted = std::vector(values.begin(), values.end());
  std::sort(sorted.begin(), sorted.end());
  const auto twice = std::adjacent_find(sorted.begin(), sorted.end());
  if (twice == sorted.end()) return Status::ok();
  if constexpr (std::is_arithmetic_v<std::decay_t<decltype(*twice)>>)
    return invalid(std::string(what) + " " + std::to_string(*twice) + " is given twice");
  else
    return invalid(std::string(what) + " '" + *twice + "' is given twice");
}

Status check_runs(const Description& d) {
  std::set<std::string> names;
  for (int i = 0; i < d.proto.run_size(); ++i) {
    const proto::ZooRun& run = d.proto.run(i);
    if (run.name().empty()) return invalid("a run needs a name").at(d.where_run(i));
    if (!names.insert(run.name()).second)
      return invalid("there are two runs '" + run.name() + "'").at(d.where_run(i));
    TN_RETURN_IF_ERROR(check_distinct(run.seed(), "seed").at(d.where_run(i)));
  }
  return Status::ok();
}

Status check_known(const Description& d, const std::string& name) {
  std::vector<std::string> names;
  for (const proto::ZooRun& run : d.proto.run()) names.push_back(run.name());
  if (std::find(names.begin(), names.end(), name) != names.end()) return Status::ok();
  return invalid("no run '" + name + "'" + did_you_mean(name, names));
}

Status check_claim(const Description& d, const proto::ZooClaim& c) {
  if (c.text().empty()) return invalid("a claim needs a text");
  if (c.metric().empty()) return invalid("a claim needs a metric, such as \"test/accuracy\"");
  if (!c.has_run()) return invalid("a claim needs the run that it is about");
  TN_RETURN_IF_ERROR(check_known(d, c.run()));
  if (c.has_minus()) TN_RETURN_IF_ERROR(check_known(d, c.minus()));
  if (c.has_over()) TN_RETURN_IF_ERROR(check_known(d, c.over()));
  if (c.has_setting()) {
    const std::vector<std::string> settings(d.proto.setting().begin(), d.proto.setting().end());
    if (std::find(settings.begin(), settings.end(), c.setting()) == settings.end())
      return invalid("no setting '" + c.setting() + "'" + did_you_mean(c.setting(), settings));
  }
  if (c.has_minus() && c.has_over()) return invalid("a claim is about a difference or a ratio; give `minus` or `over`");
  if (!c.has_at_least() && !c.has_at_most())
    return invalid("the claim has no bound; write at_least or at_most and a number");
  if (c.statistic() == proto::ZooClaim::wins && !c.has_minus()) return invalid("wins are counted against another run; give `minus`");
  return Status::ok();
}

Status check_curve(const Description& d, const proto::ZooCurve& c) {
  if (c.name().empty() || c.name().find('/') != std::string::npos) return invalid("a curve needs a name that its file can have");
  if (c.metric().empty()) return invalid("a curve needs a metric, such as \"step_ms\"");
  if (c.line_size() == 0) return invalid("the curve has no line");
  for (const proto::ZooCurve::Line& line : c.line()) {
    if (line.x_size() != line.run_size() || line.x_size() == 0)
      return invalid("a line needs a run for each x; '" + line.name() + "' has " + std::to_string(line.x_size()) + " x and " +
                     std::to_string(line.run_size()) + " runs");
    for (const std::string& run : line.run()) TN_RETURN_IF_ERROR(check_known(d, run));
  }
  return Status::ok();
}

Status check(const Description& d) {
  const proto::Zoo& z = d.proto;
  if (z.name().empty()) return invalid("the experiments need a name").at(d.path);
  if (z.run_size() == 0) return invalid("there is no run").at(d.path);
  if (z.claim_size() == 0) return invalid("there is no claim").at(d.path);
  TN_RETURN_IF_ERROR(check_distinct(z.setting(), "setting").at(d.path));
  TN_RETURN_IF_ERROR(check_distinct(z.repeat(), "repeat").at(d.path));
  TN_RETURN_IF_ERROR(check_distinct(z.seed(), "seed").at(d.path));
  TN_RETURN_IF_ERROR(check_runs(d));
  for (int i = 0; i < z.claim_size(); ++i) TN_RETURN_IF_ERROR(check_claim(d, z.claim(i)).at(d.where_claim(i)));
  for (int i = 0; i < z.curve_size(); ++i) TN_RETURN_IF_ERROR(check_curve(d, z.curve(i)).at(d.where_curve(i)));
  return Status::ok();
}

// `text` with `{name}` replaced; whether it was there.
bool fill(std::string& text, const std::string& name, const std::string& value) {
  bool found = false;
  for (size_t at = 0; (at = text.find(name, at)) != std::string::npos; at += value.size()) {
    text.replace(at, name.size(), value);
    found = true;
  }
  return found;
}

std::string fingerprint_of(const proto::Recipe& recipe) {
  const std::string text = to_text(recipe);
  Hash128 h;
  for (const char c : text) h.mix(static_cast<unsigned char>(c));
  char out[40];
  std::snprintf(out, sizeof out, "%016llx%016llx", static_cast<unsigned long long>(h.a), static_cast<unsigned long long>(h.b));
  return out;
}

// What a job's own values do to its recipe.
Status load(const Description& d, const std::string& where, Job& job) {
  const proto::ZooRun& run = d.proto.run(job.run);
  std::vector<std::string> sets(d.proto.set().begin(), d.proto.set().end());
  sets.insert(sets.end(), run.set().begin(), run.set().end());
  if (job.has_seed) sets.push_back("seed=" + std::to_string(job.seed));
  bool uses_setting = false, uses_repeat = false;
  for (std::string& s : sets) {
    if (d.proto.setting_size() > 0) uses_setting |= fill(s, "{setting}", job.setting);
    if (d.proto.repeat_size() > 0) uses_repeat |= fill(s, "{repeat}", job.repeat);
    if (job.has_seed) fill(s, "{seed}", std::to_string(job.seed));
    for (const char* left : {"setting", "repeat", "seed"})
      if (s.find("{" + std::string(left) + "}") != std::string::npos)
        return invalid("set \"" + s + "\" uses {" + left + "}, but no " + left + " is given").at(where);
  }
  if (d.proto.setting_size() > 0 && !uses_setting) return invalid("the run makes no use of {setting}").at(where);
  if (d.proto.repeat_size() > 0 && !uses_repeat) return invalid("the run makes no use of {repeat}").at(where);
  auto recipe = load_recipe((fs::path(d.dir) / run.recipe()).string(), sets);
  if (!recipe) return std::move(recipe).status().at(where);
  job.recipe = std::move(recipe).value();
  job.fingerprint = fingerprint_of(job.recipe.proto);
  return Status::ok();
}

}  // namespace

Result<std::vector<std::string>> slugs(const std::string& root) {
  std::error_code ec;
  std::vector<std::string> found;
  for (fs::directory_iterator it(root, ec), end; !ec && it != end; it.increment(ec))
    if (fs::exists(it->path() / "zoo.txtpb")) found.push_back(it->path().filename().string());
  if (ec) return not_found("no folder '" + root + "'; name the zoo's with --zoo");
  std::sort(found.begin(), found.end());
  return found;
}

Result<Description> load_description(const std::string& root, const std::string& slug) {
  TN_ASSIGN(const auto known, slugs(root));
  if (std::find(known.begin(), known.end(), slug) == known.end())
    return not_found("no experiments '" + slug + "' in '" + root + "'" + did_you_mean(slug, known));
  Description d;
  d.slug = slug;
  d.dir = (fs::path(root) / slug).string();
  d.path = (fs::path(d.dir) / "zoo.txtpb").string();
  TN_ASSIGN(const std::string text, read_bytes(d.path));
  pb::TextFormat::ParseInfoTree tree;
  TextError error;
  if (!parse_text(text, d.proto, &tree, error))
    return invalid(d.path + ":" + std::to_string(error.line) + ": " + error.message);
  d.run_lines = lines_of(tree, proto::Zoo::kRunFieldNumber, d.proto.run_size());
  d.claim_lines = lines_of(tree, proto::Zoo::kClaimFieldNumber, d.proto.claim_size());
  d.curve_lines = lines_of(tree, proto::Zoo::kCurveFieldNumber, d.proto.curve_size());
  TN_RETURN_IF_ERROR(check(d));
  return d;
}

std::string Job::name(const Description& d) const {
  std::string s = d.proto.run(run).name();
  for (const std::string& part : {setting, repeat})
    if (!part.empty()) s += ", " + part;
  return has_seed ? s + ", seed " + std::to_string(seed) : s;
}

Result<std::vector<Job>> jobs_of(const Description& d, const std::vector<int64_t>& seeds) {
  const std::vector<std::string> once{""};
  const auto list = [&](const auto& values) { return values.empty() ? once : std::vector<std::string>(values.begin(), values.end()); };
  std::vector<Job> jobs;
  for (int r = 0; r < d.proto.run_size(); ++r) {
    const auto& own = d.proto.run(r).seed_size() > 0 ? d.proto.run(r).seed() : d.proto.seed();
    const std::vector<int64_t> chosen = seeds.empty() ? std::vector<int64_t>(own.begin(), own.end()) : seeds;
    for (const std::string& c : list(d.proto.setting()))
      for (const std::string& repeat : list(d.proto.repeat()))
        for (size_t s = 0; s < std::max<size_t>(chosen.size(), 1); ++s) {
          Job job{.run = r, .setting = c, .repeat = repeat, .has_seed = !chosen.empty(), .seed = chosen.empty() ? 0 : chosen[s], .recipe = {}, .fingerprint = {}};
          TN_RETURN_IF_ERROR(load(d, d.where_run(r), job));
          jobs.push_back(std::move(job));
        }
  }
  return jobs;
}

}  // namespace tenon::zoo
