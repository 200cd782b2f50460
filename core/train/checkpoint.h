// Checkpoints: a folder for each, with tensors.safetensors (which other programs read) and state.pb (the
// rest).
//
//   checkpoints/step-00000200/{tensors.safetensors,state.pb}    a checkpoint; made under a temporary name and
//   renamed checkpoints/LATEST                                          the name of the last one; replaced by
//   renaming checkpoints/BEST                                            the name of the best one, and its
//   metric's value
//
// A kill at any moment leaves whole checkpoints only: what is not yet renamed does not count and is removed
// by the next save. state.pb has sizes and checksums of all, so that damage is found before anything is used.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/base/status.h"
#include "core/io/safetensors.h"

namespace tenon {

struct Checkpoint {
  struct Point {
    int64_t step = 0;
    std::string name;  // "val/accuracy"
    double value = 0;
    friend bool operator==(const Point&, const Point&) = default;
  };

  int64_t step = 0, epoch = 0;  // done
  uint64_t seed = 0;
  std::string recipe;                        // resolved, as text
  NamedArrays tensors;                       // parameters, states of models, optimizer slots
  std::map<std::string, double> scalars;     // counts and the like, exact up to 2^53
  std::map<std::string, std::string> blobs;  // states of plugins, the data schema, ..
  std::vector<Point> history;                // metrics so far
};

// Writes dir/step-NNNNNNNN and points LATEST to it; returns its path. A checkpoint of the same step is
// replaced. Errors: the disk (then the checkpoints before are as they were).
Result<std::string> save_checkpoint(const std::string& dir, const Checkpoint& checkpoint);

// Reads a checkpoint folder, or the latest one of a folder of checkpoints (or of a run, in "checkpoints").
// All sizes and checksums are verified. Errors: no checkpoint; a damaged file, named, with the path of the
// newest other checkpoint that is whole; a newer layout.
Result<Checkpoint> load_checkpoint(const std::string& path);

// The folder of the checkpoint last completed in `dir`. Error: there is none.
Result<std::string> latest_checkpoint(const std::string& dir);
// The folder of the best one marked. Error: none is marked.
Result<std::string> best_checkpoint(const std::string& dir);
// Points BEST to a checkpoint (a path as save_checkpoint gives it).
Status mark_best(const std::string& checkpoint_path, double value);

// Removes all but the last `keep` checkpoints and the best one; left-overs of interrupted saves; and
// checkpoints of later steps than the latest, which belong to a course that was given up by going on from an
// earlier step.
Status prune_checkpoints(const std::string& dir, int64_t keep);

// A tensor as a model wants it.
struct Wanted {
  std::string name;
  DType dtype = DType::f32;
  Shape shape;
};
// The wanted tensors, in order, out of a checkpoint's. Error: the checkpoint is of another model: the first
// few names that are missing, or of another shape or type, with the nearest name there is.
Result<std::vector<const HostArray*>> match_tensors(const NamedArrays& have,
                                                    const std::vector<Wanted>& wanted);

}  // namespace tenon
