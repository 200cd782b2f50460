// One plugin file: checked from the outside, loaded, entered and its tables verified.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/abi/tenon_plugin.h"
#include "core/base/status.h"

namespace tenon {

class PluginLibrary {
 public:
  // Loads `path` and calls its entry with `host`. Never unloaded: code of a plugin may be on a stack or in a table
  // until the process ends. Errors: not there, not a library, another architecture, another ABI major, missing
  // extension or op, what the entry says or throws, tables that cannot be.
  static Result<std::unique_ptr<PluginLibrary>> load(const std::string& path, const tn_host& host);
  const std::string& path() const { return path_; }
  const tn_plugin& table() const { return *table_; }
  // deinit, by the one who loaded, in reverse order of loading.
  void deinit();

 private:
  std::string path_;
  const tn_plugin* table_ = nullptr;
};

// What can be told of a file without running its code: a complete ELF library for this machine that exports
// tenon_plugin_v1.
Status check_plugin_file(const std::string& path);

}  // namespace tenon
