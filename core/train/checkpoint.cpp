#include "core/train/checkpoint.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <filesystem>
#include <unordered_map>

#include "core/base/nearest.h"
#include "core/io/file.h"
#include "core/train/checkpoint.pb.h"

namespace tenon {
namespace {

namespace fs = std::filesystem;

constexpr int kVersion = 1;
constexpr const char* kTensors = "tensors.safetensors";
constexpr const char* kState = "state.pb";

std::string folder_name(int64_t step) {
  char name[40];
  std::snprintf(name, sizeof name, "step-%08lld", static_cast<long long>(step));
  return name;
}

// The step of a checkpoint folder's name; -1 when it is none.
int64_t step_of(const std::string& name) {
  constexpr std::string_view prefix = "step-";
  if (!name.starts_with(prefix)) return -1;
  int64_t step = -1;
  const char* end = name.data() + name.size();
  const auto [stop, error] = std::from_chars(name.data() + prefix.size(), end, step);
  return error == std::errc{} && stop == end ? step : -1;
}

// Checkpoint folders in `dir`, oldest first.
std::vector<std::string> list(const std::string& dir) {
  std::vector<std::pair<int64_t, std::string>> found;
  std::error_code error;
  for (fs::directory_iterator it(dir, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (const int64_t step = step_of(name); step >= 0) found.emplace_back(step, name);
  }
  std::sort(found.begin(), found.end());
  std::vector<std::string> names;
  for (auto& [step, name] : found) names.push_back(std::move(name));
  return names;
}

bool is_checkpoint(const fs::path& p) {
  std::error_code error;
  return fs::is_regular_file(p / kState, error);
}

// The field crc32 as protobuf writes it: a byte of tag (number 15, four bytes of value), then the value.
std::string checksum_field(uint32_t crc) {
  std::string field(1, static_cast<char>(15 << 3 | 5));
  for (int shift = 0; shift < 32; shift += 8) field += static_cast<char>(crc >> shift & 0xff);
  return field;
}
constexpr size_t kChecksumField = 5;

Status damaged(const fs::path& file, std::string_view how) {
  return invalid("checkpoint file '" + file.string() + "' is damaged: " + std::string(how));
}

Result<proto::CheckpointState> read_state(const fs::path& folder) {
  const fs::path file = folder / kState;
  TN_ASSIGN(const std::string bytes, read_bytes(file.string()));
  // The checksum first, by its place at the end: protobuf need not see damaged bytes.
  if (bytes.size() < kChecksumField) return damaged(file, "it is truncated");
  const std::string_view covered = std::string_view(bytes).substr(0, bytes.size() - kChecksumField);
  if (!bytes.ends_with(checksum_field(crc32_of(covered)))) return damaged(file, "its checksum does not fit");
  proto::CheckpointState state;
  if (!state.ParseFromString(bytes)) return damaged(file, "it is not a checkpoint");
  if (state.version() > kVersion)
    return unsupported("checkpoint '" + folder.string() + "' has layout " + std::to_string(state.version()) +
                       ", this program knows up to " + std::to_string(kVersion) + "; use a newer program");
  return state;
}

Result<Checkpoint> load_folder(const fs::path& folder) {
  TN_ASSIGN(proto::CheckpointState state, read_state(folder));
  Checkpoint c;
  for (const proto::FileSum& sum : state.file()) {
    if (sum.name() != kTensors)
      return damaged(folder / kState, "it lists an unknown file '" + sum.name() + "'");
    const fs::path file = folder / sum.name();
    TN_ASSIGN(const std::string bytes, read_bytes(file.string()));
    if (bytes.size() != sum.size())
      return damaged(
          file, "it has " + std::to_string(bytes.size()) + " bytes instead of " + std::to_string(sum.size()));
    if (crc32_of(bytes) != sum.crc32()) return damaged(file, "its checksum does not fit");
    TN_ASSIGN(Safetensors tensors, parse_safetensors(bytes, file.string()));
    c.tensors = std::move(tensors.tensors);
  }
  c.step = state.step();
  c.epoch = state.epoch();
  c.seed = state.seed();
  c.recipe = state.recipe();
  c.scalars = {state.scalars().begin(), state.scalars().end()};
  c.blobs = {state.blobs().begin(), state.blobs().end()};
  for (const proto::MetricPoint& p : state.history()) c.history.push_back({p.step(), p.name(), p.value()});
  return c;
}

// A pointer file holds the name of a checkpoint folder, then perhaps more after a space.
std::optional<std::string> pointed(const std::string& dir, const char* pointer) {
  const auto bytes = read_bytes((fs::path(dir) / pointer).string());
  if (!bytes) return std::nullopt;
  const std::string name = bytes->substr(0, bytes->find_first_of(" \n"));
  if (step_of(name) < 0 || !is_checkpoint(fs::path(dir) / name)) return std::nullopt;
  return name;
}

// The newest checkpoint beside `folder` that loads without an error.
std::optional<std::string> newest_whole(const fs::path& folder) {
  const std::string dir = folder.parent_path().string();
  const auto names = list(dir.empty() ? "." : dir);
  for (auto it = names.rbegin(); it != names.rend(); ++it)
    if (*it != folder.filename().string() && load_folder(folder.parent_path() / *it))
      return (folder.parent_path() / *it).string();
  return std::nullopt;
}

std::string removal_name(const fs::path& p) {
  return (p.parent_path() / (".removed-" + p.filename().string() + "-" + std::to_string(::getpid())))
      .string();
}

// Out of sight by one rename first: a kill in the middle of removing leaves no half checkpoint under its
// name.
Status remove_checkpoint(const fs::path& folder) {
  const std::string aside = removal_name(folder);
  std::error_code error;
  fs::remove_all(aside, error);
  if (::rename(folder.c_str(), aside.c_str()) != 0)
    return write_error("can't remove the old checkpoint", folder.string(), errno);
  fs::remove_all(aside, error);
  return Status::ok();
}

// Puts the finished folder in place. One of the same step is swapped for it in a single operation where the
// file system can do that, so that there is no moment without it.
Status put_in_place(const std::string& temporary, const fs::path& final) {
  std::error_code error;
  if (fs::exists(final, error)) {
    if (::renameat2(AT_FDCWD, temporary.c_str(), AT_FDCWD, final.c_str(), RENAME_EXCHANGE) == 0) {
      fs::remove_all(temporary, error);
      return Status::ok();
    }
    TN_RETURN_IF_ERROR(remove_checkpoint(final));
  }
  if (::rename(temporary.c_str(), final.c_str()) != 0)
    return write_error("can't write the checkpoint", final.string(), errno);
  return Status::ok();
}

Status write_folder(const std::string& folder, const Checkpoint& c) {
  proto::CheckpointState state;
  state.set_version(kVersion);
  state.set_step(c.step);
  state.set_epoch(c.epoch);
  state.set_seed(c.seed);
  state.set_recipe(c.recipe);
  for (const auto& [name, value] : c.scalars) (*state.mutable_scalars())[name] = value;
  for (const auto& [name, value] : c.blobs) (*state.mutable_blobs())[name] = value;
  for (const Checkpoint::Point& p : c.history) {
    proto::MetricPoint* out = state.add_history();
    out->set_step(p.step);
    out->set_name(p.name);
    out->set_value(p.value);
  }
  TN_RETURN_IF_ERROR(make_folders(folder));
  const fs::path file = fs::path(folder) / kTensors;
  uint32_t crc = 0;
  const TextMap metadata = {{"format", "tenon"}, {"step", std::to_string(c.step)}};
  TN_RETURN_IF_ERROR(write_safetensors(file.string(), c.tensors, metadata, &crc));
  proto::FileSum* sum = state.add_file();
  sum->set_name(kTensors);
  sum->set_size(fs::file_size(file));
  sum->set_crc32(crc);
  const size_t size = state.ByteSizeLong();
  if (size > (size_t{1} << 31) - 64)
    return unsupported("the states of plugins take " + std::to_string(size) +
                       " bytes, too many for a checkpoint");
  std::string bytes = state.SerializeAsString();
  bytes += checksum_field(crc32_of(bytes));
  return write_atomically((fs::path(folder) / kState).string(), bytes);
}

}  // namespace

Result<std::string> save_checkpoint(const std::string& dir, const Checkpoint& checkpoint) {
  const std::string name = folder_name(checkpoint.step);
  const fs::path final = fs::path(dir) / name;
  const std::string temporary =
      (fs::path(dir) / (".saving-" + name + "-" + std::to_string(::getpid()))).string();
  TN_RETURN_IF_ERROR(make_folders(dir));
  std::error_code error;
  fs::remove_all(temporary, error);
  Status status = write_folder(temporary, checkpoint);
  if (status) status = sync_folder(temporary);
  if (status) status = put_in_place(temporary, final);
  if (status) status = sync_folder(dir);
  if (status) status = write_atomically((fs::path(dir) / "LATEST").string(), name + "\n");
  if (!status) {
    fs::remove_all(temporary, error);
    return status;
  }
  return final.string();
}

Result<std::string> latest_checkpoint(const std::string& dir) {
  if (const auto name = pointed(dir, "LATEST")) return (fs::path(dir) / *name).string();
  // Folders appear whole: where the pointer is lost, the newest will do.
  const auto names = list(dir);
  for (auto it = names.rbegin(); it != names.rend(); ++it)
    if (is_checkpoint(fs::path(dir) / *it)) return (fs::path(dir) / *it).string();
  return not_found("there is no checkpoint in '" + dir + "'");
}

Result<std::string> best_checkpoint(const std::string& dir) {
  if (const auto name = pointed(dir, "BEST")) return (fs::path(dir) / *name).string();
  return not_found("no checkpoint in '" + dir + "' is marked as the best one");
}

Status mark_best(const std::string& checkpoint_path, double value) {
  const fs::path path(checkpoint_path);
  char text[40];
  std::snprintf(text, sizeof text, " %.17g\n", value);
  return write_atomically((path.parent_path() / "BEST").string(), path.filename().string() + text);
}

Status prune_checkpoints(const std::string& dir, int64_t keep) {
  std::error_code error;
  for (fs::directory_iterator it(dir, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (name.starts_with(".saving-") || name.starts_with(".removed-")) {
      std::error_code ignored;
      fs::remove_all(it->path(), ignored);
    }
  }
  const auto best = pointed(dir, "BEST"), latest = pointed(dir, "LATEST");
  const int64_t last = latest ? step_of(*latest) : INT64_MAX;
  const auto names = list(dir);
  int64_t kept = 0;
  for (auto it = names.rbegin(); it != names.rend(); ++it) {
    if (step_of(*it) <= last && kept < std::max<int64_t>(keep, 1))
      ++kept;
    else if (*it != best)
      TN_RETURN_IF_ERROR(remove_checkpoint(fs::path(dir) / *it));
  }
  return Status::ok();
}

Result<Checkpoint> load_checkpoint(const std::string& path) {
  fs::path folder(path);
  if (folder.filename().empty()) folder = folder.parent_path();  // "dir/"
  std::error_code error;
  if (!fs::exists(folder, error)) return not_found("there is no checkpoint '" + path + "'");
  if (step_of(folder.filename().string()) < 0 && !is_checkpoint(folder)) {
    const fs::path inner = folder / "checkpoints";
    TN_ASSIGN(const std::string latest,
              latest_checkpoint(fs::is_directory(inner, error) ? inner.string() : folder.string()));
    folder = latest;
  }
  Result<Checkpoint> loaded = load_folder(folder);
  if (loaded) return loaded;
  const Status status = std::move(loaded).status();
  const auto other = newest_whole(folder);
  return Status(status.code(), status.message() + (other ? "; the checkpoint '" + *other + "' is whole (remove the damaged one to go on from it)"
                                                         : "; there is no other whole checkpoint beside it"));
}

Result<std::vector<const HostArray*>> match_tensors(const NamedArrays& have,
                                                    const std::vector<Wanted>& wanted) {
  std::unordered_map<std::string_view, const HostArray*> by_name;
  std::vector<std::string_view> names;
  for (const auto& [name, a] : have) {
    by_name[name] = &a;
    names.push_back(name);
  }
  constexpr size_t kShown = 4;
  std::vector<const HostArray*> matched;
  std::string problems;
  size_t count = 0;
  const auto describe = [](DType dtype, const Shape& shape) {
    return std::string(name_of(dtype)) + to_string(shape);
  };
  for (const Wanted& w : wanted) {
    const auto it = by_name.find(w.name);
    std::string problem;
    if (it == by_name.end()) {
      const std::string near = nearest(w.name, names);
      problem = "'" + w.name + "' is missing" + (near.empty() ? "" : " (there is '" + near + "')");
    } else if (it->second->shape() != w.shape || it->second->dtype() != w.dtype) {
      problem = "'" + w.name + "' is " + describe(it->second->dtype(), it->second->shape()) +
                ", the model has " + describe(w.dtype, w.shape);
    } else {
      matched.push_back(it->second);
    }
    if (!problem.empty() && ++count <= kShown) problems += (problems.empty() ? "" : ", ") + problem;
  }
  if (count == 0) return matched;
  if (count > kShown) problems += ", and " + std::to_string(count - kShown) + " more";
  return invalid("the checkpoint is of another model: " + problems);
}

}  // namespace tenon
