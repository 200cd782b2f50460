// Finding data files and reading them whole. With core/io, the only part of core that touches the file
// system.
#pragma once

#include <string>
#include <string_view>

#include "core/base/status.h"

namespace tenon {

// The folder of data sets: $TENON_DATA when set, else "../shared/data" when that folder exists, else "".
std::string data_root_from_environment();

// The path of a data file: `name` itself when absolute; else relative to the recipe's folder; else relative
// to `data_root` (either may be ""). Where "name" is missing but "name.gz" exists, that is taken. `origin`
// says where the set is published and is repeated in the error, with every place that was looked at.
Result<std::string> find_data(std::string_view name, std::string_view recipe_dir, std::string_view data_root,
                              std::string_view origin = {});

// A whole file; gzip is recognised by its first two bytes and inflated. Errors: missing, a folder,
// unreadable, truncated or corrupt gzip, too large for memory.
Result<std::string> read_file(const std::string& path);

// Inflates gzip data (one or more members). `path` is for messages.
Result<std::string> gunzip(std::string_view compressed, std::string_view path);

}  // namespace tenon
