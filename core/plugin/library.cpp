#include "core/plugin/library.h"

#include <elf.h>

#include <algorithm>
#include <boost/dll/library_info.hpp>
#include <boost/dll/shared_library.hpp>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <set>

#include "core/graph/op.h"
#include "core/plugin/call.h"
#include "core/plugin/host.h"

namespace tenon {
namespace {

#if defined(__x86_64__)
constexpr uint16_t kMachine = EM_X86_64;
constexpr const char* kMachineName = "x86-64";
#elif defined(__aarch64__)
constexpr uint16_t kMachine = EM_AARCH64;
constexpr const char* kMachineName = "AArch64";
#endif

// Boost.DLL is not safe for use from several threads on every platform.
std::mutex& dll_mutex() {
  static std::mutex m;
  return m;
}

// Every library that was loaded; never destroyed, since that would unload them (see the header).
std::vector<boost::dll::shared_library>& loaded() {
  static auto* libraries = new std::vector<boost::dll::shared_library>();
  return *libraries;
}

Status check_option(const std::string& who, const tn_option* o, std::set<std::string>& names) {
  if (!o) return invalid(who + ": an option is a null pointer");
  if (!TN_HAS(o, name) || !TN_COVERS(o, flags)) return invalid(who + ": an option has no name");
  if (!names.insert(o->name).second) return invalid(who + ": option '" + o->name + "' is declared twice");
  const std::string what = who + ": option '" + o->name + "'";
  if (o->type < TN_VALUE_BOOL || o->type > TN_VALUE_JSON)
    return invalid(what + " has the unknown type " + std::to_string(o->type));
  if (TN_COVERS(o, n_choices) && o->n_choices > 0 && !TN_HAS(o, choices))
    return invalid(what + " counts choices but lists none");
  if (TN_COVERS(o, fallback) && o->fallback.type != TN_VALUE_NONE && o->fallback.type != o->type)
    return invalid(what + " has a default of another type than its own");
  if ((o->flags & TN_OPTION_MIN) && (o->flags & TN_OPTION_MAX) && !(o->min <= o->max))
    return invalid(what + " has an empty range");
  return Status::ok();
}

Status check_descriptor(const std::string& file, const tn_descriptor* d, uint32_t index) {
  const std::string at = file + ": descriptor " + std::to_string(index);
  if (!d) return invalid(at + " is a null pointer");
  if (d->struct_size > 65536) return invalid(at + " claims a size of " + std::to_string(d->struct_size) + " bytes");
  if (!TN_HAS(d, id) || !*d->id) return invalid(at + " has no id");
  if (!TN_HAS(d, kind) || !*d->kind) return invalid(at + " ('" + d->id + "') has no kind");
  const std::string who = file + ": '" + d->id + "'";
  if (!TN_HAS(d, vtable)) return invalid(who + " has no table of functions");
  if (TN_COVERS(d, n_roles)) {
    if (d->n_options > 1024 || d->n_roles > 1024)
      return invalid(who + " claims " + std::to_string(std::max(d->n_options, d->n_roles)) + " options or roles");
    if (d->n_options > 0 && !d->options) return invalid(who + " counts options but lists none");
    if (d->n_roles > 0 && !d->roles) return invalid(who + " counts roles but lists none");
    std::set<std::string> names;
    for (uint32_t i = 0; i < d->n_options; ++i) TN_RETURN_IF_ERROR(check_option(who, d->options[i], names));
    std::set<std::string> roles;
    for (uint32_t i = 0; i < d->n_roles; ++i) {
      const tn_role* r = d->roles[i];
      if (!r || !TN_HAS(r, name)) return invalid(who + ": role " + std::to_string(i) + " has no name");
      if (!roles.insert(r->name).second) return invalid(who + ": role '" + r->name + "' is declared twice");
    }
  }
  return Status::ok();
}

Status check_table(const std::string& file, const tn_plugin* p, const tn_host& host) {
  if (!p) return invalid(file + ": the entry returned no table");
  if (!TN_COVERS(p, descriptors)) return invalid(file + ": the plugin's table is too short to hold descriptors");
  if (p->struct_size > 65536)
    return invalid(file + ": the plugin's table claims a size of " + std::to_string(p->struct_size) + " bytes");
  if (p->n_descriptors == 0 || p->n_descriptors > 4096 || !p->descriptors)
    return invalid(file + ": the plugin claims " + std::to_string(p->n_descriptors) + " descriptors");
  if (p->n_required_extensions > 0 && !p->required_extensions)
    return invalid(file + ": required extensions are counted but not listed");
  for (uint32_t i = 0; i < p->n_required_extensions; ++i)
    if (!host.get_extension(&host, p->required_extensions[i]))
      return unsupported(file + ": the plugin requires the extension '" + p->required_extensions[i] +
                         "', which this host does not have");
  if (p->n_required_ops > 0 && !p->required_ops) return invalid(file + ": required ops are counted but not listed");
  for (uint32_t i = 0; i < p->n_required_ops; ++i)
    if (!find_op(p->required_ops[i]))
      return unsupported(file + ": the plugin requires the op '" + p->required_ops[i] + "', which this host does not have");
  for (uint32_t i = 0; i < p->n_descriptors; ++i) TN_RETURN_IF_ERROR(check_descriptor(file, p->descriptors[i], i));
  return Status::ok();
}

}  // namespace

Status check_plugin_file(const std::string& path) {
  std::error_code ec;
  const auto kind = std::filesystem::status(path, ec).type();
  if (kind == std::filesystem::file_type::not_found) return not_found(path + ": no such plugin file");
  if (kind != std::filesystem::file_type::regular) return invalid(path + ": a plugin must be a regular file");
  const auto size = std::filesystem::file_size(path, ec);
  std::ifstream in(path, std::ios::binary);
  Elf64_Ehdr h{};
  if (!in.read(reinterpret_cast<char*>(&h), sizeof h) || std::memcmp(h.e_ident, ELFMAG, SELFMAG) != 0)
    return invalid(path + ": not a shared library");
  if (h.e_ident[EI_CLASS] != ELFCLASS64 || h.e_machine != kMachine)
    return unsupported(path + ": a library for another architecture; this host is " + kMachineName);
  if (h.e_type != ET_DYN) return invalid(path + ": not a shared library");
  // Loading a file that ends early crashes when its missing pages are touched.
  if (h.e_phentsize != sizeof(Elf64_Phdr) || h.e_phoff + uint64_t{h.e_phnum} * sizeof(Elf64_Phdr) > size ||
      h.e_shoff + uint64_t{h.e_shnum} * sizeof(Elf64_Shdr) > size)
    return invalid(path + ": the library is truncated or damaged");
  in.seekg(static_cast<std::streamoff>(h.e_phoff));
  for (int i = 0; i < h.e_phnum; ++i) {
    Elf64_Phdr p{};
    if (!in.read(reinterpret_cast<char*>(&p), sizeof p) || p.p_filesz > size || p.p_offset > size - p.p_filesz)
      return invalid(path + ": the library is truncated or damaged");
  }
  std::vector<std::string> symbols;
  try {
    const std::lock_guard lock(dll_mutex());
    symbols = boost::dll::library_info(path).symbols();
  } catch (const std::exception&) {
    return invalid(path + ": the library's symbol table can't be read");
  }
  bool here = false;
  std::string other;
  for (const std::string& s : symbols) {
    here |= s == TN_ENTRY_NAME;
    if (s.starts_with("tenon_plugin_v") && s != TN_ENTRY_NAME) other = s;
  }
  if (here) return Status::ok();
  if (!other.empty())
    return unsupported(path + ": built for plugin ABI v" + other.substr(std::strlen("tenon_plugin_v")) +
                       ", this host speaks v1");
  return invalid(path + ": a library, but not a Tenon plugin: it does not export " TN_ENTRY_NAME);
}

namespace {

// A plugin may carry its own copy of the unwinder (-static-libgcc). An exception that it lets escape is then unwound
// by that copy, but asks this program's copy about the frames here, which aborts unless it has been at work before.
void ready_unwinder() {
  static const bool ready = [] {
    try {
      throw 0;
    } catch (int) {
      return true;
    }
  }();
  static_cast<void>(ready);
}

}  // namespace

Result<std::unique_ptr<PluginLibrary>> PluginLibrary::load(const std::string& path, const tn_host& host) {
  TN_RETURN_IF_ERROR(check_plugin_file(path));
  ready_unwinder();
  tn_entry_fn entry = nullptr;
  try {
    const std::lock_guard lock(dll_mutex());
    boost::dll::shared_library library(path, boost::dll::load_mode::rtld_now | boost::dll::load_mode::rtld_local);
    entry = &library.get<int32_t(const tn_host*, const tn_plugin**)>(TN_ENTRY_NAME);
    loaded().push_back(std::move(library));
  } catch (const std::exception& e) {
    return invalid(path + ": can't be loaded: " + e.what());
  }
  auto lib = std::make_unique<PluginLibrary>();
  lib->path_ = path;
  int32_t code = TN_STATUS_INTERNAL;
  try {
    code = entry(&host, &lib->table_);
  } catch (...) {
    return invalid(path + ": the plugin threw an exception out of its entry");
  }
  if (code != TN_STATUS_OK)
    return from_abi(code, path + ": the plugin refused to start (status " + std::to_string(code) + ")");
  TN_RETURN_IF_ERROR(check_table(path, lib->table_, host));
  return lib;
}

void PluginLibrary::deinit() {
  if (table_ && TN_HAS(table_, deinit)) table_->deinit();
  table_ = nullptr;
}

}  // namespace tenon
