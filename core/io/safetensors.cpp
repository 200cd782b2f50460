#include "core/io/safetensors.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <set>

namespace tenon {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors stores little-endian numbers");

constexpr size_t kMaxHeader = 100'000'000;  // the limit of the format's own library
constexpr std::array<std::string_view, kDTypeCount> kNames = {"F32", "F64", "BF16", "I32",
                                                              "I64", "U8",  "BOOL"};

std::optional<DType> dtype_of_name(std::string_view name) {
  const auto it = std::find(kNames.begin(), kNames.end(), name);
  if (it == kNames.end()) return std::nullopt;
  return static_cast<DType>(it - kNames.begin());
}

struct Entry {
  std::string name;
  DType dtype = DType::f32;
  Shape shape;
  uint64_t begin = 0, end = 0;
};

// A whole number that fits in 63 bits, or nothing: JSON numbers may be anything.
std::optional<uint64_t> whole(const nlohmann::json& v) {
  if (!v.is_number_unsigned()) return std::nullopt;
  const auto n = v.get<uint64_t>();
  return n <= static_cast<uint64_t>(INT64_MAX) ? std::optional(n) : std::nullopt;
}

Result<Entry> parse_entry(const std::string& name, const nlohmann::json& v) {
  const std::string tensor = "tensor '" + name + "'";
  if (!v.is_object() || !v.contains("dtype") || !v.contains("shape") || !v.contains("data_offsets"))
    return invalid(tensor + " lacks dtype, shape or data_offsets");
  Entry e;
  e.name = name;
  if (!v["dtype"].is_string()) return invalid(tensor + " has a dtype that is not a string");
  const auto dtype_name = v["dtype"].get<std::string>();
  const auto dtype = dtype_of_name(dtype_name);
  if (!dtype)
    return unsupported(tensor + " has elements of type " + dtype_name +
                       "; F32, F64, BF16, I32, I64, U8 and BOOL can be read");
  e.dtype = *dtype;
  if (!v["shape"].is_array() || v["shape"].size() > kMaxRank)
    return invalid(tensor + " has a shape that is not a list of at most " + std::to_string(kMaxRank) +
                   " sizes");
  uint64_t bytes = size_of(e.dtype), extent = bytes;  // extent: without sizes of 0, so that strides fit too
  for (const auto& d : v["shape"]) {
    const auto n = whole(d);
    if (!n) return invalid(tensor + " has a size that is not a whole number: " + d.dump());
    e.shape.push_back(static_cast<int64_t>(*n));
    bytes *= *n;
    if (__builtin_mul_overflow(extent, std::max<uint64_t>(*n, 1), &extent) ||
        extent > static_cast<uint64_t>(INT64_MAX))
      return invalid(tensor + " has an impossible shape " + v["shape"].dump());
  }
  const auto& offsets = v["data_offsets"];
  if (!offsets.is_array() || offsets.size() != 2 || !whole(offsets[0]) || !whole(offsets[1]))
    return invalid(tensor + " has data_offsets that are not two whole numbers: " + offsets.dump());
  e.begin = *whole(offsets[0]);
  e.end = *whole(offsets[1]);
  if (e.end < e.begin || e.end - e.begin != bytes)
    return invalid(tensor + " of shape " + to_string(e.shape) + " needs " + std::to_string(bytes) +
                   " bytes, but its data_offsets are " + offsets.dump());
  return e;
}

// nlohmann keeps the last of two equal keys; a safetensors header with two is a corrupt one.
class DuplicateFinder {
 public:
  bool operator()(int, nlohmann::json::parse_event_t event, nlohmann::json& parsed) {
    using Event = nlohmann::json::parse_event_t;
    if (event == Event::object_start) open_.emplace_back();
    if (event == Event::object_end && !open_.empty()) open_.pop_back();
    if (event == Event::key && !open_.empty() && !open_.back().insert(parsed.get<std::string>()).second &&
        duplicate_.empty())
      duplicate_ = parsed.get<std::string>();
    return true;
  }
  const std::string& duplicate() const { return duplicate_; }

 private:
  std::vector<std::set<std::string>> open_;
  std::string duplicate_;
};

Result<std::vector<Entry>> parse_header(std::string_view text, uint64_t data_size, TextMap& metadata) {
  DuplicateFinder finder;
  const nlohmann::json header = nlohmann::json::parse(
      text.begin(), text.end(),
      [&](int depth, nlohmann::json::parse_event_t event, nlohmann::json& v) {
        return finder(depth, event, v);
      },
      /*allow_exceptions=*/false);
  if (header.is_discarded() || !header.is_object()) return invalid("its header is not a JSON object");
  if (!finder.duplicate().empty()) return invalid("'" + finder.duplicate() + "' appears twice in its header");

  std::vector<Entry> entries;
  for (const auto& [name, v] : header.items()) {
    if (name == "__metadata__") {
      if (!v.is_object()) return invalid("its __metadata__ is not an object");
      for (const auto& [key, text_value] : v.items()) {
        if (!text_value.is_string()) return invalid("its __metadata__ '" + key + "' is not a string");
        metadata[key] = text_value.get<std::string>();
      }
      continue;
    }
    TN_ASSIGN(Entry e, parse_entry(name, v));
    if (e.end > data_size)
      return invalid("tensor '" + name + "' ends at byte " + std::to_string(e.end) +
                     " of the data, which has only " + std::to_string(data_size) +
                     "; the file is truncated or corrupt");
    entries.push_back(std::move(e));
  }
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  uint64_t at = 0;
  const Entry* before = nullptr;
  for (const Entry& e : entries) {
    if (e.begin < at) return invalid("tensors '" + before->name + "' and '" + e.name + "' overlap");
    if (e.begin > at)
      return invalid("there is a gap of " + std::to_string(e.begin - at) + " bytes before tensor '" + e.name +
                     "'");
    at = e.end;
    before = &e;
  }
  if (at != data_size)
    return invalid("it has " + std::to_string(data_size - at) + " bytes after the last tensor");
  return entries;
}

Result<Safetensors> parse_bytes(std::string_view bytes) {
  uint64_t header_size = 0;
  if (bytes.size() < sizeof header_size)
    return invalid("it has " + std::to_string(bytes.size()) + " bytes, too few for a safetensors file");
  std::memcpy(&header_size, bytes.data(), sizeof header_size);
  bytes.remove_prefix(sizeof header_size);
  if (header_size > kMaxHeader)
    return invalid("its header would have " + std::to_string(header_size) +
                   " bytes; this is not a safetensors file");
  if (header_size > bytes.size())
    return invalid("its header should have " + std::to_string(header_size) +
                   " bytes but the file ends after " + std::to_string(bytes.size()) + "; it is truncated");
  Safetensors result;
  const std::string_view data = bytes.substr(header_size);
  TN_ASSIGN(const std::vector<Entry> entries,
            parse_header(bytes.substr(0, header_size), data.size(), result.metadata));
  for (const Entry& e : entries) {
    HostArray a(e.dtype, e.shape);
    if (e.dtype == DType::boolean) {
      const auto flag = [](char c) { return static_cast<uint8_t>(c) <= 1; };
      const std::string_view raw = data.substr(e.begin, e.end - e.begin);
      if (!std::all_of(raw.begin(), raw.end(), flag))
        return invalid("tensor '" + e.name + "' of type BOOL has elements other than 0 and 1");
    }
    if (e.end > e.begin) std::memcpy(a.data(), data.data() + e.begin, e.end - e.begin);
    result.tensors.emplace_back(e.name, std::move(a));
  }
  return result;
}

}  // namespace

Result<Safetensors> parse_safetensors(std::string_view bytes, std::string_view path) {
  Result<Safetensors> result = parse_bytes(bytes);
  if (!result) return std::move(result).status().at("'" + std::string(path) + "' can't be used");
  return result;
}

Result<Safetensors> read_safetensors(const std::string& path) {
  TN_ASSIGN(const std::string bytes, read_bytes(path));
  return parse_safetensors(bytes, path);
}

Status write_safetensors(const std::string& path, const NamedArrays& tensors, const TextMap& metadata,
                         uint32_t* crc32) {
  std::vector<size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return size_of(tensors[a].second.dtype()) > size_of(tensors[b].second.dtype());
  });

  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::set<std::string_view> names;
  uint64_t at = 0;
  for (const size_t i : order) {
    const auto& [name, a] = tensors[i];
    if (name == "__metadata__") return invalid("a tensor can't have the name '__metadata__'");
    if (!names.insert(name).second) return invalid("two tensors have the name '" + name + "'");
    const std::vector<int64_t> shape(a.shape().begin(), a.shape().end());
    header[name] = {{"dtype", kNames[static_cast<size_t>(a.dtype())]},
                    {"shape", shape},
                    {"data_offsets", {at, at + a.size_bytes()}}};
    at += a.size_bytes();
  }
  // Names need not be UTF-8; JSON must be.
  std::string text = header.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  text.append((8 - text.size() % 8) % 8, ' ');  // so that the data begins at a multiple of 8
  const uint64_t size = text.size();

  TN_ASSIGN(AtomicFile file, AtomicFile::create(path));
  TN_RETURN_IF_ERROR(file.write(std::as_bytes(std::span(&size, 1))));
  TN_RETURN_IF_ERROR(file.write(text));
  for (const size_t i : order) {
    const HostArray& a = tensors[i].second;
    TN_RETURN_IF_ERROR(file.write(std::span(a.data(), a.size_bytes())));
  }
  TN_RETURN_IF_ERROR(file.commit());
  if (crc32) *crc32 = file.crc32();
  return Status::ok();
}

}  // namespace tenon
