// A recipe as loaded: the message of recipe.proto, and where in the file (or on the command line) each field
// was given, so that every complaint about it can point there.
#pragma once

#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>

#include "core/base/status.h"
#include "core/data/options.h"
#include "core/train/recipe.pb.h"

namespace tenon {

struct Recipe {
  proto::Recipe proto;
  std::string path;  // of the file, for messages
  std::string dir;   // its folder: what relative names in it refer to; "" is the current one

  // The place of a field by its path ("optimizer.options.lr", "loss[1].weight",
  // "model.layer[0].linear.units"): "recipe.txtpb:7", or "--set loss[1].weight" when it was set there. A
  // field that was not given has the place of the message that would hold it; a repeated field without an
  // index means its first element.
  std::string where(std::string_view field_path) const;

  // Canonical path -> place, filled by the loader.
  std::map<std::string, std::string, std::less<>> places;
};

// Reads, overrides and checks a recipe. `path`: the file, or a folder that holds recipe.txtpb. `sets`:
// "path=value" each, in order. Errors: what parse_recipe, set_field and check_recipe say; no such file.
Result<Recipe> load_recipe(const std::string& path, std::span<const std::string> sets = {});

// The text of a recipe; `path` is for messages and `dir`. Errors are of the form "recipe.txtpb:7: unknown
// field 'optimiser' (did you mean 'optimizer'?)".
Result<Recipe> parse_recipe(std::string_view text, std::string path);

// Sets one field: "train.epochs=5", "optimizer.options.lr=0.01", "data.transform[0].options.factor=2",
// "loss[1].weight=0.5", "loss[distill].weight=0.5" (by name or id), "model.layer[0].mlp.hidden=[64,32]",
// "metric[1]={id: \"top_k\" options {k: 3}}" (one past the end appends). On error the recipe is as before.
// Errors: unknown path (with the nearest name), a value of another type (with the expected one), an index out
// of range, an index needed.
Status set_field(Recipe& recipe, std::string_view assignment);

// What can be told without data or plugins: required fields, ranges, regular expressions, unique names,
// schedules, bindings to models and streams that exist.
Status check_recipe(const Recipe& recipe);

// The recipe as text that parse_recipe reads back to an equal message.
std::string to_text(const proto::Recipe& recipe);

// Options as readers, transforms, metrics and schedules take them.
Options to_options(const proto::Options& options);
// `base` with the entries of `changes` in place of, or after, its own.
proto::Options merged(const proto::Options& base, const proto::Options& changes);

}  // namespace tenon
