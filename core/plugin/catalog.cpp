#include "core/plugin/catalog.h"

#include <algorithm>
#include <filesystem>

#include "core/base/nearest.h"
#include "core/plugin/kernel.h"

namespace tenon {

namespace fs = std::filesystem;

std::string short_kind(std::string_view kind) {
  if (kind.starts_with("tenon.")) kind.remove_prefix(6);
  return std::string(kind.substr(0, kind.rfind('/')));
}

Catalog::Catalog(HostHooks hooks)
    : hooks_(std::make_unique<HostHooks>(std::move(hooks))), host_(make_host(*hooks_)), kernels_(std::make_unique<KernelOps>(*this)) {
  hooks_->find_op = [this](const char* id) -> const void* { return kernels_->find(id); };
}

Catalog::~Catalog() {
  kernels_.reset();
  while (!libraries_.empty()) {
    libraries_.back()->deinit();
    libraries_.pop_back();
  }
}

Status Catalog::load(const std::string& path) {
  std::error_code ec;
  const std::string canonical = fs::weakly_canonical(path, ec).string();
  const std::string& name = canonical.empty() ? path : canonical;
  for (const auto& l : libraries_)
    if (l->path() == name) return Status::ok();
  TN_ASSIGN(auto library, PluginLibrary::load(name, host_));
  const tn_plugin& table = library->table();
  for (uint32_t i = 0; i < table.n_descriptors; ++i) {
    const tn_descriptor* d = table.descriptors[i];
    entries_[{d->kind, d->id}].push_back({d, library.get()});
  }
  libraries_.push_back(std::move(library));
  return Status::ok();
}

Status Catalog::add_file(const std::string& path) {
  Status s = load(path);
  candidates_.push_back({path, true, s});
  return s;
}

Status Catalog::add_folder(const std::string& path) {
  std::error_code ec;
  if (!fs::is_directory(path, ec)) return not_found(path + ": no such plugin folder");
  std::vector<std::string> files;
  for (fs::directory_iterator it(path, ec), end; !ec && it != end; it.increment(ec))
    if (it->path().extension() == ".so") files.push_back(it->path().string());
  if (ec) return invalid(path + ": the folder can't be read: " + ec.message());
  std::sort(files.begin(), files.end());
  for (const std::string& f : files) candidates_.push_back({f, false, {}});
  return Status::ok();
}

void Catalog::try_candidates(std::string_view stem) {
  for (PluginCandidate& c : candidates_) {
    if (c.tried || (!stem.empty() && fs::path(c.path).stem() != stem)) continue;
    c.tried = true;
    c.status = load(c.path);
  }
}

Result<const tn_descriptor*> Catalog::find(std::string_view kind, std::string_view id) {
  const std::pair key{std::string(kind), std::string(id)};
  const std::string_view name = id.substr(0, id.rfind('/'));  // a kernel's id is that of an op, "swiglu/1"
  try_candidates(name.substr(name.rfind('.') + 1));
  auto it = entries_.find(key);
  if (it == entries_.end()) {
    try_candidates("");
    it = entries_.find(key);
  }
  if (it == entries_.end()) {
    std::vector<std::string> ids;
    for (const auto& [known, unused] : entries_)
      if (known.first == kind) ids.push_back(known.second);
    const std::string what = "no " + short_kind(kind) + " '" + std::string(id) + "'";
    if (ids.empty()) return not_found(what + ": no plugin of this kind was found (see tenon plugins -v)");
    return not_found(what + did_you_mean(id, ids));
  }
  if (it->second.size() > 1)
    return invalid(short_kind(kind) + " '" + std::string(id) + "' is in two files, " + it->second[0].library->path() + " and " +
                   it->second[1].library->path() + "; take one of them off the plugin path");
  return it->second[0].descriptor;
}

Status Catalog::check_id(std::string_view kind, std::string_view id, std::string_view built_in) {
  if (id == built_in || find(kind, id).status().code() != Code::not_found) return Status::ok();
  std::vector<std::string> ids{std::string(built_in)};
  for (const tn_descriptor* d : list(kind)) ids.emplace_back(d->id);
  return not_found("no " + short_kind(kind) + " '" + std::string(id) + "'" + did_you_mean(id, ids));
}

std::vector<const tn_descriptor*> Catalog::list(std::string_view kind) {
  try_candidates("");
  std::vector<const tn_descriptor*> out;
  for (const auto& [key, entries] : entries_)
    if (kind.empty() || key.first == kind)
      for (const Entry& e : entries) out.push_back(e.descriptor);
  return out;
}

const std::string& Catalog::file_of(const tn_descriptor* d) const {
  static const std::string none;
  for (const auto& [key, entries] : entries_)
    for (const Entry& e : entries)
      if (e.descriptor == d) return e.library->path();
  return none;
}

}  // namespace tenon
