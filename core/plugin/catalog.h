// Which plugins there are: files found on explicit paths, their descriptors by kind and id.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/plugin/host.h"
#include "core/plugin/library.h"

namespace tenon {

// A file that may be a plugin, and what came of it.
struct PluginCandidate {
  std::string path;
  bool tried = false;  // files in folders are loaded only when something they may hold is asked for
  Status status;
};

class KernelOps;

class Catalog {
 public:
  explicit Catalog(HostHooks hooks = {});
  ~Catalog();  // deinit in reverse order
  Catalog(const Catalog&) = delete;
  Catalog& operator=(const Catalog&) = delete;

  // Loads this file now. Errors: as PluginLibrary::load, or an id that another file has already.
  Status add_file(const std::string& path);
  // Notes every *.so of a folder, not recursively. A file is loaded when an id is asked for that it is named after
  // (focal.so holds focal), or when no file so named has it. A file that can't be used is noted among the candidates and
  // is no error; a folder that is not there is.
  Status add_folder(const std::string& path);

  // `kind` is a TN_KIND_* id. Errors: unknown id, with the nearest and those that exist; duplicate ids.
  Result<const tn_descriptor*> find(std::string_view kind, std::string_view id);
  // Error: no plugin has this id, which the host does not have itself as `built_in` either; with the nearest.
  Status check_id(std::string_view kind, std::string_view id, std::string_view built_in);
  // All descriptors of a kind ("" = all), sorted by kind and id. Loads every candidate.
  std::vector<const tn_descriptor*> list(std::string_view kind = {});
  // The file that a descriptor comes from.
  const std::string& file_of(const tn_descriptor* d) const;
  const std::vector<PluginCandidate>& candidates() const { return candidates_; }
  const tn_host& host() const { return host_; }
  // Ops of kernel plugins.
  KernelOps& kernels() { return *kernels_; }

 private:
  Status load(const std::string& path);
  void try_candidates(std::string_view stem);  // "" = all

  std::unique_ptr<HostHooks> hooks_;
  tn_host host_;
  std::vector<std::unique_ptr<PluginLibrary>> libraries_;
  struct Entry {
    const tn_descriptor* descriptor;
    const PluginLibrary* library;
  };
  std::map<std::pair<std::string, std::string>, std::vector<Entry>> entries_;  // (kind, id)
  std::vector<PluginCandidate> candidates_;
  std::unique_ptr<KernelOps> kernels_;
};

// "loss" for "tenon.loss/1".
std::string short_kind(std::string_view kind);

}  // namespace tenon
