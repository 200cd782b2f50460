// tenon eval and tenon predict: a trained model on a part of the data.
#include <cmath>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "core/train/run_folder.h"
#include "tools/tenon/commands.h"
#include "tools/tenon/session.h"

namespace tenon::cli {
namespace {

struct EvalFlags : RecipeFlags {
  std::string checkpoint, split = "test", format = "csv", out;
  bool json = false;

  void add(CLI::App& c) {
    add_to(c);
    c.add_option("--checkpoint", checkpoint, "Checkpoint folder, or run folder (its latest one)")->required();
    c.add_option("--split", split, "train, val or test")->capture_default_str();
  }
};

Result<Session> open_trained(const EvalFlags& flags) {
  TN_ASSIGN(Session s, open_session(flags));
  TN_RETURN_IF_ERROR(restore_checkpoint(flags.checkpoint, *s.experiment, nullptr));
  if (!s.experiment->has_split(flags.split))
    return not_found("--split: the recipe's data has no part '" + flags.split + "'");
  return s;
}

int evaluate(const EvalFlags& flags) {
  auto session = open_trained(flags);
  if (!session) return report(session.status());
  auto metrics = session->experiment->evaluate(flags.split, 0);
  if (!metrics) return report(metrics.status());
  if (flags.json) {
    std::printf("%s\n", nlohmann::json({{"metrics", *metrics}}).dump().c_str());
    return 0;
  }
  for (const auto& [name, value] : *metrics) {
    const size_t slash = name.find('/');
    std::printf("%s %s: %.4g\n", name.substr(0, slash).c_str(), name.substr(slash + 1).c_str(), value);
  }
  return 0;
}

// One row a sample: its id, the predicted class (where there are several outputs), the outputs.
Status write_predictions(const EvalFlags& flags, Experiment& e, std::ostream& out) {
  const Schema& schema = e.streams()[0].train->schema;
  bool header = flags.format == "csv";
  int64_t row = 0;
  return e.predict(flags.split, [&](const Columns& columns, const HostArray& y) -> Status {
    const int64_t width = y.shape().rank() > 1 ? y.shape().back() : 1;
    const int64_t rows = width > 0 ? y.numel() / width : 0;
    const auto ids = columns.find("id");
    if (header) {
      out << "id" << (width > 1 ? ",prediction" : "");
      for (int64_t k = 0; k < width; ++k) out << (width > 1 ? ",output" + std::to_string(k) : std::string(",prediction"));
      out << "\n";
      header = false;
    }
    for (int64_t i = 0; i < rows; ++i, ++row) {
      const bool one_id_each = ids != columns.end() && ids->second.numel() == rows;
      const auto id = static_cast<int64_t>(one_id_each ? ids->second.at(i) : static_cast<double>(row));
      int64_t best = 0;
      for (int64_t k = 1; k < width; ++k)
        if (y.at(i * width + k) > y.at(i * width + best)) best = k;
      const std::string name = static_cast<size_t>(best) < schema.class_names.size() ? schema.class_names[static_cast<size_t>(best)] : std::to_string(best);
      if (flags.format == "jsonl") {
        nlohmann::json j{{"id", id}};
        if (width > 1) j["prediction"] = name;
        std::vector<double> values;
        for (int64_t k = 0; k < width; ++k) values.push_back(y.at(i * width + k));
        if (width > 1) j["outputs"] = values;
        else j["prediction"] = values[0];
        out << j.dump() << "\n";
      } else {
        out << id;
        if (width > 1) out << "," << name;
        for (int64_t k = 0; k < width; ++k) out << "," << nlohmann::json(y.at(i * width + k)).dump();
        out << "\n";
      }
    }
    return out ? Status::ok() : bad_state("the predictions can't be written (is the disk full?)");
  });
}

int predict(const EvalFlags& flags) {
  if (flags.format != "csv" && flags.format != "jsonl")
    return report(invalid("--format: '" + flags.format + "' is neither csv nor jsonl"));
  auto session = open_trained(flags);
  if (!session) return report(session.status());
  if (flags.out.empty()) return report(write_predictions(flags, *session->experiment, std::cout));
  std::ostringstream text;
  if (Status s = write_predictions(flags, *session->experiment, text); !s.is_ok()) return report(s);
  return report(write_atomically(flags.out, text.str()));
}

}  // namespace

void add_eval(CLI::App& app, Command& run) {
  auto flags = std::make_shared<EvalFlags>();
  CLI::App* c = app.add_subcommand("eval", "Measure a trained model");
  flags->add(*c);
  c->add_flag("--json", flags->json, "One JSON object on stdout");
  c->callback([flags, &run] { run = [flags] { return evaluate(*flags); }; });
}

void add_predict(CLI::App& app, Command& run) {
  auto flags = std::make_shared<EvalFlags>();
  CLI::App* c = app.add_subcommand("predict", "Write a trained model's outputs");
  flags->add(*c);
  c->add_option("--format", flags->format, "csv or jsonl")->capture_default_str();
  c->add_option("--out", flags->out, "File (default: stdout)");
  c->callback([flags, &run] { run = [flags] { return predict(*flags); }; });
}

}  // namespace tenon::cli
