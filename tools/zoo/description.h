// What a zoo folder says: its runs and claims, checked.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/base/status.h"
#include "core/train/recipe.h"
#include "core/train/zoo.pb.h"

namespace tenon::zoo {

struct Description {
  proto::Zoo proto;
  std::string slug, dir, path;  // models/any_loss -> "any_loss", "models/any_loss", "models/any_loss/zoo.txtpb"

  // "zoo.txtpb:7" of a run or claim.
  std::string where_run(int index) const { return place(run_lines, index); }
  std::string where_claim(int index) const { return place(claim_lines, index); }
  std::string where_curve(int index) const { return place(curve_lines, index); }
  std::vector<int> run_lines, claim_lines, curve_lines;

 private:
  std::string place(const std::vector<int>& lines, int index) const {
    return path + ":" + std::to_string(lines[static_cast<size_t>(index)]);
  }
};

// Folders in `root` that hold a zoo.txtpb, by name. Error: no such folder.
Result<std::vector<std::string>> slugs(const std::string& root);

// Reads and checks root/slug/zoo.txtpb. Errors, with file and line: what the text format says; no name, run or claim; a
// claim or curve about a run that is not there; a claim without a bound; a curve without a name or with unequal numbers of x and runs.
Result<Description> load_description(const std::string& root, const std::string& slug);

// One training run of an experiment.
struct Job {
  int run = 0;  // index in the description
  std::string setting, repeat;
  bool has_seed = false;
  int64_t seed = 0;
  Recipe recipe;
  std::string fingerprint;  // of the recipe: a result belongs to exactly this

  // "bce, pima, fold 3, seed 0"
  std::string name(const Description& d) const;
};

// All runs for all settings, repeats and seeds, with their recipes checked. `seeds`, when not empty, are used in place of
// those of the description. Errors: what load_recipe says, with the run's place; a placeholder in `set` that has no
// values, or the other way round.
Result<std::vector<Job>> jobs_of(const Description& d, const std::vector<int64_t>& seeds);

}  // namespace tenon::zoo
