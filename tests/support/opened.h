// Recipes opened in a test: their training steps one by one, what they save, and whole runs that go on.
#pragma once

#include <catch2/catch_test_macros.hpp>
#include <map>
#include <string>

#include "core/train/experiment.h"
#include "core/train/fit.h"
#include "core/train/run_folder.h"
#include "core/train/step.h"
#include "tests/support/device.h"

namespace tenon::test {

// The shipped plugins, and those of one file of the tests.
inline std::unique_ptr<Catalog> load_plugins(const std::string& file = "") {
  const std::string build = TENON_BINARY_DIR;
  auto catalog = std::make_unique<Catalog>();
  REQUIRE(catalog->add_folder(build + "/plugins").is_ok());
  if (!file.empty()) REQUIRE(catalog->add_file(build + "/tests/plugins/" + file).is_ok());
  return catalog;
}

struct Opened {
  std::unique_ptr<Runtime> runtime = test::runtime();
  std::unique_ptr<Experiment> experiment;  // null where the recipe was refused
  Status status;                           // why

  Opened(Catalog& catalog, const std::string& text) {
    auto recipe = parse_recipe(text, "test.txtpb");
    INFO(recipe.status().message());
    REQUIRE(recipe.is_ok());
    auto opened = Experiment::open(*runtime, catalog, *recipe, "");
    if (opened)
      experiment = std::move(opened).value();
    else
      status = opened.status();
  }

  Result<StepResult> try_step(int64_t n) {
    INFO(status.message());
    REQUIRE(experiment);
    Graph graph(*runtime);
    return training_step(*experiment, graph, n);
  }
  StepResult step(int64_t n) {
    auto r = try_step(n);
    INFO(r.status().message());
    REQUIRE(r.is_ok());
    return *r;
  }

  std::map<std::string, HostArray> saved() const {
    std::map<std::string, HostArray> out;
    for (const auto& [name, array] : experiment->saved_arrays()) out[name] = array.to_host().value();
    return out;
  }
  // The first element of what is saved under a name.
  double saved(const std::string& name) const {
    const auto all = saved();
    INFO("is anything saved as " << name << "?");
    REQUIRE(all.contains(name));
    return all.at(name).at(0);
  }
};

// Runs an opened recipe in a folder, or the rest of what was begun there; what it ends with.
inline MetricValues run_in_folder(Experiment& experiment, const std::string& folder, bool resume) {
  auto out = RunFolder::open(folder, resume, experiment.recipe());
  REQUIRE(out.is_ok());
  Observer quiet;
  const auto first = resume ? out->restore(experiment) : Result<int64_t>(int64_t{0});
  INFO(first.status().message());
  REQUIRE(first.is_ok());
  const auto summary = run_recipe(experiment, &*out, quiet, *first);
  INFO(summary.status().message());
  REQUIRE(summary.is_ok());
  return summary->metrics;
}

}  // namespace tenon::test
