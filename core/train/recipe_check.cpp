// check_recipe: what is wrong with a recipe before any data or plugin is looked at.
#include <google/protobuf/descriptor.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <regex>
#include <set>
#include <vector>

#include "core/base/nearest.h"
#include "core/data/readers.h"
#include "core/train/recipe.h"
#include "core/train/recipe_text.h"
#include "core/train/schedule.h"

namespace tenon {
namespace {

namespace pb = google::protobuf;
using Field = pb::FieldDescriptor;

constexpr double kInf = std::numeric_limits<double>::infinity();

// Allowed values of number fields, wherever the message occurs.
struct Range {
  std::string_view message, field;
  double least = 0, most = kInf;
  bool most_excluded = false;
};
constexpr Range kRanges[] = {
    {"Recipe", "threads", 1, 4096},
    {"Recipe", "seed", 0},
    {"Data", "context", 1},
    {"Data", "batch_size", 1},
    {"Split", "fraction", 0, 1, true},
    {"Split", "count", 1},
    {"Split", "seed", 0},
    {"Linear", "units", 1},
    {"Conv", "channels", 1},
    {"Conv", "kernel", 1},
    {"Conv", "stride", 1},
    {"Conv", "padding", 0},
    {"Conv", "dilation", 1},
    {"Conv", "groups", 1},
    {"Pool", "kernel", 1},
    {"Pool", "stride", 1},
    {"Pool", "padding", 0},
    {"AdaptivePool", "size", 1},
    {"BatchNorm", "momentum", 0, 1},
    {"BatchNorm", "eps", 0},
    {"LayerNorm", "eps", 0},
    {"GroupNorm", "eps", 0},
    {"GroupNorm", "groups", 1},
    {"RmsNorm", "eps", 0},
    {"Embedding", "vocab", 1},
    {"Embedding", "dim", 1},
    {"Position", "length", 1},
    {"Dropout", "rate", 0, 1, true},
    {"Attention", "heads", 1},
    {"Attention", "dropout", 0, 1, true},
    {"TransformerBlock", "heads", 1},
    {"TransformerBlock", "dropout", 0, 1, true},
    {"TransformerBlock", "mlp_ratio", 0},
    {"Moe", "experts", 1},
    {"Moe", "top_k", 1},
    {"Moe", "hidden", 1},
    {"Mlp", "hidden", 1},
    {"Mlp", "output", 1},
    {"Mlp", "dropout", 0, 1, true},
    {"Gpt", "layers", 1},
    {"Gpt", "heads", 1},
    {"Gpt", "width", 1},
    {"Gpt", "vocab", 1},
    {"Gpt", "context", 1},
    {"Gpt", "dropout", 0, 1, true},
    {"Gpt", "mlp_ratio", 0},
    {"Repeat", "times", 1},
    {"Loss", "weight", -kInf},
    {"Optimizer", "clip_norm", 0},
    {"Optimizer", "clip_value", 0},
    {"Group", "lr_scale", 0},
    {"Train", "epochs", 1},
    {"Train", "steps", 1},
    {"Train", "batch_size", 1},
    {"Train", "eval_batch_size", 1},
    {"Train", "eval_every", 0},
    {"Train", "eval_steps", 1},
    {"Train", "log_every", 1},
    {"Checkpoint", "every", 0},
    {"Checkpoint", "keep", 1},
};

struct Required {
  std::string_view message, field;
};
constexpr Required kRequired[] = {
    {"Data", "format"},        {"Transform", "id"},      {"Conv", "channels"},    {"Conv", "kernel"},
    {"Pool", "kernel"},        {"AdaptivePool", "size"}, {"GroupNorm", "groups"}, {"Embedding", "dim"},
    {"Reshape", "shape"},      {"Mean", "axis"},         {"Residual", "layer"},   {"Repeat", "layer"},
    {"Node", "name"},          {"Loss", "id"},           {"Bind", "role"},        {"Bind", "to"},
    {"Reweighter", "id"},      {"Metric", "id"},         {"Optimizer", "id"},     {"Group", "params"},
    {"Parametrization", "id"}, {"Attack", "id"},        {"Quantizer", "id"},
};

// Fields with regular expressions over parameter names.
bool is_pattern(const Field& f) {
  const std::string& name = f.name();
  return name == "params" || name == "no_decay" || name == "shared" || name == "layers";
}

std::string short_number(double x) { return std::to_string(static_cast<int64_t>(x)); }

class Checker {
 public:
  explicit Checker(const Recipe& recipe) : recipe_(recipe) {}

  Status run() {
    TN_RETURN_IF_ERROR(visit(recipe_.proto, ""));
    TN_RETURN_IF_ERROR(check_names());
    const proto::Recipe& r = recipe_.proto;
    for (int i = 0; i < r.data_size(); ++i) TN_RETURN_IF_ERROR(check_data(r.data(i), at("data", i)));
    for (int i = 0; i < r.model_size(); ++i) TN_RETURN_IF_ERROR(check_model(r.model(i), at("model", i)));
    for (int i = 0; i < r.loss_size(); ++i) {
      const proto::Loss& loss = r.loss(i);
      const std::string path = at("loss", i);
      TN_RETURN_IF_ERROR(check_binds(loss.bind(), path));
      for (int j = 0; j < loss.model_size(); ++j)
        TN_RETURN_IF_ERROR(exists(models_, "model", loss.model(j), at(path + ".model", j)));
      if (loss.has_data()) TN_RETURN_IF_ERROR(exists(streams_, "data", loss.data(), path + ".data"));
    }
    for (int i = 0; i < r.metric_size(); ++i)
      TN_RETURN_IF_ERROR(check_binds(r.metric(i).bind(), at("metric", i)));
    if (r.checkpoint().has_best()) {
      const std::string& best = r.checkpoint().best();
      const std::string split = best.substr(0, best.find('/'));
      if (best.find('/') == std::string::npos || (split != "val" && split != "test" && split != "train"))
        return fail("checkpoint.best",
                    "checkpoint.best must be a split and a metric, such as \"val/loss\", not '" + best + "'");
    }
    if (r.procedure().id() == "fit") return check_fit();
    return Status::ok();
  }

 private:
  static std::string at(const std::string& path, int i) { return path + "[" + std::to_string(i) + "]"; }
  Status fail(const std::string& path, std::string message) const {
    return invalid(recipe_.where(path) + ": " + std::move(message));
  }

  // Every message: required fields, ranges, patterns, schedules.
  Status visit(const pb::Message& m, const std::string& prefix) {
    const std::string& type = m.GetDescriptor()->name();
    const pb::Reflection& r = *m.GetReflection();
    const std::string self = prefix.empty() ? "" : prefix.substr(0, prefix.size() - 1);
    for (const auto& [message, field] : kRequired) {
      if (message != type) continue;
      const Field* f = m.GetDescriptor()->FindFieldByName(std::string(field));
      if (f->is_repeated() ? r.FieldSize(m, f) == 0 : !r.HasField(m, f))
        return fail(self, snake_case(type) + " needs a field '" + std::string(field) + "'");
    }
    if (type == "Layer" && !r.GetOneofFieldDescriptor(m, m.GetDescriptor()->FindOneofByName("kind")))
      return fail(self, "this layer has no kind; write one inside it, such as layer { relu {} }");
    if (type == "Schedule") {
      const auto& s = static_cast<const proto::Schedule&>(m);
      if (const auto schedule = Schedule::make(s.id(), to_options(s.options())); !schedule)
        return fail(self, schedule.status().message());
    }
    std::vector<const Field*> fields;
    r.ListFields(m, &fields);
    for (const Field* f : fields) {
      const int count = f->is_repeated() ? r.FieldSize(m, f) : 1;
      for (int i = 0; i < count; ++i) {
        const std::string path = f->is_repeated() ? at(prefix + f->name(), i) : prefix + f->name();
        if (f->cpp_type() == Field::CPPTYPE_MESSAGE) {
          if (f->message_type() == proto::Options::descriptor()) continue;
          TN_RETURN_IF_ERROR(
              visit(f->is_repeated() ? r.GetRepeatedMessage(m, f, i) : r.GetMessage(m, f), path + "."));
        } else {
          TN_RETURN_IF_ERROR(check_value(m, *f, f->is_repeated() ? i : -1, path));
        }
      }
    }
    return Status::ok();
  }

  Status check_value(const pb::Message& m, const Field& f, int index, const std::string& path) {
    const pb::Reflection& r = *m.GetReflection();
    if (f.cpp_type() == Field::CPPTYPE_STRING && is_pattern(f)) {
      const std::string pattern = r.GetRepeatedString(m, &f, index);
      try {
        const std::regex compiled(pattern);
      } catch (const std::regex_error&) {
        return fail(path, "'" + pattern + "' is not a regular expression");
      }
    }
    double x = 0;
    if (f.cpp_type() == Field::CPPTYPE_INT64)
      x = static_cast<double>(index < 0 ? r.GetInt64(m, &f) : r.GetRepeatedInt64(m, &f, index));
    else if (f.cpp_type() == Field::CPPTYPE_DOUBLE)
      x = index < 0 ? r.GetDouble(m, &f) : r.GetRepeatedDouble(m, &f, index);
    else
      return Status::ok();
    if (!std::isfinite(x)) return fail(path, path + " must be a finite number");
    for (const Range& range : kRanges) {
      if (range.message != m.GetDescriptor()->name() || range.field != f.name()) continue;
      const bool fits = x >= range.least && (range.most_excluded ? x < range.most : x <= range.most);
      if (fits) continue;
      const std::string limit =
          range.most == kInf ? "at least " + short_number(range.least)
          : range.most_excluded
              ? "at least " + short_number(range.least) + " and below " + short_number(range.most)
              : "in " + short_number(range.least) + " .. " + short_number(range.most);
      return fail(path, path + " must be " + limit + ", not " + print_number(m, f, index));
    }
    return Status::ok();
  }

  static std::string print_number(const pb::Message& m, const Field& f, int index) {
    std::string text;
    pb::TextFormat::PrintFieldValueToString(m, &f, index, &text);
    return text;
  }

  Status exists(const std::set<std::string>& names, const std::string& kind, const std::string& name,
                const std::string& path) const {
    if (names.contains(name)) return Status::ok();
    return fail(path, "no " + kind + " has the name '" + name + "'" + did_you_mean(name, names));
  }

  template <class List, class NameOf>
  Status unique(const List& list, const std::string& kind, NameOf name_of, std::set<std::string>& names) {
    for (int i = 0; i < list.size(); ++i)
      if (!names.insert(name_of(list[i])).second)
        return fail(at(kind, i), "two entries of '" + kind + "' have the name '" + name_of(list[i]) +
                                     "'; give each a name of its own");
    return Status::ok();
  }

  Status check_names() {
    const proto::Recipe& r = recipe_.proto;
    const auto name = [](const auto& x) { return x.name(); };
    const auto name_or_id = [](const auto& x) { return x.has_name() ? x.name() : x.id(); };
    std::set<std::string> losses, optimizers, metrics;
    TN_RETURN_IF_ERROR(unique(r.data(), "data", name, streams_));
    TN_RETURN_IF_ERROR(unique(r.model(), "model", name, models_));
    TN_RETURN_IF_ERROR(unique(r.loss(), "loss", name_or_id, losses));
    TN_RETURN_IF_ERROR(unique(r.optimizer(), "optimizer", name_or_id, optimizers));
    TN_RETURN_IF_ERROR(unique(r.metric(), "metric", name_or_id, metrics));
    for (int i = 0; i < r.model_size(); ++i)
      if (streams_.contains(r.model(i).name()))
        return fail(at("model", i), "a model and a data stream have the name '" + r.model(i).name() + "'");
    return Status::ok();
  }

  Status check_data(const proto::Data& d, const std::string& path) {
    if (const auto format = find_format(d.format()); !format) return fail(path + ".format", format.status().message());
    if (d.format() != "synthetic" && d.files_size() == 0)
      return fail(path, "data of format '" + d.format() + "' needs 'files'");
    for (const auto& [split, name] : {std::pair(d.has_test_split() ? &d.test_split() : nullptr, "test"),
                                      std::pair(d.has_val_split() ? &d.val_split() : nullptr, "val")}) {
      if (!split) continue;
      const std::string part(name), split_path = path + "." + part + "_split";
      const bool files = part == "test" ? d.test_files_size() > 0 : d.val_files_size() > 0;
      if (files) return fail(split_path, "give either " + part + "_files or " + part + "_split, not both");
      if (split->how().starts_with("fold ")) {  // the split itself knows what may follow
        if (split->has_fraction() || split->has_count())
          return fail(split_path, "a split in folds takes neither 'fraction' nor 'count'");
        continue;
      }
      if (split->has_fraction() == split->has_count())
        return fail(split_path, part + "_split needs either 'fraction' or 'count'");
      if (split->has_fraction() && split->fraction() <= 0)
        return fail(split_path + ".fraction", "the fraction of " + part + "_split must be above 0");
      constexpr std::string_view hows[] = {"random", "stratified", "first", "last", "fold 1 of 5"};
      if (std::find(std::begin(hows), std::end(hows), split->how()) == std::end(hows))
        return fail(split_path + ".how",
                    "a split can't be '" + split->how() + "'" + did_you_mean(split->how(), hows));
    }
    return Status::ok();
  }

  Status check_model(const proto::Model& m, const std::string& path) {
    if (m.layer_size() > 0 && m.node_size() > 0)
      return fail(path, "model '" + m.name() + "' has both 'layer' and 'node'; give one of them");
    if (m.layer_size() == 0 && m.node_size() == 0 && !m.has_share_with())
      return fail(path, "model '" + m.name() + "' has no layers");
    if (m.has_share_with()) {
      TN_RETURN_IF_ERROR(exists(models_, "model", m.share_with(), path + ".share_with"));
      if (m.share_with() == m.name()) return fail(path + ".share_with", "a model can't share with itself");
    } else if (m.shared_size() > 0) {
      return fail(path + ".shared", "'shared' needs 'share_with', the model whose parameters are used");
    }
    std::set<std::string> known(m.input().begin(), m.input().end()), nodes;
    if (known.empty()) known.insert("x");
    for (int i = 0; i < m.node_size(); ++i) {
      const proto::Node& n = m.node(i);
      const std::string node_path = at(path + ".node", i);
      for (int j = 0; j < n.input_size(); ++j)
        if (!known.contains(n.input(j)))
          return fail(at(node_path + ".input", j), "node '" + n.name() + "' reads '" + n.input(j) +
                                                       "', which is neither an input nor a node before it" +
                                                       did_you_mean(n.input(j), known));
      if (!known.insert(n.name()).second)
        return fail(node_path, "two nodes or inputs have the name '" + n.name() + "'");
      nodes.insert(n.name());
      constexpr std::string_view joins[] = {"add", "mul", "concat"};
      if (std::find(std::begin(joins), std::end(joins), n.join()) == std::end(joins))
        return fail(node_path + ".join",
                    "nodes can't be joined by '" + n.join() + "'" + did_you_mean(n.join(), joins));
    }
    for (int i = 0; i < m.output_size(); ++i)
      TN_RETURN_IF_ERROR(exists(nodes, "node", m.output(i), at(path + ".output", i)));
    return Status::ok();
  }

  template <class Binds>
  Status check_binds(const Binds& binds, const std::string& path) {
    std::set<std::string> roles;
    for (int i = 0; i < binds.size(); ++i) {
      const std::string bind_path = at(path + ".bind", i);
      const std::string& to = binds[i].to();
      if (!roles.insert(binds[i].role()).second)
        return fail(bind_path, "role '" + binds[i].role() + "' is bound twice");
      const size_t dot = to.find('.');
      if (dot == std::string::npos) continue;  // a column of the loss's stream
      std::set<std::string> sources = models_;
      sources.insert(streams_.begin(), streams_.end());
      const std::string source = to.substr(0, dot);
      if (!sources.contains(source))
        return fail(bind_path + ".to",
                    "'" + to + "' names no model or data stream" + did_you_mean(source, sources));
    }
    return Status::ok();
  }

  Status check_fit() {
    const proto::Recipe& r = recipe_.proto;
    if (r.data_size() == 0) return fail("", "the recipe has no 'data'");
    if (r.model_size() == 0) return fail("", "the recipe has no 'model'");
    if (r.loss_size() == 0) return fail("", "the recipe has no 'loss'");
    if (r.optimizer_size() == 0) return fail("", "the recipe has no 'optimizer'");
    if (r.train().has_epochs() == r.train().has_steps()) {
      const std::string both = r.train().has_epochs() ? ", not both" : "";
      return fail("train", "give train.epochs or train.steps" + both);
    }
    return Status::ok();
  }

  const Recipe& recipe_;
  std::set<std::string> streams_, models_;
};

}  // namespace

Status check_recipe(const Recipe& recipe) { return Checker(recipe).run(); }

}  // namespace tenon
