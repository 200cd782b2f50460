#include "tools/zoo/journal.h"

#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/io/file.h"

namespace tenon::zoo {

Result<Journal> Journal::open(const std::string& folder) {
  TN_RETURN_IF_ERROR(make_folders(folder));
  const std::string path = (std::filesystem::path(folder) / "runs.jsonl").string();
  std::map<std::string, MetricValues> done;
  bool torn = false;
  if (std::ifstream in(path); in)
    for (std::string line; std::getline(in, line);) {
      torn = in.eof();  // no newline after it
      const auto j = nlohmann::json::parse(line, nullptr, false);
      if (j.is_discarded() || !j.contains("recipe") || !j.contains("metrics")) continue;
      MetricValues& values = done[j["recipe"].get<std::string>()];
      for (const auto& [name, value] : j["metrics"].items())
        if (value.is_number()) values[name] = value.get<double>();
    }
  TN_ASSIGN(AppendFile file, AppendFile::open(path));
  if (torn) TN_RETURN_IF_ERROR(file.append("\n"));
  Journal journal(std::move(file));
  journal.done_ = std::move(done);
  return journal;
}

const MetricValues* Journal::find(const Job& job) const {
  const auto it = done_.find(job.fingerprint);
  return it == done_.end() ? nullptr : &it->second;
}

Status Journal::add(const Description& d, const Job& job, const MetricValues& metrics) {
  nlohmann::json values = nlohmann::json::object();
  for (const auto& [name, value] : metrics)
    if (std::isfinite(value)) values[name] = value;
  const nlohmann::json line = {{"run", job.name(d)}, {"recipe", job.fingerprint}, {"metrics", values}};
  TN_RETURN_IF_ERROR(file_.append(line.dump() + "\n"));
  done_[job.fingerprint] = metrics;
  return Status::ok();
}

}  // namespace tenon::zoo
