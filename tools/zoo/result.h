// From the metrics of all runs to a verdict on each claim.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/train/observer.h"
#include "tools/zoo/description.h"

namespace tenon::zoo {

// A metric over all settings, repeats and seeds of a run.
struct Sample {
  std::vector<double> values;  // in the order of the jobs
  double mean() const;
  double median() const;
  double deviation() const;  // of the sample (n - 1); 0 for one value
  double min() const;
  double max() const;
};

struct RunResult {
  std::string name;
  std::vector<std::string> jobs;  // "pima, 3, seed 0"; what values belong to
  std::map<std::string, Sample> metrics;
};

struct ClaimResult {
  proto::ZooClaim claim;
  double measured = 0;
  int wins = 0, ties = 0, losses = 0;  // over the settings, with `minus`
  bool reproduced = false;
};

struct Outcome {
  std::string slug, name, statement, source;
  std::vector<RunResult> runs;
  std::vector<ClaimResult> claims;
  std::vector<proto::ZooCurve> curves;
  bool reproduced() const;  // every claim

  const RunResult& run(const std::string& name) const;
  nlohmann::ordered_json json() const;
};

// `metrics`: of each job. Error: a claim or curve about a metric that a run does not report, with its place.
Result<Outcome> outcome_of(const Description& d, const std::vector<Job>& jobs, const std::vector<MetricValues>& metrics);

// That the claims and curves with this job's run find their metric: told after the first run, not after the last.
Status check_metrics(const Description& d, const Job& job, const MetricValues& metrics);

// What a claim asks for: "f1 of any_loss - bce >= 0.09".
std::string condition(const proto::ZooClaim& claim);

}  // namespace tenon::zoo
